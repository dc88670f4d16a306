"""Tile shapes by device: a table made by `python -m benchmarks.engine tune` and shipped; nothing is searched at start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionTile:
    """How an attention kernel cuts its work."""

    block_m: int
    block_n: int
    warps: int
    stages: int
    programs_per_sm: int = 1
    min_units: int = 1
