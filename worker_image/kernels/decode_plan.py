"""Shares the cached tokens of a decode batch out over a fixed number of programs: the work list of `decode_attention`.

The grid of the attention kernel never changes, so that one CUDA graph serves any lengths; what each program does is
read from this plan, which a tiny kernel writes once a step for all layers. A unit is a run of tokens of one
(sequence, KV head) pair; all pairs' units are laid end to end and every program gets the same number in a row (the
stream-K idea, arXiv:2301.03598, applied to attention as in arXiv:2405.10480).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import require, require_tensor

PLAN_COLUMNS = 8
"""row, KV head, unit within the pair, units to do, units a program; three columns spare for alignment."""
_PROGRAMS_A_BLOCK = 32


@dataclass(frozen=True)
class PlanShape:
    """What the split of the work depends on, apart from the lengths."""

    n_kv_heads: int
    unit_tokens: int
    window: int | None
    min_units: int = 1
    """A program with any work has at least as much: tiny shares cost more to combine than they save."""


def plan_decode(lengths: torch.Tensor, plan: torch.Tensor, shape: PlanShape) -> None:
    """lengths: (rows,) int32, tokens each row attends to, 0 for padding; plan: (programs, 8) int32, overwritten."""
    require_tensor("lengths", lengths, (None,), (torch.int32,))
    require_tensor("plan", plan, (None, PLAN_COLUMNS), (torch.int32,))
    require(shape.min_units >= 1, f"min_units is {shape.min_units}; it must be at least 1")
    n_programs = plan.shape[0]
    _plan_kernel[(triton.cdiv(n_programs, _PROGRAMS_A_BLOCK),)](
        lengths,
        plan,
        lengths.shape[0],
        n_programs,
        shape.min_units,
        N_KV_HEADS=shape.n_kv_heads,
        UNIT=shape.unit_tokens,
        WINDOW=shape.window or 0,
        COLUMNS=PLAN_COLUMNS,
        BLOCK_ROWS=128,
        BLOCK_PROGRAMS=_PROGRAMS_A_BLOCK,
        num_warps=4,
    )


def plan_decode_reference(lengths: torch.Tensor, n_programs: int, shape: PlanShape) -> torch.Tensor:
    """(programs, 8) int32: the same plan by walking the units one by one."""
    units: list[tuple[int, int, int]] = []
    for row, length in enumerate(lengths.tolist()):
        first = max(0, length - shape.window) // shape.unit_tokens if shape.window else 0
        n_units = -(-length // shape.unit_tokens) - first
        units += [(row, head, unit) for head in range(shape.n_kv_heads) for unit in range(n_units)]
    least = max(-(-len(units) // n_programs), shape.min_units)
    longest = max(Counter((row, head) for row, head, _ in units).values(), default=1)
    fitting = -(-longest // (longest // least)) if longest >= least else -(-least // longest) * longest
    share = fitting if fitting * 20 <= least * 21 else least
    plan = torch.zeros((n_programs, PLAN_COLUMNS), dtype=torch.int32)
    for program in range(n_programs):
        mine = units[program * share : (program + 1) * share]
        if mine:
            plan[program, :5] = torch.tensor([*mine[0], len(mine), share])
    return plan


@triton.jit
def units_of(length: tl.tensor, UNIT: tl.constexpr, WINDOW: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The first unit a row's last token sees, and how many it sees."""
    first = tl.maximum(length - WINDOW, 0) // UNIT if WINDOW > 0 else length * 0
    return first, tl.cdiv(length, UNIT) - first


@triton.jit(do_not_specialize=["n_rows", "n_programs", "min_units"])
def _plan_kernel(
    lengths: tl.tensor,
    plan: tl.tensor,
    n_rows: tl.tensor,
    n_programs: tl.tensor,
    min_units: tl.tensor,
    N_KV_HEADS: tl.constexpr,
    UNIT: tl.constexpr,
    WINDOW: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_PROGRAMS: tl.constexpr,
) -> None:
    offsets = tl.arange(0, BLOCK_ROWS)
    in_all = 0
    longest = 0
    for start in range(0, n_rows, BLOCK_ROWS):
        length = tl.load(lengths + start + offsets, mask=start + offsets < n_rows, other=0)
        _, n_units = units_of(length, UNIT, WINDOW)
        in_all += tl.sum(n_units) * N_KV_HEADS
        longest = tl.maximum(longest, tl.max(n_units))
    share = tl.maximum(tl.cdiv(in_all, n_programs), min_units)
    # Where it costs less than a twentieth, the longest pair is cut evenly: the heads of a sequence then walk its blocks
    # side by side, and what lies together in memory is read together.
    longest = tl.maximum(longest, 1)
    whole = tl.cdiv(share, longest) * longest
    even = tl.cdiv(longest, tl.maximum(longest // share, 1))
    fitting = tl.where(longest >= share, even, whole)
    share = tl.where(fitting * 20 <= share * 21, fitting, share)
    program = tl.program_id(0) * BLOCK_PROGRAMS + tl.arange(0, BLOCK_PROGRAMS)
    goal = program * share
    row = tl.zeros([BLOCK_PROGRAMS], tl.int32)
    passed_units = tl.zeros([BLOCK_PROGRAMS], tl.int32)
    before = 0
    for start in range(0, n_rows, BLOCK_ROWS):
        length = tl.load(lengths + start + offsets, mask=start + offsets < n_rows, other=0)
        _, n_units = units_of(length, UNIT, WINDOW)
        ends = before + tl.cumsum(n_units, 0)
        passed = (ends[None, :] * N_KV_HEADS <= goal[:, None]) & (start + offsets[None, :] < n_rows)
        row += tl.sum(passed.to(tl.int32), 1)
        passed_units += tl.sum(tl.where(passed, n_units[None, :], 0), 1)
        before += tl.sum(n_units)
    mine = row < n_rows
    length = tl.load(lengths + row, mask=mine, other=0)
    _, n_units = units_of(length, UNIT, WINDOW)
    n_units = tl.maximum(n_units, 1)
    within = goal - passed_units * N_KV_HEADS
    count = tl.minimum(tl.maximum(in_all - goal, 0), share)
    busy = count > 0
    record = plan + program * COLUMNS
    exists = program < n_programs
    tl.store(record, tl.where(busy, row, 0), mask=exists)
    tl.store(record + 1, tl.where(busy, within // n_units, 0), mask=exists)
    tl.store(record + 2, tl.where(busy, within % n_units, 0), mask=exists)
    tl.store(record + 3, count, mask=exists)
    tl.store(record + 4, tl.where(busy, share, 0), mask=exists)
    for column in tl.static_range(5, COLUMNS):
        tl.store(record + column, tl.zeros([BLOCK_PROGRAMS], tl.int32), mask=exists)
