"""Matrix products of the forward pass: weights are packed once at load, for the library that is fastest here.

y = x · Wᵀ, no bias. Nothing else about a layer is known here.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear


class Linear:
    """weight: (out, in) float32, contiguous; called with x: (tokens, in) → (tokens, out)."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self._weight)
