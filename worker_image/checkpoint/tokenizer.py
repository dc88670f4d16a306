"""The checkpoint's tokenizer with what the server must know about its tokens, and how a GGUF file gives it.

Byte-level BPE (`tokenizer.ggml.model = gpt2`) and SentencePiece (`llama`). Hugging Face's is in `hf_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models

from worker_image.checkpoint import sentencepiece
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.pre_tokenizers import CUTTINGS, Cutting
from worker_image.checkpoint.token_bytes import most_bytes_a_token
from worker_image.errors import CheckpointError
from worker_image.text.detokenizer import byte_alphabet

UNKNOWN_TOKEN: Final = 2
CONTROL_TOKEN: Final = 3
USER_DEFINED_TOKEN: Final = 4
TURN_ENDS: Final = frozenset({"<|im_end|>", "<|eot_id|>", "<|eom_id|>"})
"""Control tokens that end an answer also where the file's `eos` is the end of a document, as in early Llama 3 files."""
BYTE_LEVEL: Final = "gpt2"
SENTENCEPIECE: Final = "llama"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with what the server needs to know about its tokens."""

    tokenizer: Tokenizer
    tokens: tuple[str, ...]
    """Token id → its spelling in the byte-level alphabet (special tokens: as written); "" for ids that are none."""
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
        # A batch of one: `encode` keeps the GIL, for seconds where a text is long.
        (encoding,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return [self.bos_id, *ids] if add_bos and self.bos_id is not None else ids

    @cached_property
    def most_bytes_a_token(self) -> int | None:
        """Of text, at least as many as any token stands for; None where that may be any number."""
        return most_bytes_a_token(self.tokenizer)


class Speller:
    """Writes bytes in the printable alphabet of byte-level BPE."""

    def __init__(self) -> None:
        self._character = {byte: character for character, byte in byte_alphabet().items()}

    def spell(self, raw: bytes) -> str:
        return "".join(self._character[byte] for byte in raw)


def load_vocabulary(file: GgufFile) -> Vocabulary:
    """Raises CheckpointError where the file lacks a tokenizer or has one of a kind this worker does not know."""
    tokens = file.texts("tokenizer.ggml.tokens")
    ids = _ids(file, tokens)
    types = _types(file, tokens)
    byte_level = file.text("tokenizer.ggml.model") == BYTE_LEVEL
    cutting = _cutting(file) if byte_level else Cutting(add_bos=True)
    tokenizer = _byte_level(file, ids, cutting) if byte_level else _sentencepiece(file, ids, types)
    control = [i for i, kind in enumerate(types) if kind in (CONTROL_TOKEN, UNKNOWN_TOKEN)]
    user = [i for i, kind in enumerate(types) if kind == USER_DEFINED_TOKEN]
    tokenizer.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False) for i in control])
    tokenizer.add_tokens([AddedToken(tokens[i], special=False, normalized=False) for i in user])
    eos_id, bos_id = _token_id(file, "eos", tokens), _token_id(file, "bos", tokens)
    stop_ids = {eos_id, _token_id(file, "eot", tokens), *(i for i in control if tokens[i] in TURN_ENDS)} - {None}
    if not stop_ids:
        raise CheckpointError(f"{file.path}: metadata key 'tokenizer.ggml.eos_token_id' is absent; nothing would end.")
    return Vocabulary(
        tokenizer=tokenizer,
        tokens=_spellings(tokens, frozenset(control), frozenset(user), byte_level=byte_level),
        special_ids=frozenset(control),
        bos_id=bos_id,
        bos_token="" if bos_id is None else tokens[bos_id],
        eos_token="" if eos_id is None else tokens[eos_id],
        stop_ids=frozenset(i for i in stop_ids if i is not None),
        add_bos=file.flag("tokenizer.ggml.add_bos_token", cutting.add_bos),
        chat_template=file.text("tokenizer.chat_template") if "tokenizer.chat_template" in file.metadata else None,
    )


def _ids(file: GgufFile, tokens: list[str]) -> dict[str, int]:
    kind = file.text("tokenizer.ggml.model")
    if kind not in (BYTE_LEVEL, SENTENCEPIECE):
        raise CheckpointError(
            f"{file.path}: tokenizer model is '{kind}'; this worker reads '{BYTE_LEVEL}' (byte-level BPE) "
            f"and '{SENTENCEPIECE}' (SentencePiece)."
        )
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise CheckpointError(f"{file.path}: the vocabulary has {len(tokens) - len(ids)} tokens twice.")
    return ids


def _types(file: GgufFile, tokens: list[str]) -> list[int]:
    types = file.integers("tokenizer.ggml.token_type")
    if len(types) != len(tokens):
        raise CheckpointError(f"{file.path}: {len(tokens)} tokens but {len(types)} token types.")
    return types


def _cutting(file: GgufFile) -> Cutting:
    name = file.text("tokenizer.ggml.pre", "gpt-2")
    cutting = CUTTINGS.get(name)
    if cutting is None:
        allowed = ", ".join(CUTTINGS)
        raise CheckpointError(f"{file.path}: pre-tokenizer '{name}' is unknown to this worker; it has {allowed}.")
    return cutting


def _byte_level(file: GgufFile, ids: dict[str, int], cutting: Cutting) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=_merges(file, ids), ignore_merges=cutting.ignore_merges))
    if (normalizer := cutting.normalizer()) is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = cutting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(file: GgufFile, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for merge in file.texts("tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        if not (left in ids and right in ids and left + right in ids):
            raise CheckpointError(f"{file.path}: merge {merge[:40]!r} does not join two tokens of the vocabulary.")
        merges.append((left, right))
    return merges


def _sentencepiece(file: GgufFile, ids: dict[str, int], types: list[int]) -> Tokenizer:
    scores = file.numbers("tokenizer.ggml.scores")
    if len(scores) != len(ids):
        raise CheckpointError(f"{file.path}: {len(ids)} tokens but {len(scores)} scores.")
    unknown = next((token for token, i in ids.items() if types[i] == UNKNOWN_TOKEN), None)
    if unknown is None:
        raise CheckpointError(f"{file.path}: the vocabulary has no token for unknown characters (type 2).")
    prefix = file.flag("tokenizer.ggml.add_space_prefix", True)
    return sentencepiece.build_tokenizer(ids, scores, unknown, space_prefix=prefix)


def _spellings(
    tokens: list[str], special: frozenset[int], added: frozenset[int], *, byte_level: bool
) -> tuple[str, ...]:
    """Special tokens as written, all others in the byte-level alphabet; added ones are plain text in either file."""
    speller = Speller()

    def spelling(i: int, token: str) -> str:
        if i in special or (byte_level and i not in added):
            return token
        return speller.spell(token.encode() if i in added else sentencepiece.spelled(token))

    return tuple(spelling(i, token) for i, token in enumerate(tokens))


def _token_id(file: GgufFile, name: str, tokens: list[str]) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in file.metadata:
        return None
    token_id = file.integer(key)
    if not 0 <= token_id < len(tokens):
        raise CheckpointError(f"{file.path}: {key} is {token_id}; the vocabulary has ids 0 to {len(tokens) - 1}.")
    return token_id
