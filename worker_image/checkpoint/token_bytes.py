"""The most bytes of text that a token can stand for, so that a text which must be too long need not be tokenized.

An upper bound, and only for tokenizers that lose nothing of a text; others have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
from tokenizers import Tokenizer, models
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from worker_image.text.detokenizer import byte_alphabet

CHARACTER_BYTES: Final = 4
"""Of the longest character, which may be a token of its own although the vocabulary has it not."""
COMPOSED_BYTES: Final = 4
"""NFC makes at most so many bytes one: seven two, as in ΐ."""
BYTE_FALLBACK: Final = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def most_bytes_a_token(tokenizer: Tokenizer) -> int | None:
    """None where a token may swallow any amount of text."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    if not (_spells_everything(tokenizer.model, vocab) and _cuts_nothing_off(tokenizer)):
        return None
    longest = max(CHARACTER_BYTES, *(len(token.encode()) for token in vocab))
    steps = list(_steps(tokenizer.normalizer))
    if not all(_keeps_text(step) for step in steps):
        return None
    return longest * COMPOSED_BYTES if any(step["type"] == "NFC" for step in steps) else longest


def _spells_everything(model: object, vocab: Mapping[str, int]) -> bool:
    """Whatever is no token itself becomes several, none of which stands for a run of unknown characters."""
    if not isinstance(model, models.BPE) or model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    return vocab.keys() >= (BYTE_FALLBACK if model.byte_fallback else byte_alphabet().keys())


def _cuts_nothing_off(tokenizer: Tokenizer) -> bool:
    if any(token.lstrip or token.rstrip for token in tokenizer.get_added_tokens_decoder().values()):
        return False
    steps = list(_steps(tokenizer.pre_tokenizer))
    if not tokenizer.model.byte_fallback and not any(step["type"] == "ByteLevel" for step in steps):
        return False
    kept = {"ByteLevel", "Digits", "Metaspace", "Split"}
    return all(step["type"] in kept and step.get("behavior") != "Removed" for step in steps)


def _keeps_text(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Replace":
        replaced = step["pattern"].get("String")
        return replaced is not None and len(step["content"].encode()) >= len(replaced.encode())
    return step["type"] in ("NFC", "Prepend")


def _steps(component: Normalizer | PreTokenizer | None) -> Iterator[Mapping[str, Any]]:
    return iter(()) if component is None else _flat(orjson.loads(component.__getstate__()))


def _flat(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if step["type"] != "Sequence":
        yield step
    for inner in step.get("normalizers") or step.get("pretokenizers") or ():
        yield from _flat(inner)
