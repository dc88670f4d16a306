"""A model of any shape without weights: a directory that has only config.json. Its weights are made on the device
(`models.weights`), so that a large shape starts in seconds and needs no disk.
"""

from __future__ import annotations

from pathlib import Path

from worker_image.checkpoint.base import StoredTensor
from worker_image.checkpoint.hf_config import read_hf_config
from worker_image.checkpoint.source import CONFIG_FILE
from worker_image.errors import CheckpointError
from worker_image.models.config import ModelConfig


class DummyCheckpoint:
    """The config alone; there is nothing to read."""

    def __init__(self, path: Path) -> None:
        """path: the directory, or its config.json. Raises CheckpointError."""
        self.path = path
        self.config: ModelConfig = read_hf_config(path / CONFIG_FILE if path.is_dir() else path)

    def read(self, name: str) -> StoredTensor:
        raise CheckpointError(f"{self.path}: dummy weights have no file to read '{name}' from.")

    def prefetch(self, n_threads: int) -> None:
        """There is nothing to fetch."""

    def close(self) -> None:
        """There is nothing to end."""
