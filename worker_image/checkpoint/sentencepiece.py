"""SentencePiece vocabularies (Llama 2, Mistral): tokens with scores, `▁` for a space, `<0x0A>` for a byte.

The `tokenizers` library merges by rank, so the ranks are made from the scores: a pair's rank is its result's score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from tokenizers import Tokenizer, decoders, models, normalizers

SPACE: Final = "▁"
BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MAX_MERGED_CHARS: Final = 128
"""Longer tokens are not built by merging: the work grows with the square of it."""


def build_tokenizer(ids: Mapping[str, int], scores: Sequence[float], unknown: str, *, space_prefix: bool) -> Tokenizer:
    """ids: token → id; scores: by id, higher merges first."""
    model = models.BPE(
        vocab=dict(ids), merges=_merges(ids, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if space_prefix else spaces
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _merges(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, token_id in ids.items():
        if len(token) > MAX_MERGED_CHARS:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                ranked.append((-scores[token_id], ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def spelled(token: str) -> bytes:
    """The bytes a token stands for."""
    if (match := BYTE_TOKEN.fullmatch(token)) is not None:
        return bytes([int(match[1], 16)])
    return token.replace(SPACE, " ").encode("utf-8", "replace")
