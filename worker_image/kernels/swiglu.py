"""silu(gate) · up of the packed projection, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import FLOATS, require, require_tensor
from worker_image.kernels.early import launch_options, wait_for_predecessor

_BLOCK = 2048


def swiglu(gate_up: torch.Tensor, out: torch.Tensor, *, early: bool = False) -> None:
    """gate_up: (rows, 2 · width) contiguous, gate then up; out: (rows, width), overwritten (arXiv:2002.05202)."""
    require_tensor("gate_up", gate_up, (None, None), FLOATS)
    rows, double = gate_up.shape
    require(double % 2 == 0, f"gate_up has rows of {double}; they must be a gate and an up of one width")
    require_tensor("out", out, (rows, double // 2), (gate_up.dtype,))
    if rows:
        grid = (rows, triton.cdiv(double // 2, _BLOCK))
        _swiglu_kernel[grid](
            gate_up, out, WIDTH=double // 2, BLOCK=_BLOCK, EARLY=early, num_warps=8, **launch_options(early)
        )


def swiglu_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """(rows, width) float64."""
    gate, up = gate_up.double().chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


@triton.jit
def _swiglu_kernel(
    gate_up: tl.tensor, out: tl.tensor, WIDTH: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr
) -> None:
    wait_for_predecessor(EARLY)
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < WIDTH
    gate = tl.load(gate_up + row * (2 * WIDTH) + offsets, mask=inside, other=0.0)
    up = tl.load(gate_up + row * (2 * WIDTH) + WIDTH + offsets, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out + row * WIDTH + offsets, (silu.to(tl.float32) * up.to(tl.float32)).to(gate.dtype), mask=inside)
