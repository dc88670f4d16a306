"""Opens whatever checkpoint lies under the path of the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from worker_image.checkpoint.base import Checkpoint
from worker_image.checkpoint.dummy import DummyCheckpoint
from worker_image.checkpoint.gguf_checkpoint import GgufCheckpoint
from worker_image.checkpoint.hf_checkpoint import HfCheckpoint
from worker_image.checkpoint.hf_config import CONFIG_FILE
from worker_image.checkpoint.source import find_gguf
from worker_image.errors import CheckpointError


class LoadFormat(StrEnum):
    """`--load-format`."""

    AUTO = "auto"
    """What the path holds: a GGUF file, or a Hugging Face directory."""
    DUMMY = "dummy"
    """Random weights for the shape in config.json."""


def open_checkpoint(path: Path, load_format: LoadFormat = LoadFormat.AUTO) -> Checkpoint:
    """Reads headers only. Raises CheckpointError with a sentence naming the file, and the tensor where there is one."""
    if load_format is LoadFormat.DUMMY:
        return DummyCheckpoint(path)
    return HfCheckpoint(path) if is_hf_directory(path) else GgufCheckpoint(find_gguf(path))


def is_hf_directory(path: Path) -> bool:
    """A directory with config.json, and no GGUF file instead of safetensors."""
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: name the directory that holds it and its {CONFIG_FILE}.")
    return (path / CONFIG_FILE).is_file() and (any(path.glob("*.safetensors*")) or not any(path.rglob("*.gguf")))
