"""From a checkpoint's arrays, which know no torch, to tensors."""

from __future__ import annotations

import torch

from worker_image.checkpoint.base import StoredTensor


def as_tensor(stored: StoredTensor) -> torch.Tensor:
    """A view of the same memory, in the stored type."""
    if stored.bfloat16:
        return torch.from_numpy(stored.values.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(stored.values)
