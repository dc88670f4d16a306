"""y = W · x of one token: each weight is read once, at the speed of memory. cuBLAS leaves an eighth to a third of that.

A program takes a few rows of W over their whole length, so nothing is summed across programs. Launched early, it has
its first piece of W on the way before the kernel that makes x has ended.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import FLOATS, require, require_tensor
from worker_image.kernels.early import launch_options, wait_for_predecessor

ROWS: Final = 4
PIECES: Final = (2048, 1024, 512)
"""Elements of a row that are read at a time; the first that divides it. Measured on an H200."""


def gemv_fits(width: int, depth: int) -> bool:
    """Whether `gemv` takes a weight of (width, depth)."""
    return width % ROWS == 0 and any(depth % piece == 0 for piece in PIECES)


def gemv(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, early: bool = False) -> None:
    """x: (1, in), weight: (out, in), both contiguous of one type; out: (1, out), overwritten. Raises KernelError."""
    width, depth = weight.shape
    require_tensor("x", x, (1, depth), FLOATS)
    require_tensor("weight", weight, (None, depth), (x.dtype,))
    require_tensor("out", out, (1, width), (x.dtype,))
    require(
        gemv_fits(width, depth),
        f"the weight is {width} × {depth}; rows come in {ROWS}s, and their length is a multiple of {PIECES[-1]}",
    )
    piece = next(piece for piece in PIECES if depth % piece == 0)
    _gemv_kernel[(width // ROWS,)](
        x, weight, out, DEPTH=depth, ROWS=ROWS, PIECE=piece, EARLY=early,
        num_warps=4, num_stages=2, **launch_options(early),
    )  # fmt: skip


def gemv_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(1, out) float64."""
    return x.double() @ weight.double().T


@triton.jit
def _gemv_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    DEPTH: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, PIECE)
    pieces = weight + rows[:, None].to(tl.int64) * DEPTH + columns[None, :]
    # Weights are older than any predecessor, and no other program reads them: they need not stay in the cache.
    first = tl.load(pieces, eviction_policy="evict_first")
    wait_for_predecessor(EARLY)
    acc = first.to(tl.float32) * tl.load(x + columns).to(tl.float32)[None, :]
    for k in tl.range(PIECE, DEPTH, PIECE, num_stages=2):
        piece = tl.load(pieces + k, eviction_policy="evict_first")
        acc += piece.to(tl.float32) * tl.load(x + k + columns).to(tl.float32)[None, :]
    tl.store(out + rows, tl.sum(acc, 1).to(out.dtype.element_ty))
