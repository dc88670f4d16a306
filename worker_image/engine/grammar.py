"""Grammar of one sequence: which tokens may come next. A thin hold on llguidance, which knows no request.

The server has validated the grammar in a process of its own; what still fails here ends one request, by `failure`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

MASK_BITS: Final = 32
N_REMEMBERED: Final = 64
"""Compiled grammars; a client sends the same schema again and again."""


class Matcher:
    """Never raises: a matcher that failed says so in `failure`, and allows every token until somebody looks."""

    def __init__(self, matcher: LLMatcher, eos_ids: frozenset[int], n_words: int) -> None:
        """n_words: of a mask over the tokenizer's vocabulary."""
        self.eos_ids = eos_ids
        """A finished grammar allows nothing else."""
        self._matcher = matcher
        self._n_words = n_words

    @property
    def failure(self) -> str | None:
        """A sentence for a log and the client, with llguidance's own. What follows it there is the parser's state."""
        if not self._matcher.is_error():
            return None
        first, *_ = self._matcher.get_error().splitlines()
        return f"the grammar failed: {first}"

    def fork(self) -> Matcher:
        """Another one in the same state."""
        return Matcher(self._matcher.deep_copy(), self.eos_ids, self._n_words)

    def advance(self, token: int) -> None:
        self._matcher.consume_token(token)

    def fill(self, mask: npt.NDArray[np.int32]) -> None:
        """mask: (words,) int32, contiguous; bit t is set where token t is allowed.

        It may be longer than the vocabulary, for a matrix with padding, and is 0 there.
        """
        assert mask.size >= self._n_words, f"a mask of {mask.size} words; the vocabulary has {self._n_words}"
        mask[self._n_words :] = 0
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, self._n_words * mask.itemsize)
        if self._matcher.is_error():
            mask.fill(-1)


class Grammars:
    """Makes matchers for one tokenizer. One thread calls it."""

    def __init__(self, tokenizer: str, n_tokens: int, eos_ids: Sequence[int]) -> None:
        """tokenizer: JSON of the `tokenizers` library. Raises ValueError for one that llguidance cannot read."""
        self._eos_ids = frozenset(eos_ids)
        self._tokenizer = LLTokenizer(tokenizer, n_tokens, list(eos_ids))
        self._n_words = -(-n_tokens // MASK_BITS)
        self._compiled: OrderedDict[tuple[str, str], Matcher] = OrderedDict()

    def matcher(self, grammar: str, salt: str = "") -> Matcher:
        """At its beginning. grammar: llguidance's text; compiling a large one takes seconds, without the GIL.

        Only requests of the same salt share what is compiled: the time it takes tells that somebody has asked before.
        """
        key = (salt, grammar)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = Matcher(LLMatcher(self._tokenizer, grammar, log_level=0), self._eos_ids, self._n_words)
            self._compiled[key] = compiled
            if len(self._compiled) > N_REMEMBERED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return compiled.fork()
