"""Matrix products of the forward pass: weights are packed once at load, for the library that is fastest here.

y = x · Wᵀ, no bias. Nothing else about a layer is known here. Packed oneDNN weights are measured at twice the speed
of `torch.nn.functional.linear` on an AVX-512 machine at 8 rows (docs/benchmarks/cpu_engine.md).
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch.nn.functional import linear

ROWS_HINT: Final = 8
"""oneDNN packs for an expected number of rows; 8 is as good as any for 1 and for 64, the reverse is not true."""


class Linear(Protocol):
    """x: (tokens, in) → (tokens, out)."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


class PlainLinear:
    """weight: (out, in), contiguous; any dtype and device."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self._weight)


class PackedLinear:
    """Holds a packed copy of `weight`: (out, in) float32; the original is not kept."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
        self._multiply = torch.ops.mkldnn._linear_pointwise

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._multiply(x, self._packed, None, "none", [], "")
        return result


def pack_linear(weight: torch.Tensor) -> Linear:
    """The packed form where this build of torch has oneDNN and its operators, else the plain one."""
    available = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return PackedLinear(weight) if available else PlainLinear(weight)
