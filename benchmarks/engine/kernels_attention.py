"""Paged attention, decode and prefill, beside FlashAttention-3's figures and torch's SDPA over contiguous keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.engine.kernels_timing import error, normal, seconds
from benchmarks.report import Better, Row
from worker_image.kernels.decode_attention import (
    DecodeShape,
    DecodeWorkspace,
    decode_attention,
    decode_attention_reference,
    plan_step,
)
from worker_image.kernels.paged import PagedCache
from worker_image.kernels.prefill_attention import (
    Chunk,
    PrefillShape,
    prefill_attention,
    prefill_attention_reference,
    prefill_tiles,
)
from worker_image.kernels.tuning import Tuning, tile_for

Q_HEADS: Final = 32
KV_HEADS: Final = 8
HEAD_DIM: Final = 128
PAGE: Final = 16
L2_BYTES: Final = 200 << 20
"""Rotate over at least so much."""
FA3: Final = "vLLM's FlashAttention-3, same kind of card, measured before"
GB_PER_S: Final = ("GB/s", Better.HIGHER)


@dataclass(frozen=True)
class Decode:
    name: str
    lengths: tuple[int, ...]
    fa3: dict[str, float]
    """Card → GB/s."""


DECODES: Final = (
    Decode("1 × 8k", (8192,), {"NVIDIA H200": 1914, "NVIDIA H100 80GB HBM3": 1633}),
    Decode("1 × 128k", (131072,), {"NVIDIA H200": 3951, "NVIDIA H100 80GB HBM3": 2813}),
    Decode("16 × 4k", (4096,) * 16, {"NVIDIA H200": 3762, "NVIDIA H100 80GB HBM3": 2691}),
    Decode("64 × 2k", (2048,) * 64, {"NVIDIA H200": 3986, "NVIDIA H100 80GB HBM3": 2837}),
    Decode("8 × 32k", (32768,) * 8, {"NVIDIA H200": 4303, "NVIDIA H100 80GB HBM3": 2971}),
)
GOAL_RATIO: Final = 1.02
PREFILLS: Final = {
    2048: {"NVIDIA H200": 442.0, "NVIDIA H100 80GB HBM3": 438.0},
    8192: {"NVIDIA H200": 561.0, "NVIDIA H100 80GB HBM3": 563.0},
    32768: {"NVIDIA H200": 588.0, "NVIDIA H100 80GB HBM3": 587.0},
}


def decode_rows(card: str, tuning: Tuning) -> Iterator[Row]:
    for case in DECODES:
        yield from _decode(case, card, tuning)


def prefill_rows(card: str, tuning: Tuning) -> Iterator[Row]:
    for length, fa3 in PREFILLS.items():
        yield from _prefill(length, fa3.get(card), tuning)


def random_cache(n_blocks: int) -> PagedCache:
    both = normal(2, n_blocks, KV_HEADS, PAGE, HEAD_DIM)
    return PagedCache(both[0], both[1])


def random_tables(rows: int, length: int, sets: int) -> list[torch.Tensor]:
    """`sets` tables (rows, blocks) of different blocks, scattered."""
    n_blocks = -(-length // PAGE)
    order = torch.randperm(sets * rows * n_blocks, device="cuda").to(torch.int32)
    return list(order.view(sets, rows, n_blocks))


def _decode(case: Decode, card: str, tuning: Tuning) -> Iterator[Row]:
    rows, length = len(case.lengths), case.lengths[0]
    kv_bytes = sum(case.lengths) * KV_HEADS * HEAD_DIM * 4
    sets = 1 + L2_BYTES // kv_bytes
    tables = random_tables(rows, length, sets)
    cache = random_cache(sets * tables[0].numel())
    tile = tile_for(tuning.decode, rows)
    n_sms = torch.cuda.get_device_properties(0).multi_processor_count
    shape = DecodeShape(Q_HEADS, KV_HEADS, HEAD_DIM, None, tile, n_sms * tile.programs_per_sm)
    workspace = DecodeWorkspace.allocate(shape, shape.partial_slots(rows, length), torch.device("cuda"))
    lengths = torch.tensor(case.lengths, dtype=torch.int32, device="cuda")
    q = normal(rows, Q_HEADS, HEAD_DIM)
    out = torch.full_like(q, float("nan"))
    plan_step(shape, workspace, lengths)

    def run(table: torch.Tensor) -> None:
        decode_attention(shape, workspace, q, cache, table, lengths, out, early=tuning.early)

    ours = kv_bytes / seconds([lambda table=table: run(table) for table in tables]) / 1e9  # type: ignore[misc]
    run(tables[0])
    expected = decode_attention_reference(shape, q, cache, tables[0], lengths)
    fa3 = case.fa3.get(card)
    workload = f"decode attention {case.name}, paged, {Q_HEADS} query and {KV_HEADS} KV heads of {HEAD_DIM}"
    goal = round(fa3 * GOAL_RATIO) if fa3 else None
    yield Row(workload, "keys and values read", "GB/s", ours, fa3, FA3, goal, Better.HIGHER)
    sdpa, sdpa_error = _sdpa_decode(cache, q, tables, length, kv_bytes, expected)
    yield Row(
        workload, "the same beside torch", "GB/s", ours, sdpa, "torch SDPA flash, contiguous", better=Better.HIGHER
    )
    yield Row(workload, "error against float64", "relative", error(out, expected), sdpa_error, "torch SDPA flash")


def _sdpa_decode(
    cache: PagedCache, q: torch.Tensor, tables: list[torch.Tensor], length: int, kv_bytes: int, expected: torch.Tensor
) -> tuple[float, float]:
    """GB/s and error of torch's flash attention on the same keys, laid out densely first."""

    def dense(side: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        rows = side[table.long().flatten()].view(q.shape[0], -1, KV_HEADS, PAGE, HEAD_DIM)
        return rows.transpose(1, 2).reshape(q.shape[0], KV_HEADS, -1, HEAD_DIM)[:, :, :length].contiguous()

    pairs = [(dense(cache.keys, table), dense(cache.values, table)) for table in tables]
    query = q.unsqueeze(2)

    def run(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return scaled_dot_product_attention(query, *pair, enable_gqa=True)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        time_s = seconds([lambda pair=pair: run(pair) for pair in pairs])  # type: ignore[misc]
        return kv_bytes / time_s / 1e9, error(run(pairs[0]).squeeze(2), expected)


def _prefill(length: int, fa3: float | None, tuning: Tuning) -> Iterator[Row]:
    shape = PrefillShape(Q_HEADS, KV_HEADS, HEAD_DIM, None, tuning.prefill)
    table = random_tables(1, length, 1)[0]
    cache = random_cache(table.numel())
    q = normal(length, Q_HEADS, HEAD_DIM)
    out = torch.full_like(q, float("nan"))
    tiles = prefill_tiles([Chunk(0, length, length)], shape.tokens_a_tile).cuda()
    operations = 2 * length**2 * HEAD_DIM * Q_HEADS
    run = lambda: prefill_attention(shape, q, cache, table, tiles, out)  # noqa: E731
    ours = operations / seconds([run], 4) / 1e12
    k, v = (normal(1, KV_HEADS, length, HEAD_DIM) for _ in range(2))
    query = q.transpose(0, 1)[None].contiguous()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        sdpa_s = seconds([lambda: scaled_dot_product_attention(query, k, v, is_causal=True, enable_gqa=True)], 4)
    workload = f"causal prefill of {length} tokens, paged, {Q_HEADS} query and {KV_HEADS} KV heads of {HEAD_DIM}"
    yield Row(workload, "arithmetic", "TFLOP/s", ours, fa3, FA3, better=Better.HIGHER)
    name = "torch SDPA flash, contiguous"
    yield Row(
        workload, "the same beside torch", "TFLOP/s", ours, operations / sdpa_s / 1e12, name, better=Better.HIGHER
    )
    if length <= 2048:
        expected = prefill_attention_reference(shape, q, cache, table, [Chunk(0, length, length)])
        yield Row(workload, "error against float64", "relative", error(out, expected))
