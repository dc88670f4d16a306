"""From a checkpoint to tensors on the device the model runs on: converted, and stacked where layers fuse matrices."""

from __future__ import annotations

from typing import Protocol
from zlib import crc32

import torch

from worker_image.checkpoint.base import Checkpoint
from worker_image.checkpoint.dummy import DummyCheckpoint
from worker_image.models.config import ModelConfig
from worker_image.models.staged_weights import StagedWeights
from worker_image.models.stored import as_tensor
from worker_image.models.tensors import expected_tensors


class Weights(Protocol):
    def take(self, *names: str) -> torch.Tensor:
        """The tensors of these names one above the other, contiguous, of the right type and on the right device.

        Each name is taken once, in the groups of `tensors.load_groups`. Raises CheckpointError.
        """


class OpenWeights(Weights, Protocol):
    def close(self) -> None:
        """Ends the background work of a load that is given up; nothing after the last `take`."""


def weights_of(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, n_threads: int) -> OpenWeights:
    """The fastest way from that checkpoint to that device."""
    if isinstance(checkpoint, DummyCheckpoint):
        return DummyWeights(checkpoint.config, dtype, device)
    if device.type == "cuda":
        return StagedWeights(checkpoint, dtype, device, n_threads)
    return HostWeights(checkpoint, dtype, device)


class HostWeights:
    """Reads on the calling thread into ordinary memory."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._device = device

    def take(self, *names: str) -> torch.Tensor:
        parts = [self._read(name) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def close(self) -> None:
        """There is nothing in the background."""

    def _read(self, name: str) -> torch.Tensor:
        stored = self._checkpoint.read(name)
        return as_tensor(stored).to(self._device, self._dtype, copy=stored.in_file)


class DummyWeights:
    """Random weights made on the device, the same for the same seed and kind of device. Norms are ones."""

    STD = 0.02
    """As models are initialised: activations stay finite through any depth."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
        self._shapes = expected_tensors(config)
        self._dtype = dtype
        self._device = device
        self._seed = seed

    def take(self, *names: str) -> torch.Tensor:
        shapes = [self._shapes[name] for name in names]
        size = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        values = torch.empty(size, dtype=self._dtype, device=self._device)
        if names[0].endswith("norm.weight"):
            return values.fill_(1.0)
        # Each from its own name, so that the order of taking does not matter.
        name_seed = crc32(names[0].encode()) << 31 | self._seed
        return values.normal_(0.0, self.STD, generator=torch.Generator(self._device).manual_seed(name_seed))

    def close(self) -> None:
        """There is nothing in the background."""
