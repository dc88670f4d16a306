"""From a checkpoint to tensors on the device the model runs on: converted, and stacked where layers fuse matrices."""

from __future__ import annotations

from typing import Protocol

import torch

from worker_image.checkpoint.base import Checkpoint, StoredTensor


class Weights(Protocol):
    def take(self, *names: str) -> torch.Tensor:
        """The tensors of these names one above the other, contiguous, of the right type and on the right device.

        Each name is taken once. Raises CheckpointError.
        """


class HostWeights:
    """Reads on the calling thread into ordinary memory."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype

    def take(self, *names: str) -> torch.Tensor:
        parts = [as_tensor(self._checkpoint.read(name)).to(self._dtype) for name in names]
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def as_tensor(stored: StoredTensor) -> torch.Tensor:
    """A view of the same memory, in the stored type."""
    if stored.bfloat16:
        return torch.from_numpy(stored.values.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(stored.values)
