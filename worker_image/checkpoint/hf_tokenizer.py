"""The tokenizer of a Hugging Face directory: tokenizer.json by the `tokenizers` library, its special tokens and chat
template from the files beside it. A model without one is served by token ids only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models

from worker_image.checkpoint import sentencepiece
from worker_image.checkpoint.json_fields import Fields, read_bounded, read_json
from worker_image.checkpoint.source import CONFIG_FILE
from worker_image.checkpoint.tokenizer import Speller, Vocabulary
from worker_image.errors import CheckpointError, RequestError

TOKENIZER_FILE: Final = "tokenizer.json"
TOKENIZER_CONFIG_FILE: Final = "tokenizer_config.json"
GENERATION_CONFIG_FILE: Final = "generation_config.json"
TEMPLATE_FILE: Final = "chat_template.jinja"
DEFAULT_TEMPLATE: Final = "default"


@dataclass(frozen=True)
class TokenIdsOnly(Vocabulary):
    """Of a model without a tokenizer: prompts must be token ids, and answers show them as `<id>`."""

    def encode(self, text: str, *, add_bos: bool) -> list[int]:
        raise RequestError("this model has no tokenizer; send token ids instead of text.", param="prompt")


def token_ids_only(n_vocab: int) -> Vocabulary:
    """For dummy weights: nothing ends a generation but its length."""
    return TokenIdsOnly(
        tokenizer=Tokenizer(models.WordLevel({"<0>": 0}, unk_token="<0>")),
        tokens=tuple(f"<{i}>" for i in range(n_vocab)),
        special_ids=frozenset(),
        bos_id=None,
        bos_token="",
        eos_token="",
        stop_ids=frozenset(),
        add_bos=False,
        chat_template=None,
    )


def load_hf_vocabulary(path: Path, n_vocab: int) -> Vocabulary:
    """path: the directory; n_vocab: rows of the embedding. Raises CheckpointError naming the file."""
    if not (path / TOKENIZER_FILE).is_file():
        raise CheckpointError(
            f"{path / TOKENIZER_FILE}: no such file; this worker reads tokenizers from it alone. "
            "Save the model's fast tokenizer into the directory."
        )
    tokenizer = _tokenizer(path / TOKENIZER_FILE, read_bounded(path / TOKENIZER_FILE))
    settings = _optional(path / TOKENIZER_CONFIG_FILE)
    vocab: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    if (largest := max(vocab.values(), default=-1)) >= n_vocab:
        raise CheckpointError(
            f"{path / TOKENIZER_FILE}: has token id {largest}; the model's vocabulary has ids 0 to {n_vocab - 1}."
        )
    bos_token, eos_token = _token_text(settings, "bos_token"), _token_text(settings, "eos_token")
    bos_id = vocab.get(bos_token) if bos_token else None
    return Vocabulary(
        tokenizer=tokenizer,
        tokens=_spellings(tokenizer, vocab, n_vocab),
        special_ids=frozenset(i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special),
        bos_id=bos_id,
        bos_token=bos_token,
        eos_token=eos_token,
        stop_ids=_stop_ids(path, vocab.get(eos_token) if eos_token else None, n_vocab),
        add_bos=bos_id is not None and _adds_bos(tokenizer, bos_id),
        chat_template=_chat_template(path, settings),
    )


def _tokenizer(path: Path, raw: bytes) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(raw.decode("utf-8"))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise CheckpointError(f"{path}: is no tokenizer: {error}.") from None
    # Files keep how their last user cut and filled up texts; a prompt is read as it is.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _optional(path: Path) -> Fields:
    return read_json(path) if path.exists() else Fields(str(path), {})


def _token_text(settings: Fields, key: str) -> str:
    """A special token, written as a string or as an object with its content; "" where there is none."""
    value = settings.get(key)
    content = value.get("content") if isinstance(value, dict) else value
    if content is not None and not isinstance(content, str):
        raise CheckpointError(f"{settings.name}: key '{key}' is {str(content)[:40]!r}; it must be a token.")
    return content or ""


def _spellings(tokenizer: Tokenizer, vocab: Mapping[str, int], n_vocab: int) -> tuple[str, ...]:
    """Special tokens as written, all others in the byte-level alphabet; added ones are plain text in the file."""
    added = tokenizer.get_added_tokens_decoder()
    byte_level = _is_byte_level(tokenizer)
    speller = Speller()
    tokens = [""] * n_vocab
    for token, i in vocab.items():
        if i in added:
            tokens[i] = token if added[i].special else speller.spell(token.encode())
        else:
            tokens[i] = token if byte_level else speller.spell(sentencepiece.spelled(token))
    return tuple(tokens)


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    return "ByteLevel" in repr(tokenizer.decoder)


def _stop_ids(path: Path, eos_id: int | None, n_vocab: int) -> frozenset[int]:
    """What generation_config.json lists, else config.json, and the tokenizer's own end in any case."""
    generation, config = path / GENERATION_CONFIG_FILE, path / CONFIG_FILE
    listed = _eos_ids(_optional(generation)) or _eos_ids(_optional(config))
    ids = frozenset(listed) | ({eos_id} if eos_id is not None else set())
    if not ids:
        raise CheckpointError(f"{generation}: key 'eos_token_id' is absent, also in {CONFIG_FILE}; nothing would end.")
    if wrong := [i for i in ids if not 0 <= i < n_vocab]:
        raise CheckpointError(f"{generation}: eos_token_id is {wrong[0]}; the vocabulary has ids 0 to {n_vocab - 1}.")
    return ids


def _eos_ids(fields: Fields) -> list[int]:
    value = fields.get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    ids = [item for item in values if type(item) is int]
    if len(ids) != len(values):
        raise CheckpointError(f"{fields.name}: key 'eos_token_id' is {str(value)[:40]!r}; it must be token ids.")
    return ids


def _adds_bos(tokenizer: Tokenizer, bos_id: int) -> bool:
    """The file says so only by what its post-processor does."""
    with_special: list[int] = tokenizer.encode("a").ids
    without: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    return with_special[:1] == [bos_id] != without[:1]


def _chat_template(path: Path, settings: Fields) -> str | None:
    if (path / TEMPLATE_FILE).exists():
        return read_bounded(path / TEMPLATE_FILE).decode("utf-8", "replace")
    value = settings.get("chat_template")
    if isinstance(value, list):
        return _named_template(settings, value)
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{settings.name}: key 'chat_template' is {str(value)[:40]!r}; it must be a string.")
    return value


def _named_template(settings: Fields, entries: list[object]) -> str | None:
    named = {entry.get("name"): entry.get("template") for entry in entries if isinstance(entry, dict)}
    template = named.get(DEFAULT_TEMPLATE)
    if entries and not isinstance(template, str):
        raise CheckpointError(f"{settings.name}: key 'chat_template' lists no template named '{DEFAULT_TEMPLATE}'.")
    return template if isinstance(template, str) else None
