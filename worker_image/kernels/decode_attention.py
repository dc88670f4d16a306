"""Paged attention of one new token a row: decode.

A fixed grid walks the plan of `decode_plan`, so the launch is the same for any lengths and can be in a CUDA graph.
A pair (row, KV head) whose units fall to one program is written at once; otherwise each program leaves a partial
result, and the one that arrives last combines them in order, so that no second launch is needed.

With `fixed_split` a unit is a fixed run of positions and partials are per unit: a row's result then depends on that
row alone, bit for bit (deterministic mode). It never writes rows of length 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl

from worker_image.kernels.attention_tile import attend_tiles, merge, padded_head
from worker_image.kernels.checks import FLOATS, power_of_two, require, require_tensor
from worker_image.kernels.decode_plan import PLAN_COLUMNS, PlanShape, plan_decode, units_of
from worker_image.kernels.early import fetch_to_l2, launch_options, wait_for_predecessor
from worker_image.kernels.paged import PagedCache, gather_reference
from worker_image.kernels.tuning import AttentionTile

COMBINE_BYTES: Final = 96 << 10
"""Of partials that are combined at once: they lie in shared memory, of which every card with bf16 has as much."""


@dataclass(frozen=True)
class DecodeShape:
    """What a decode plan and its workspace are made for; one for each distinct window of a model."""

    n_q_heads: int
    n_kv_heads: int
    head_dim: int
    window: int | None
    tile: AttentionTile
    n_programs: int
    fixed_split: int | None = None
    """Tokens a split in deterministic mode, a multiple of the tile's; None: shares of equal size."""

    def __post_init__(self) -> None:
        require(
            self.n_q_heads % self.n_kv_heads == 0,
            f"{self.n_q_heads} query heads do not divide into {self.n_kv_heads} KV heads",
        )
        require(
            self.fixed_split is None or self.fixed_split % self.tile.block_n == 0,
            f"fixed_split is {self.fixed_split}; it must be a multiple of the tile's {self.tile.block_n} tokens",
        )

    @property
    def group(self) -> int:
        return self.n_q_heads // self.n_kv_heads

    @property
    def block_m(self) -> int:
        return max(self.tile.block_m, power_of_two(self.group))

    @property
    def parts_at_once(self) -> int:
        """Partials are combined one by one in deterministic mode, as `prefill_attention` merges them."""
        return 1 if self.fixed_split else combined_at_once(self.group, self.head_dim, self.tile.warps)

    @property
    def plan(self) -> PlanShape:
        unit = self.fixed_split or self.tile.block_n
        return PlanShape(self.n_kv_heads, unit, self.window, 1 if self.fixed_split else self.tile.min_units)

    def partial_slots(self, max_rows: int, max_tokens: int) -> int:
        """Room for partials: two a program, or every split of `max_rows` rows of `max_tokens` tokens."""
        if self.fixed_split is None:
            return 2 * self.n_programs
        return max_rows * -(-max_tokens // self.fixed_split) * self.n_kv_heads


@dataclass(frozen=True)
class DecodeWorkspace:
    """Buffers that live as long as the graphs that use them."""

    plan: torch.Tensor
    """(programs, 8) int32."""
    partial: torch.Tensor
    """(slots, group, head_dim) float32."""
    partial_sums: torch.Tensor
    """(slots, 2, group) float32: maximum in powers of two, sum."""
    arrivals: torch.Tensor
    """(slots,) int32, zero between launches."""

    @classmethod
    def allocate(cls, shape: DecodeShape, n_slots: int, device: torch.device) -> DecodeWorkspace:
        def empty(*size: int) -> torch.Tensor:
            return torch.empty(size, dtype=torch.float32, device=device)

        return cls(
            torch.zeros((shape.n_programs, PLAN_COLUMNS), dtype=torch.int32, device=device),
            empty(n_slots, shape.group, shape.head_dim),
            empty(n_slots, 2, shape.group),
            torch.zeros(n_slots, dtype=torch.int32, device=device),
        )


def combined_at_once(group: int, head_dim: int, warps: int) -> int:
    """Partial results of one pair that are merged together: fewer where many heads, or large ones, lie in each."""
    parts = 4 * min(4, warps)
    while parts > 1 and parts * _partial_bytes(group, head_dim) > COMBINE_BYTES:
        parts //= 2
    return parts


def combine_bytes(group: int, head_dim: int, warps: int) -> int:
    """Shared memory that merging takes."""
    return combined_at_once(group, head_dim, warps) * _partial_bytes(group, head_dim)


def _partial_bytes(group: int, head_dim: int) -> int:
    """In float32."""
    return power_of_two(group) * padded_head(head_dim) * 4


def plan_step(shape: DecodeShape, workspace: DecodeWorkspace, lengths: torch.Tensor) -> None:
    """Once a step and window: writes the work list for `lengths`, (rows,) int32."""
    plan_decode(lengths, workspace.plan, shape.plan)


def decode_attention(
    shape: DecodeShape,
    workspace: DecodeWorkspace,
    q: torch.Tensor,
    cache: PagedCache,
    block_tables: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    *,
    early: bool = False,
) -> None:
    """q, out: (rows, q_heads, head_dim); block_tables: (rows, blocks) int32; lengths as planned, the new token counted.

    `out` is overwritten, the workspace is scratch. `early` lets it overlap the kernel before, which must not be the
    one that planned. Raises KernelError. Source: arXiv:2307.08691, split over the keys.
    """
    rows = q.shape[0]
    require_tensor("q", q, (rows, shape.n_q_heads, shape.head_dim), FLOATS)
    require_tensor("out", out, tuple(q.shape), (q.dtype,))
    require_tensor("block_tables", block_tables, (rows, None), (torch.int32,), contiguous=False)
    require_tensor("lengths", lengths, (rows,), (torch.int32,))
    require_tensor("plan", workspace.plan, (shape.n_programs, PLAN_COLUMNS), (torch.int32,))
    cache.check(shape.n_kv_heads, shape.head_dim, q.dtype)
    _decode_kernel[(shape.n_programs,)](
        q,
        cache.keys,
        cache.values,
        out,
        block_tables,
        lengths,
        workspace.plan,
        workspace.partial,
        workspace.partial_sums,
        workspace.arrivals,
        block_tables.stride(0),
        cache.keys.stride(0),
        shape.head_dim**-0.5 * math.log2(math.e),
        N_KV_HEADS=shape.n_kv_heads,
        GROUP=shape.group,
        GROUP_PAD=power_of_two(shape.group),
        HEAD_DIM=shape.head_dim,
        HEAD_PAD=padded_head(shape.head_dim),
        PAGE=cache.page,
        BLOCK_M=shape.block_m,
        BLOCK_N=shape.tile.block_n,
        UNIT=shape.plan.unit_tokens,
        FIXED=shape.fixed_split is not None,
        WINDOW=shape.window or 0,
        COLUMNS=PLAN_COLUMNS,
        COMBINE=shape.parts_at_once,
        STAGES=shape.tile.stages,
        EARLY=early,
        num_warps=shape.tile.warps,
        num_stages=shape.tile.stages,
        **launch_options(early),
    )


def decode_attention_reference(
    shape: DecodeShape, q: torch.Tensor, cache: PagedCache, block_tables: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """(rows, q_heads, head_dim) float64."""
    out = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    for row, length in enumerate(lengths.tolist()):
        first = max(0, length - shape.window) if shape.window else 0
        keys, values = gather_reference(cache, block_tables[row], length)
        keys, values = (x[first:].repeat_interleave(shape.group, 1).double() for x in (keys, values))
        scores = torch.einsum("hd,nhd->hn", q[row].double(), keys) * shape.head_dim**-0.5
        if length:
            out[row] = torch.einsum("hn,nhd->hd", scores.softmax(-1), values)
    return out


@triton.jit
def _combine(
    partial: tl.tensor,
    partial_sums: tl.tensor,
    out: tl.tensor,
    first_slot: tl.tensor,
    n_parts: tl.tensor,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    FIXED: tl.constexpr,
    COMBINE: tl.constexpr,
) -> None:
    """Merges `n_parts` partials in order, COMBINE at a time, and writes (GROUP, HEAD_DIM) to `out`."""
    offs_p = tl.arange(0, COMBINE)
    offs_m = tl.arange(0, GROUP_PAD)
    offs_d = tl.arange(0, HEAD_PAD)
    inside = (offs_m[:, None] < GROUP) & (offs_d[None, :] < HEAD_DIM)
    acc = tl.zeros([GROUP_PAD, HEAD_PAD], tl.float32)
    m = tl.zeros([GROUP_PAD], tl.float32) - float("inf")
    total = tl.zeros([GROUP_PAD], tl.float32)
    for start in tl.range(0, n_parts, COMBINE, num_stages=2):
        part = start + offs_p
        # See `_decode_kernel`: a pair begins in its first program's odd slot and goes on in the even ones.
        slot = first_slot + part if FIXED else tl.where(part == 0, first_slot, first_slot - 1 + 2 * part)
        row = slot[:, None] * (2 * GROUP) + offs_m[None, :]
        exists = (part[:, None] < n_parts) & (offs_m[None, :] < GROUP)
        ms = tl.load(partial_sums + row, mask=exists, other=-float("inf"), cache_modifier=".cg")
        totals = tl.load(partial_sums + row + GROUP, mask=exists, other=0.0, cache_modifier=".cg")
        offsets = slot[:, None, None] * (GROUP * HEAD_DIM) + offs_m[None, :, None] * HEAD_DIM + offs_d[None, None, :]
        accs = tl.load(
            partial + offsets,
            mask=(part[:, None, None] < n_parts) & inside[None, :, :],
            other=0.0,
            cache_modifier=".cg",
        )
        m_next = tl.max(ms, 0)
        m_safe = tl.where(m_next == -float("inf"), 0.0, m_next)
        weights = tl.exp2(ms - m_safe[None, :])
        acc_next = tl.sum(accs * weights[:, :, None], 0)
        acc, m, total = merge(acc, m, total, acc_next, m_next, tl.sum(totals * weights, 0))
    # Rows that only fill the tile have no sum.
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out + offs_m[:, None] * HEAD_DIM + offs_d[None, :], result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["table_stride"])
def _decode_kernel(
    q: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    out: tl.tensor,
    block_tables: tl.tensor,
    lengths: tl.tensor,
    plan: tl.tensor,
    partial: tl.tensor,
    partial_sums: tl.tensor,
    arrivals: tl.tensor,
    table_stride: tl.tensor,
    block_stride: tl.tensor,
    scale_log2: tl.tensor,
    N_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    UNIT: tl.constexpr,
    FIXED: tl.constexpr,
    WINDOW: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMBINE: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    TILES: tl.constexpr = UNIT // BLOCK_N
    program = tl.program_id(0)
    record = plan + program * COLUMNS
    row = tl.load(record)
    head = tl.load(record + 1)
    unit = tl.load(record + 2)
    left = tl.load(record + 3)
    share = tl.load(record + 4)
    place = program * share
    offs_m = tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, HEAD_PAD)
    inside = (offs_m[:, None] < GROUP) & (offs_d[None, :] < HEAD_DIM)
    length = tl.load(lengths + row)
    if EARLY:
        # All but the newest token is older than the predecessor, so the first tile may be on its way already.
        first_unit, _ = units_of(length, UNIT, WINDOW)
        positions = (first_unit + unit) * UNIT + tl.arange(0, BLOCK_N)
        inside_kv = (positions < length) & (left > 0)
        pages = tl.load(block_tables + row.to(tl.int64) * table_stride + positions // PAGE, mask=inside_kv, other=0)
        slots = pages.to(tl.int64) * block_stride + head * (PAGE * HEAD_DIM) + (positions % PAGE) * HEAD_DIM
        lines = tl.arange(0, (HEAD_PAD + 63) // 64) * 64
        fetched = slots[:, None] + lines[None, :]
        wanted = inside_kv[:, None] & (lines[None, :] < HEAD_DIM)
        fetch_to_l2(k_cache + fetched, wanted)
        fetch_to_l2(v_cache + fetched, wanted)
    wait_for_predecessor(EARLY)
    while left > 0:
        first_unit, n_units = units_of(length, UNIT, WINDOW)
        take = tl.minimum(n_units - unit, left)
        if FIXED:
            take = tl.minimum(take, 1)
        if take > 0:
            rows = (row * N_KV_HEADS + head).to(tl.int64) * (GROUP * HEAD_DIM)
            offsets = rows + offs_m[:, None] * HEAD_DIM + offs_d[None, :]
            q_tile = tl.load(q + offsets, mask=inside, other=0.0)
            begin = (first_unit + unit) * TILES
            acc, m, total = attend_tiles(
                tl.zeros([BLOCK_M, HEAD_PAD], tl.float32),
                tl.zeros([BLOCK_M], tl.float32) - float("inf"),
                tl.zeros([BLOCK_M], tl.float32),
                q_tile,
                k_cache,
                v_cache,
                block_tables + row.to(tl.int64) * table_stride,
                begin,
                tl.minimum(begin + take * TILES, tl.cdiv(length, BLOCK_N)),
                tl.zeros([BLOCK_M], tl.int32) + length - 1,
                length,
                head,
                block_stride,
                scale_log2,
                HEAD_DIM,
                HEAD_PAD,
                PAGE,
                BLOCK_N,
                WINDOW,
                True,
                STAGES,
            )
            pair = place - unit
            if FIXED:
                first_slot = pair
                slot = place
                n_parts = n_units
                counter = pair
            else:
                # The pair that ends a program's share and goes on in the next takes the odd slot, one that came from
                # the program before takes the even one: at most one of each a program.
                first_program = pair // share
                first_slot = 2 * first_program + 1
                slot = tl.where(unit == 0, first_slot, 2 * program)
                n_parts = (pair + n_units - 1) // share - first_program + 1
                counter = first_program
            if n_parts == 1:
                result = acc / total[:, None]
                tl.store(out + offsets, result.to(out.dtype.element_ty), mask=inside)
            else:
                spot = slot * (GROUP * HEAD_DIM) + offs_m[:, None] * HEAD_DIM + offs_d[None, :]
                tl.store(partial + spot, acc, mask=inside)
                sums = partial_sums + slot * (2 * GROUP) + offs_m
                tl.store(sums, m, mask=offs_m < GROUP)
                tl.store(sums + GROUP, total, mask=offs_m < GROUP)
                # All threads' stores come before the one thread's release.
                tl.debug_barrier()
                arrived = tl.atomic_add(arrivals + counter, 1, sem="acq_rel", scope="gpu")
                if arrived == n_parts - 1:
                    tl.store(arrivals + counter, 0)
                    _combine(
                        partial,
                        partial_sums,
                        out + rows,
                        first_slot,
                        n_parts,
                        GROUP,
                        GROUP_PAD,
                        HEAD_DIM,
                        HEAD_PAD,
                        FIXED,
                        COMBINE,
                    )
        left -= take
        place += take
        unit += take
        if unit >= n_units:
            unit = 0
            head += 1
            if head == N_KV_HEADS:
                head = 0
                row += 1
                # The last program may step past the last row, with nothing left to do there.
                length = tl.load(lengths + row, mask=left > 0, other=0)
