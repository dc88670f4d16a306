"""The inner loop of every attention kernel here: one tile of query rows against a run of cached tokens.

A tile holds all query heads of one KV head, so keys and values are read once for the whole group. Tokens are gathered
through the block table; how many a tile takes has nothing to do with how many a block holds. Softmax is online, in
powers of two; `fma` is spelled out so that the same sums come out bit for bit wherever the code is inlined.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from worker_image.kernels.checks import power_of_two

LEAST_HEAD: Final = 16
"""Elements that a matrix instruction sums over at the least."""


def padded_head(head_dim: int) -> int:
    """Elements of a head as a tile holds them; those beyond `head_dim` are zeros."""
    return max(LEAST_HEAD, power_of_two(head_dim))


@triton.jit
def attend_tiles(
    acc: tl.tensor,
    m: tl.tensor,
    total: tl.tensor,
    q_tile: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    table: tl.tensor,
    first_tile: tl.tensor,
    end_tile: tl.tensor,
    row_positions: tl.tensor,
    kv_length: tl.tensor,
    kv_head: tl.tensor,
    block_stride: tl.tensor,
    scale_log2: tl.tensor,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr,
    MASKED: tl.constexpr,
    STAGES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """acc: (M, HEAD_PAD) float32 unnormalised, m: (M,) running maximum in powers of two, total: (M,) running sum.

    MASKED False promises that every row sees every token of the run.
    """
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, HEAD_PAD)
    inside_d = offs_d < HEAD_DIM
    for tile in tl.range(first_tile, end_tile, num_stages=STAGES):
        positions = tile * BLOCK_N + offs_n
        inside = positions < kv_length
        if MASKED:
            pages = tl.load(table + positions // PAGE, mask=inside, other=0)
        else:
            pages = tl.load(table + positions // PAGE)
        rows = pages.to(tl.int64) * block_stride + kv_head * (PAGE * HEAD_DIM) + (positions % PAGE) * HEAD_DIM
        offsets = rows[:, None] + offs_d[None, :]
        if MASKED or HEAD_DIM != HEAD_PAD:
            # Values past the end may be anything, NaN included, and 0 · NaN would reach the sum: they are not read.
            readable = inside[:, None] & inside_d[None, :]
            k = tl.load(k_cache + offsets, mask=readable, other=0.0)
        else:
            k = tl.load(k_cache + offsets)
        scores = tl.dot(q_tile, tl.trans(k), input_precision="ieee")
        if MASKED:
            seen = (positions[None, :] <= row_positions[:, None]) & inside[None, :]
            if WINDOW > 0:
                seen = seen & (positions[None, :] > row_positions[:, None] - WINDOW)
            scores = tl.where(seen, scores, -float("inf"))
        m_new = tl.maximum(m, tl.max(scores, 1) * scale_log2)
        # A row that has seen nothing yet keeps -inf; 0 in its place keeps inf - inf out of the exponent.
        m_safe = tl.where(m_new == -float("inf"), 0.0, m_new) if MASKED else m_new
        p = tl.exp2(tl.fma(scores, tl.zeros_like(scores) + scale_log2, -m_safe[:, None] + tl.zeros_like(scores)))
        alpha = tl.exp2(m - m_safe)
        total = tl.fma(total, alpha, tl.sum(p, 1))
        if MASKED or HEAD_DIM != HEAD_PAD:
            v = tl.load(v_cache + offsets, mask=readable, other=0.0)
        else:
            v = tl.load(v_cache + offsets)
        acc = acc * alpha[:, None]
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
        m = m_new
    return acc, m, total


@triton.jit
def merge(
    acc: tl.tensor,
    m: tl.tensor,
    total: tl.tensor,
    acc_next: tl.tensor,
    m_next: tl.tensor,
    total_next: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Two partial results of the same rows as one; either may have seen nothing (m = -inf)."""
    m_new = tl.maximum(m, m_next)
    m_safe = tl.where(m_new == -float("inf"), 0.0, m_new)
    left, right = tl.exp2(m - m_safe), tl.exp2(m_next - m_safe)
    total = tl.fma(total, left, total_next * right)
    acc = tl.fma(acc, tl.zeros_like(acc) + left[:, None], acc_next * right[:, None])
    return acc, m_new, total
