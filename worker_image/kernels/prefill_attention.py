"""Paged attention of many new tokens a sequence: prompts, chunks of prompts, and whatever else brings a run of queries.

Queries attend to what the cache held before the chunk and causally to the chunk itself, whose keys and values must
have been written already. A tile packs the query heads of one KV head, so a tile of 128 rows is 32 tokens of a group
of four. Tiles come from a list made on the host, the costliest first; a step with prefill is not in a CUDA graph.

With `fixed_split` the keys are summed split by split and merged in the order `decode_attention` combines them, with
its tile: a token then gets the same bits as it would get in a decode step (deterministic mode).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from worker_image.kernels.attention_tile import attend_tiles, merge, padded_head
from worker_image.kernels.checks import FLOATS, require, require_tensor
from worker_image.kernels.paged import PagedCache, gather_reference
from worker_image.kernels.tuning import AttentionTile


@dataclass(frozen=True)
class PrefillShape:
    """What a list of tiles is made for."""

    n_q_heads: int
    n_kv_heads: int
    head_dim: int
    window: int | None
    tile: AttentionTile
    fixed_split: int | None = None

    def __post_init__(self) -> None:
        group, rest = divmod(self.n_q_heads, self.n_kv_heads)
        require(rest == 0, f"{self.n_q_heads} query heads do not divide into {self.n_kv_heads} KV heads")
        require(
            group <= self.tile.block_m,
            f"{group} query heads a KV head do not fit the tile of {self.tile.block_m} rows",
        )
        require(
            self.fixed_split is None or self.fixed_split % self.tile.block_n == 0,
            f"fixed_split is {self.fixed_split}; it must be a multiple of the tile's {self.tile.block_n} tokens",
        )

    @property
    def group(self) -> int:
        return self.n_q_heads // self.n_kv_heads

    @property
    def tokens_a_tile(self) -> int:
        return self.tile.block_m // self.group


@dataclass(frozen=True)
class Chunk:
    """One sequence's new tokens."""

    first_row: int
    """Where its queries begin among the step's."""
    n_tokens: int
    kv_length: int
    """Tokens in the cache once the chunk is written."""


def prefill_tiles(chunks: Sequence[Chunk], tokens_a_tile: int) -> torch.Tensor:
    """(tiles, 4) int32: sequence, first query row, queries, position of the first query. Costliest first."""
    tiles: list[tuple[int, int, int, int]] = []
    for number, chunk in enumerate(chunks):
        require(
            0 < chunk.n_tokens <= chunk.kv_length,
            f"chunk {number} has {chunk.n_tokens} tokens of {chunk.kv_length}; it must hold at least one, at most all",
        )
        before = chunk.kv_length - chunk.n_tokens
        for start in range(0, chunk.n_tokens, tokens_a_tile):
            queries = min(tokens_a_tile, chunk.n_tokens - start)
            tiles.append((number, chunk.first_row + start, queries, before + start))
    tiles.sort(key=lambda tile: -tile[3])
    return torch.tensor(tiles, dtype=torch.int32).reshape(-1, 4)


def prefill_attention(
    shape: PrefillShape,
    q: torch.Tensor,
    cache: PagedCache,
    block_tables: torch.Tensor,
    tiles: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """q, out: (tokens, q_heads, head_dim); block_tables: (sequences, blocks) int32; tiles of `prefill_tiles`.

    Overwrites the rows of `out` that the tiles name. Raises KernelError. Source: arXiv:2307.08691.
    """
    require_tensor("q", q, (None, shape.n_q_heads, shape.head_dim), FLOATS)
    require_tensor("out", out, tuple(q.shape), (q.dtype,))
    require_tensor("block_tables", block_tables, (None, None), (torch.int32,), contiguous=False)
    require_tensor("tiles", tiles, (None, 4), (torch.int32,))
    cache.check(shape.n_kv_heads, shape.head_dim, q.dtype)
    if tiles.shape[0] == 0:
        return
    _prefill_kernel[(shape.n_kv_heads, tiles.shape[0])](
        q,
        cache.keys,
        cache.values,
        out,
        block_tables,
        tiles,
        block_tables.stride(0),
        cache.keys.stride(0),
        shape.head_dim**-0.5 * math.log2(math.e),
        N_KV_HEADS=shape.n_kv_heads,
        GROUP=shape.group,
        HEAD_DIM=shape.head_dim,
        HEAD_PAD=padded_head(shape.head_dim),
        PAGE=cache.page,
        BLOCK_M=shape.tile.block_m,
        BLOCK_N=shape.tile.block_n,
        SPLIT=shape.fixed_split or 0,
        WINDOW=shape.window or 0,
        STAGES=shape.tile.stages,
        num_warps=shape.tile.warps,
        num_stages=shape.tile.stages,
    )


def prefill_attention_reference(
    shape: PrefillShape, q: torch.Tensor, cache: PagedCache, block_tables: torch.Tensor, chunks: Sequence[Chunk]
) -> torch.Tensor:
    """(tokens, q_heads, head_dim) float64."""
    out = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    for number, chunk in enumerate(chunks):
        rows = slice(chunk.first_row, chunk.first_row + chunk.n_tokens)
        keys, values = gather_reference(cache, block_tables[number], chunk.kv_length)
        keys, values = (x.repeat_interleave(shape.group, 1).double() for x in (keys, values))
        scores = torch.einsum("qhd,nhd->hqn", q[rows].double(), keys) * shape.head_dim**-0.5
        at = torch.arange(chunk.kv_length, device=q.device)
        distance = at[chunk.kv_length - chunk.n_tokens :, None] - at[None, :]
        hidden = (distance < 0) | (distance >= (shape.window or chunk.kv_length))
        out[rows] = torch.einsum("hqn,nhd->qhd", scores.masked_fill(hidden, -math.inf).softmax(-1), values)
    return out


@triton.jit(do_not_specialize=["table_stride"])
def _prefill_kernel(
    q: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    out: tl.tensor,
    block_tables: tl.tensor,
    tiles: tl.tensor,
    table_stride: tl.tensor,
    block_stride: tl.tensor,
    scale_log2: tl.tensor,
    N_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    WINDOW: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    head = tl.program_id(0)
    record = tiles + tl.program_id(1) * 4
    sequence = tl.load(record)
    first_row = tl.load(record + 1)
    n_queries = tl.load(record + 2)
    first_position = tl.load(record + 3)
    end = first_position + n_queries
    table = block_tables + sequence.to(tl.int64) * table_stride
    offs_m = tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, HEAD_PAD)
    token = offs_m // GROUP
    inside = (token[:, None] < n_queries) & (offs_d[None, :] < HEAD_DIM)
    rows = ((first_row + token).to(tl.int64) * N_KV_HEADS + head) * GROUP + offs_m % GROUP
    offsets = rows[:, None] * HEAD_DIM + offs_d[None, :]
    q_tile = tl.load(q + offsets, mask=inside, other=0.0)
    # Rows that only fill the tile repeat the last query's view, so that none sees nothing.
    row_positions = tl.minimum(first_position + token, end - 1)
    acc = tl.zeros([BLOCK_M, HEAD_PAD], tl.float32)
    m = tl.zeros([BLOCK_M], tl.float32) - float("inf")
    total = tl.zeros([BLOCK_M], tl.float32)
    first_seen = tl.maximum(first_position + 1 - WINDOW, 0) if WINDOW > 0 else 0
    if SPLIT > 0:
        TILES: tl.constexpr = SPLIT // BLOCK_N
        for split in range(first_seen // SPLIT, tl.cdiv(end, SPLIT)):
            acc_next, m_next, total_next = attend_tiles(
                tl.zeros([BLOCK_M, HEAD_PAD], tl.float32),
                tl.zeros([BLOCK_M], tl.float32) - float("inf"),
                tl.zeros([BLOCK_M], tl.float32),
                q_tile, k_cache, v_cache, table,
                split * TILES, tl.minimum((split + 1) * TILES, tl.cdiv(end, BLOCK_N)),
                row_positions, end, head, block_stride, scale_log2,
                HEAD_DIM, HEAD_PAD, PAGE, BLOCK_N, WINDOW, True, STAGES,
            )  # fmt: skip
            acc, m, total = merge(acc, m, total, acc_next, m_next, total_next)
    else:
        # Tiles that every row sees whole need no mask; a window has an edge on either side.
        whole = (first_position + 1) // BLOCK_N
        first_tile = first_seen // BLOCK_N
        if WINDOW == 0:
            acc, m, total = attend_tiles(
                acc, m, total, q_tile, k_cache, v_cache, table, first_tile, whole,
                row_positions, end, head, block_stride, scale_log2,
                HEAD_DIM, HEAD_PAD, PAGE, BLOCK_N, WINDOW, False, STAGES,
            )  # fmt: skip
            first_tile = whole
        acc, m, total = attend_tiles(
            acc, m, total, q_tile, k_cache, v_cache, table, first_tile, tl.cdiv(end, BLOCK_N),
            row_positions, end, head, block_stride, scale_log2,
            HEAD_DIM, HEAD_PAD, PAGE, BLOCK_N, WINDOW, True, STAGES,
        )  # fmt: skip
    result = acc / total[:, None]
    tl.store(out + offsets, result.to(out.dtype.element_ty), mask=inside)
