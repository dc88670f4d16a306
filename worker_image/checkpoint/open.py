"""Opens whatever checkpoint lies under the path of the command line."""

from __future__ import annotations

from pathlib import Path

from worker_image.checkpoint.base import Checkpoint
from worker_image.checkpoint.gguf_checkpoint import GgufCheckpoint
from worker_image.checkpoint.source import find_gguf


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads headers only. Raises CheckpointError with a sentence naming the file, and the tensor where there is one."""
    return GgufCheckpoint(find_gguf(path))
