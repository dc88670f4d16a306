"""Tile shapes by device, out of a table that ships with the package; nothing is searched at start.

`python -m benchmarks.engine.kernels_tune` measures the candidates on a card and prints what an entry would be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

TABLE: Final = Path(__file__).parent / "tuned.json"
OTHER: Final = "other"
"""The table's entry for devices that nobody has tuned: small tiles that fit any card with bf16."""


@dataclass(frozen=True)
class AttentionTile:
    """How an attention kernel cuts its work."""

    block_m: int
    block_n: int
    warps: int
    stages: int
    programs_per_sm: int = 1
    min_units: int = 1


@dataclass(frozen=True)
class MatmulTile:
    """How the deterministic matmul cuts its output; the depth is never cut."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    group_m: int = 8
    out_parts: int = 1
    """2: the output tile is written in halves."""
    programs_per_sm: int = 1
    swap: bool = False
    """Computes the transposed tile: for a handful of rows."""
    ahead: int = 0
    """Elements of each weight row, a power of two, that an early launch fetches into the L2 while it waits."""


TileT = TypeVar("TileT")
ByRows = tuple[tuple[int | None, TileT], ...]
"""Largest number of rows, ascending, and the tile up to it; None holds any."""


@dataclass(frozen=True)
class Tuning:
    """What one device uses."""

    decode: ByRows[AttentionTile]
    prefill: AttentionTile
    fixed_attention: AttentionTile
    """Of decode and prefill alike in deterministic mode, where one tile must serve all."""
    fixed_split: int
    """Tokens a split in deterministic mode."""
    matmul: ByRows[MatmulTile]
    own_matmul_rows: int = 0
    """Up to so many rows our matmul is used in any mode: it is faster than cuBLAS for a handful."""
    early: bool = False
    """Small kernels are launched while their predecessor still runs; compute capability 9.0 and up."""


def tuning_for(device_name: str, table: Path = TABLE) -> Tuning:
    """The entry whose name a device's begins with, as torch names it, or the one for all others.

    A slice of a card is named after the card. An entry that is a name stands for that one.
    """
    entries = json.loads(table.read_text(encoding="utf-8"))
    entry = next((entries[name] for name in entries if device_name.startswith(name)), entries[OTHER])
    return parse_tuning(entries[entry] if isinstance(entry, str) else entry)


def parse_tuning(entry: dict[str, Any]) -> Tuning:
    return Tuning(
        decode=_by_rows(entry["decode"], AttentionTile),
        prefill=AttentionTile(**entry["prefill"]),
        fixed_attention=AttentionTile(**entry["fixed_attention"]),
        fixed_split=entry["fixed_split"],
        matmul=_by_rows(entry["matmul"], MatmulTile),
        own_matmul_rows=entry["own_matmul_rows"],
        early=entry["early"],
    )


def tile_for(tiles: ByRows[TileT], rows: int) -> TileT:
    """The first whose limit holds `rows`; the last holds any."""
    return next(tile for limit, tile in tiles if limit is None or rows <= limit)


def _by_rows(entries: Iterable[dict[str, Any]], kind: type[TileT]) -> ByRows[TileT]:
    return tuple(
        (entry["up_to_rows"], kind(**{key: value for key, value in entry.items() if key != "up_to_rows"}))
        for entry in entries
    )
