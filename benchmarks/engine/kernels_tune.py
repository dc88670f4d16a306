"""`python -m benchmarks.engine.kernels_tune`: times candidate tiles on the card here, as JSON, fastest first.

What it prints is for `worker_image/kernels/tuned.json`, which a person edits: a choice weighs several workloads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final, TypeVar

import torch
from triton.runtime.errors import OutOfResources

from benchmarks.engine.kernels_attention import HEAD_DIM, KV_HEADS, Q_HEADS, random_cache, random_tables
from benchmarks.engine.kernels_other import MATRICES
from benchmarks.engine.kernels_timing import normal, seconds
from worker_image.kernels.decode_attention import DecodeShape, DecodeWorkspace, decode_attention, plan_step
from worker_image.kernels.gemm import matmul
from worker_image.kernels.prefill_attention import Chunk, PrefillShape, prefill_attention, prefill_tiles
from worker_image.kernels.tuning import AttentionTile, MatmulTile

DECODES: Final = {"1 × 8k": (1, 8192), "16 × 4k": (16, 4096), "64 × 2k": (64, 2048), "8 × 32k": (8, 32768)}
DECODE_TILES: Final = tuple(
    AttentionTile(16, block_n, warps, stages, programs)
    for block_n, warps, stages, programs in (
        (128, 4, 5, 1), (64, 4, 5, 2), (64, 2, 5, 2), (64, 2, 3, 4), (32, 2, 6, 4), (32, 4, 6, 3)
    )
)  # fmt: skip
PREFILL_TILES: Final = tuple(
    AttentionTile(block_m, block_n, warps, stages)
    for block_m, block_n, warps, stages in ((128, 128, 8, 3), (128, 64, 8, 4), (128, 64, 4, 4), (64, 64, 4, 4))
)
MATMUL_TILES: Final = (
    MatmulTile(16, 64, 256, 4, 4, swap=True, ahead=512),
    MatmulTile(32, 64, 128, 4, 6, swap=True, ahead=512),
    MatmulTile(64, 64, 128, 4, 6, swap=True, ahead=512),
    MatmulTile(64, 64, 128, 4, 6),
    MatmulTile(64, 128, 128, 4, 4),
    MatmulTile(128, 128, 64, 4, 5),
    MatmulTile(128, 256, 64, 8, 4, group_m=16, out_parts=2),
)
ROWS: Final = (1, 16, 32, 64, 128, 512, 4096)
TileT = TypeVar("TileT", AttentionTile, MatmulTile)


def ranked(tiles: Iterable[TileT], time_s: Callable[[TileT], float]) -> list[dict[str, object]]:
    """Fastest first, in µs; a tile that does not fit the card is left out."""
    found = []
    for tile in tiles:
        try:
            found.append((time_s(tile) * 1e6, asdict(tile)))
        except OutOfResources:
            continue
    return [{"us": round(time_us, 1)} | tile for time_us, tile in sorted(found, key=lambda pair: pair[0])]


def decode_s(rows: int, length: int, tile: AttentionTile, n_sms: int, early: bool) -> float:
    """Of one layer's decode attention over scattered blocks."""
    shape = DecodeShape(Q_HEADS, KV_HEADS, HEAD_DIM, None, tile, n_sms * tile.programs_per_sm)
    workspace = DecodeWorkspace.allocate(shape, shape.partial_slots(rows, length), torch.device("cuda"))
    tables = random_tables(rows, length, 1 + (200 << 20) // (rows * length * KV_HEADS * HEAD_DIM * 4))
    cache = random_cache(len(tables) * tables[0].numel())
    lengths = torch.full((rows,), length, dtype=torch.int32, device="cuda")
    q = normal(rows, Q_HEADS, HEAD_DIM)
    out = torch.empty_like(q)
    plan_step(shape, workspace, lengths)

    def run(table: torch.Tensor) -> None:
        decode_attention(shape, workspace, q, cache, table, lengths, out, early=early)

    return seconds([lambda table=table: run(table) for table in tables])  # type: ignore[misc]


def prefill_s(length: int, tile: AttentionTile) -> float:
    shape = PrefillShape(Q_HEADS, KV_HEADS, HEAD_DIM, None, tile)
    table = random_tables(1, length, 1)[0]
    cache, q = random_cache(table.numel()), normal(length, Q_HEADS, HEAD_DIM)
    out, tiles = torch.empty_like(q), prefill_tiles([Chunk(0, length, length)], shape.tokens_a_tile).cuda()
    return seconds([lambda: prefill_attention(shape, q, cache, table, tiles, out)], 4)


def matmul_s(name: str, rows: int, tile: MatmulTile, n_sms: int, early: bool) -> float:
    width, depth = MATRICES[name]
    weights = [normal(width, depth) for _ in range(1 + (200 << 20) // (width * depth * 2))]
    x, out = normal(rows, depth), torch.empty(rows, width, device="cuda", dtype=torch.bfloat16)
    calls = [lambda w=w: matmul(x, w, out, tile, n_sms, early=early) for w in weights]
    return seconds(calls, 12)


def main() -> int:
    """Ends with 1 where there is no card."""
    if not torch.cuda.is_available():
        print("there is no GPU here to tune for", file=sys.stderr)
        return 1
    card = torch.cuda.get_device_properties(0)
    n_sms, early = card.multi_processor_count, card.major >= 9
    found: dict[str, list[dict[str, object]]] = {}
    for label, (rows, length) in DECODES.items():
        found[f"decode {label}"] = ranked(
            DECODE_TILES, lambda tile, r=rows, n=length: decode_s(r, n, tile, n_sms, early)  # type: ignore[misc]
        )  # fmt: skip
    found["prefill 8k"] = ranked(PREFILL_TILES, lambda tile: prefill_s(8192, tile))
    for name in MATRICES:
        for rows in ROWS:
            tiles = [tile for tile in MATMUL_TILES if not tile.swap or rows <= tile.block_m]
            found[f"matmul {name}, {rows} rows"] = ranked(
                tiles, lambda tile, r=rows, m=name: matmul_s(m, r, tile, n_sms, early)  # type: ignore[misc]
            )  # fmt: skip
    print(json.dumps({card.name: found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
