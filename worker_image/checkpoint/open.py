"""Opens whatever checkpoint lies under the path of the command line."""

from __future__ import annotations

from pathlib import Path

from worker_image.checkpoint.base import Checkpoint
from worker_image.checkpoint.dummy import DummyCheckpoint
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.gguf_checkpoint import GgufCheckpoint
from worker_image.checkpoint.hf_checkpoint import HfCheckpoint
from worker_image.checkpoint.hf_config import read_hf_config
from worker_image.checkpoint.hf_tokenizer import TOKENIZER_FILE, load_hf_vocabulary, token_ids_only
from worker_image.checkpoint.source import CONFIG_FILE, LoadFormat, find_gguf, is_hf_directory
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary


def open_checkpoint(path: Path, load_format: LoadFormat = LoadFormat.AUTO) -> Checkpoint:
    """Reads headers only. Raises CheckpointError with a sentence naming the file, and the tensor where there is one."""
    if load_format is LoadFormat.DUMMY:
        return DummyCheckpoint(path)
    return HfCheckpoint(path) if is_hf_directory(path) else GgufCheckpoint(find_gguf(path))


def open_vocabulary(path: Path, load_format: LoadFormat = LoadFormat.AUTO) -> Vocabulary:
    """The tokenizer of the same checkpoint; its weights are not looked at. Raises CheckpointError."""
    if load_format is LoadFormat.DUMMY and not (path / TOKENIZER_FILE).is_file():
        return token_ids_only(DummyCheckpoint(path).config.vocab)
    if load_format is LoadFormat.DUMMY or is_hf_directory(path):
        return load_hf_vocabulary(path, read_hf_config(path / CONFIG_FILE).vocab)
    return load_vocabulary(GgufFile(find_gguf(path)))
