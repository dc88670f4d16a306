"""Opens the tokenizer of whatever checkpoint lies under the path: the server's half, which needs no weights."""

from __future__ import annotations

from pathlib import Path

from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.hf_config import read_hf_config
from worker_image.checkpoint.hf_tokenizer import TOKENIZER_FILE, load_hf_vocabulary, token_ids_only
from worker_image.checkpoint.source import CONFIG_FILE, LoadFormat, find_gguf, is_hf_directory
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary


def open_vocabulary(path: Path, load_format: LoadFormat = LoadFormat.AUTO) -> Vocabulary:
    """Its weights are not looked at. Raises CheckpointError."""
    if load_format is LoadFormat.DUMMY and not (path / TOKENIZER_FILE).is_file():
        return token_ids_only(read_hf_config(path / CONFIG_FILE if path.is_dir() else path).vocab)
    if load_format is LoadFormat.DUMMY or is_hf_directory(path):
        return load_hf_vocabulary(path, read_hf_config(path / CONFIG_FILE).vocab)
    return load_vocabulary(GgufFile(find_gguf(path)))
