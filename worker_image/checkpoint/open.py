"""Opens whatever checkpoint lies under the path of the command line."""

from __future__ import annotations

from pathlib import Path

from worker_image.checkpoint.base import Checkpoint
from worker_image.checkpoint.dummy import DummyCheckpoint
from worker_image.checkpoint.gguf_checkpoint import GgufCheckpoint
from worker_image.checkpoint.hf_checkpoint import HfCheckpoint
from worker_image.checkpoint.source import LoadFormat, find_gguf, is_hf_directory


def open_checkpoint(path: Path, load_format: LoadFormat = LoadFormat.AUTO) -> Checkpoint:
    """Reads headers only. Raises CheckpointError with a sentence naming the file, and the tensor where there is one."""
    if load_format is LoadFormat.DUMMY:
        return DummyCheckpoint(path)
    return HfCheckpoint(path) if is_hf_directory(path) else GgufCheckpoint(find_gguf(path))
