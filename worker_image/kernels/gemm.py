"""y = x · Wᵀ with one order of summation, whatever else is in the batch: the matmul of deterministic mode.

Every output element is the sum over k in steps of one matrix instruction, in ascending order, in one float32
accumulator: never split over programs. Tile shapes therefore may change with the number of rows (they come from the
tuned table) and the bits do not. Tiles are loaded through tensor descriptors; each program walks several tiles.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from worker_image.kernels.checks import FLOATS, require, require_tensor
from worker_image.kernels.early import fetch_to_l2, launch_options, wait_for_predecessor
from worker_image.kernels.tuning import MatmulTile

LINE: Final = 64
"""Elements of two bytes in a cache line."""


def matmul_fits(depth: int, dtype: torch.dtype) -> bool:
    """Whether `matmul` takes a weight with rows of so many elements."""
    return depth * dtype.itemsize % 16 == 0


def matmul(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, tile: MatmulTile, n_sms: int, *, early: bool = False
) -> None:
    """x: (rows, in), weight: (out, in), both contiguous of one type; out: (rows, out), overwritten. KernelError."""
    require_tensor("x", x, (None, None), FLOATS)
    rows, depth = x.shape
    require_tensor("weight", weight, (None, depth), (x.dtype,))
    width = weight.shape[0]
    require_tensor("out", out, (rows, width), (x.dtype,))
    require(matmul_fits(depth, x.dtype), f"the weight is {width} × {depth}; its rows must be multiples of 16 bytes")
    if rows == 0:
        return
    # A descriptor takes rows of whole 16 bytes only, and some vocabularies make none.
    described = not tile.swap and matmul_fits(width, x.dtype)
    n_tiles = triton.cdiv(rows, tile.block_m) * triton.cdiv(width, tile.block_n)
    _matmul_kernel[(min(n_tiles, n_sms * tile.programs_per_sm),)](
        TensorDescriptor.from_tensor(x, [tile.block_m, tile.block_k]),
        TensorDescriptor.from_tensor(weight, [tile.block_n, tile.block_k]),
        weight,
        TensorDescriptor.from_tensor(out, [tile.block_m, tile.block_n // tile.out_parts]) if described else out,
        rows,
        width,
        depth,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP_M=tile.group_m,
        OUT_PARTS=tile.out_parts,
        SWAP=tile.swap,
        DESCRIBED=described,
        AHEAD=_ahead(min(depth, tile.ahead)),
        LINE=LINE,
        EARLY=early,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **launch_options(early),
    )


def _ahead(most: int) -> int:
    """The elements of a weight row that an early launch fetches: a power of two of whole cache lines, or 0."""
    return 1 << most.bit_length() - 1 if most >= LINE else 0


def matmul_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(rows, out) float64."""
    return x.double() @ weight.double().T


@triton.jit
def _tile_of(
    tile: tl.tensor, n_rows: tl.tensor, n_columns: tl.tensor, GROUP_M: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Row and column of a tile; GROUP_M rows are walked together, so that the weight's tiles are met in the L2."""
    in_group = GROUP_M * n_columns
    first = tile // in_group * GROUP_M
    height = tl.minimum(n_rows - first, GROUP_M)
    return first + tile % in_group % height, tile % in_group // height


@triton.jit(do_not_specialize=["rows"])
def _matmul_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    weight_pointer: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    depth: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    OUT_PARTS: tl.constexpr,
    SWAP: tl.constexpr,
    DESCRIBED: tl.constexpr,
    AHEAD: tl.constexpr,
    LINE: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    PART: tl.constexpr = BLOCK_N // OUT_PARTS
    n_rows = tl.cdiv(rows, BLOCK_M)
    n_columns = tl.cdiv(width, BLOCK_N)
    if EARLY and AHEAD > 0:
        # Weights are older than anything that is waited for: memory need not idle until the activations are there.
        _, first = _tile_of(tl.program_id(0), n_rows, n_columns, GROUP_M)
        lines = tl.arange(0, BLOCK_N)[:, None] * depth + tl.arange(0, AHEAD // LINE)[None, :] * LINE
        start = weight_pointer + (first * BLOCK_N).to(tl.int64) * depth
        fetch_to_l2(start + lines, (first * BLOCK_N + tl.arange(0, BLOCK_N)[:, None] < width) & (lines >= 0))
    wait_for_predecessor(EARLY)
    for tile in tl.range(tl.program_id(0), n_rows * n_columns, tl.num_programs(0), flatten=True):
        row, column = _tile_of(tile, n_rows, n_columns, GROUP_M)
        if SWAP:
            # Few rows are the narrow side of the matrix instruction; as its long side they would be mostly padding.
            swapped = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
            for k in range(0, depth, BLOCK_K):
                a = x.load([row * BLOCK_M, k])
                b = weight.load([column * BLOCK_N, k])
                swapped = tl.dot(b, a.T, swapped, input_precision="ieee")
            offs_n = column * BLOCK_N + tl.arange(0, BLOCK_N)
            offs_m = row * BLOCK_M + tl.arange(0, BLOCK_M)
            target = out + offs_m[None, :].to(tl.int64) * width + offs_n[:, None]
            tl.store(
                target, swapped.to(out.dtype.element_ty), mask=(offs_n[:, None] < width) & (offs_m[None, :] < rows)
            )
        else:
            acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
            for k in range(0, depth, BLOCK_K):
                a = x.load([row * BLOCK_M, k])
                b = weight.load([column * BLOCK_N, k])
                acc = tl.dot(a, b.T, acc, input_precision="ieee")
            if not DESCRIBED:
                offs_m = row * BLOCK_M + tl.arange(0, BLOCK_M)
                offs_n = column * BLOCK_N + tl.arange(0, BLOCK_N)
                target = out + offs_m[:, None].to(tl.int64) * width + offs_n[None, :]
                inside = (offs_m[:, None] < rows) & (offs_n[None, :] < width)
                tl.store(target, acc.to(out.dtype.element_ty), mask=inside)
            elif OUT_PARTS == 1:
                out.store([row * BLOCK_M, column * BLOCK_N], acc.to(out.dtype))
            else:
                # Written in halves, so that the staging buffer leaves room for another stage of the loads.
                halves = tl.permute(tl.reshape(acc, (BLOCK_M, 2, PART)), (0, 2, 1))
                left, right = tl.split(halves)
                out.store([row * BLOCK_M, column * BLOCK_N], left.to(out.dtype))
                out.store([row * BLOCK_M, column * BLOCK_N + PART], right.to(out.dtype))
