"""Grammar of one sequence: which tokens may come next. A thin hold on llguidance, which knows no request.

The server has validated the grammar in a process of its own; what still fails here ends one request, by `error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

MASK_BITS: Final = 32


class _Spelling:
    """What llguidance asks of a tokenizer: the bytes of every token. Text is never tokenized here."""

    def __init__(self, tokens: list[bytes], special_ids: Sequence[int], eos_id: int) -> None:
        self.tokens = tokens
        self.special_token_ids = list(special_ids)
        self.eos_token_id = eos_id
        self.bos_token_id = None

    def __call__(self, text: bytes) -> list[int]:
        """The longest token at each place; llguidance needs it only for grammars that name tokens by text."""
        by_bytes = {spelling: i for i, spelling in enumerate(self.tokens)}
        longest, ids, at = max(map(len, self.tokens)), [], 0
        while at < len(text):
            size = next(n for n in range(min(longest, len(text) - at), 0, -1) if text[at : at + n] in by_bytes)
            ids.append(by_bytes[text[at : at + size]])
            at += size
        return ids


class Grammars:
    """Makes matchers for one checkpoint."""

    def __init__(self, tokens: Sequence[bytes], special_ids: Sequence[int], eos_ids: Sequence[int]) -> None:
        """tokens: the bytes of every id. eos_ids: at least one; a finished grammar allows nothing else."""
        self.eos_ids = tuple(eos_ids)
        spelling = _Spelling(list(tokens), special_ids, self.eos_ids[0])
        self._tokenizer = LLTokenizer(TokenizerWrapper(spelling), n_vocab=len(tokens), eos_token=list(eos_ids))

    def matcher(self, grammar: str, generated: Sequence[int]) -> Matcher:
        """grammar: llguidance's text. generated: tokens of the answer that are there already."""
        matcher = Matcher(LLMatcher(self._tokenizer, grammar, log_level=0))
        for token in generated:
            matcher.advance(token)
        return matcher


class Matcher:
    """Never raises: a matcher that failed says so in `error`, and allows every token until somebody looks."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def error(self) -> str | None:
        """A sentence of llguidance, for a log and the client. What follows it there is the parser's state."""
        return self._matcher.get_error().partition("\n")[0] if self._matcher.is_error() else None

    def advance(self, token: int) -> None:
        self._matcher.consume_token(token)

    def fork(self) -> Matcher:
        return Matcher(self._matcher.deep_copy())

    def fill(self, mask: npt.NDArray[np.int32]) -> None:
        """mask: (words,) int32, contiguous, 32 · words ≥ vocabulary; bit t of it is set where token t is allowed."""
        mask.fill(-1)
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            mask.fill(-1)
