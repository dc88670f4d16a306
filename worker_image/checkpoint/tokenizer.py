"""Builds the checkpoint's tokenizer from the vocabulary and merges inside the GGUF.

Byte-level BPE (`tokenizer.ggml.model = gpt2`) only; the pre-tokenizer the model was trained with is named by
`tokenizer.ggml.pre`, and one we do not know is refused, because a wrong split changes what the model reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from worker_image.checkpoint.gguf import GgufFile
from worker_image.errors import CheckpointError

CONTROL_TOKEN: Final = 3
USER_DEFINED_TOKEN: Final = 4


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with what the server needs to know about its tokens."""

    tokenizer: Tokenizer
    tokens: tuple[str, ...]
    """Token id → its spelling in the byte-level alphabet (special tokens: as written)."""
    special_ids: frozenset[int]
    bos_id: int | None
    bos_token: str
    eos_token: str
    stop_ids: frozenset[int]
    """Any of these ends a generation."""
    add_bos: bool
    chat_template: str | None

    def encode(self, text: str, *, add_bos: bool) -> list[int]:
        """Token ids; special tokens written in the text become their ids."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos_id, *ids] if add_bos and self.bos_id is not None else ids


def load_vocabulary(file: GgufFile) -> Vocabulary:
    """Raises CheckpointError where the file lacks a tokenizer or has one of a kind this worker does not know."""
    tokens = file.texts("tokenizer.ggml.tokens")
    ids = _ids(file, tokens)
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=_merges(file, ids)))
    tokenizer.pre_tokenizer = _pre_tokenizer(file)
    tokenizer.decoder = decoders.ByteLevel()
    special_ids = _add_special_tokens(file, tokenizer, tokens)
    eos_id, bos_id = _token_id(file, "eos", tokens), _token_id(file, "bos", tokens)
    stop_ids = {eos_id, _token_id(file, "eot", tokens)} - {None}
    if not stop_ids:
        raise CheckpointError(f"{file.path}: metadata key 'tokenizer.ggml.eos_token_id' is absent; nothing would end.")
    return Vocabulary(
        tokenizer=tokenizer,
        tokens=tuple(tokens),
        special_ids=special_ids,
        bos_id=bos_id,
        bos_token="" if bos_id is None else tokens[bos_id],
        eos_token="" if eos_id is None else tokens[eos_id],
        stop_ids=frozenset(i for i in stop_ids if i is not None),
        add_bos=file.flag("tokenizer.ggml.add_bos_token", False),
        chat_template=file.text("tokenizer.chat_template") if "tokenizer.chat_template" in file.metadata else None,
    )


def _ids(file: GgufFile, tokens: list[str]) -> dict[str, int]:
    kind = file.text("tokenizer.ggml.model")
    if kind != "gpt2":
        raise CheckpointError(f"{file.path}: tokenizer model is '{kind}'; this worker reads 'gpt2' (byte-level BPE).")
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise CheckpointError(f"{file.path}: the vocabulary has {len(tokens) - len(ids)} tokens twice.")
    return ids


def _merges(file: GgufFile, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for merge in file.texts("tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        if not (left in ids and right in ids and left + right in ids):
            raise CheckpointError(f"{file.path}: merge {merge[:40]!r} does not join two tokens of the vocabulary.")
        merges.append((left, right))
    return merges


def _digits_alone() -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


_PRE_TOKENIZERS: Final[Mapping[str, Callable[[], pre_tokenizers.PreTokenizer]]] = {
    "gpt-2": _byte_level,
    "default": _byte_level,
    "smollm": _digits_alone,
}


def _pre_tokenizer(file: GgufFile) -> pre_tokenizers.PreTokenizer:
    name = file.text("tokenizer.ggml.pre", "gpt-2")
    build = _PRE_TOKENIZERS.get(name)
    if build is None:
        allowed = ", ".join(_PRE_TOKENIZERS)
        raise CheckpointError(f"{file.path}: pre-tokenizer '{name}' is unknown to this worker; it has {allowed}.")
    return build()


def _add_special_tokens(file: GgufFile, tokenizer: Tokenizer, tokens: list[str]) -> frozenset[int]:
    types = file.integers("tokenizer.ggml.token_type")
    if len(types) != len(tokens):
        raise CheckpointError(f"{file.path}: {len(tokens)} tokens but {len(types)} token types.")
    control = [i for i, kind in enumerate(types) if kind == CONTROL_TOKEN]
    user = [i for i, kind in enumerate(types) if kind == USER_DEFINED_TOKEN]
    tokenizer.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False) for i in control])
    tokenizer.add_tokens([AddedToken(tokens[i], special=False, normalized=False) for i in user])
    return frozenset(control)


def _token_id(file: GgufFile, name: str, tokens: list[str]) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in file.metadata:
        return None
    token_id = file.integer(key)
    if not 0 <= token_id < len(tokens):
        raise CheckpointError(f"{file.path}: {key} is {token_id}; the vocabulary has ids 0 to {len(tokens) - 1}.")
    return token_id
