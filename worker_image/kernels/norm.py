"""RMSNorm, alone and with the residual sum before it. One program a row, one read and one write of each element.

Results are rounded as the reference rounds them: the normalised row to the activations' type, then its product with
the weight. Adds into the caller's residual in place, and never keeps a row for a second pass.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import FLOATS, power_of_two, require, require_tensor
from worker_image.kernels.early import launch_options, wait_for_predecessor

MAX_WIDTH = 16384
"""A row is held in registers."""


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor, *, early: bool = False) -> None:
    """x, out: (rows, width) contiguous; weight: (width,) of x's type. Overwrites `out`. Source: arXiv:1910.07467."""
    _check(x, weight, out)
    _launch(x, x, weight, out, eps, has_residual=False, early=early)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor, *, early: bool = False
) -> None:
    """residual += x; out = rms_norm(residual). Both (rows, width) contiguous; `out` may be x itself."""
    _check(x, weight, out)
    require_tensor("residual", residual, tuple(x.shape), (x.dtype,))
    _launch(x, residual, weight, out, eps, has_residual=True, early=early)


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """(rows, width) float64, of whatever x holds."""
    wide = x.double()
    return wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()


def _check(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    require_tensor("x", x, (None, None), FLOATS)
    require(x.shape[1] <= MAX_WIDTH, f"x has rows of {x.shape[1]}; the kernel holds at most {MAX_WIDTH} in registers")
    require_tensor("weight", weight, (x.shape[1],), (x.dtype,))
    require_tensor("out", out, tuple(x.shape), (x.dtype,))


def _launch(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, eps: float, *,
    has_residual: bool, early: bool,
) -> None:  # fmt: skip
    rows, width = x.shape
    block = power_of_two(width)
    if rows:
        _rms_norm_kernel[(rows,)](
            x, residual, weight, out, eps, WIDTH=width, BLOCK=block, RESIDUAL=has_residual, EARLY=early,
            num_warps=min(16, max(1, block // 512)), **launch_options(early),
        )  # fmt: skip


@triton.jit
def _rms_norm_kernel(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    RESIDUAL: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    offsets = tl.arange(0, BLOCK)
    inside = offsets < WIDTH
    start = tl.program_id(0).to(tl.int64) * WIDTH
    gains = tl.load(weight + offsets, mask=inside, other=0.0)
    wait_for_predecessor(EARLY)
    values = tl.load(x + start + offsets, mask=inside, other=0.0)
    if RESIDUAL:
        values = (values.to(tl.float32) + tl.load(residual + start + offsets, mask=inside, other=0.0)).to(values.dtype)
        tl.store(residual + start + offsets, values, mask=inside)
    wide = values.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide) / WIDTH + eps)
    normed = (wide * scale).to(values.dtype)
    tl.store(out + start + offsets, (normed.to(tl.float32) * gains.to(tl.float32)).to(values.dtype), mask=inside)
