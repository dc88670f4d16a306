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
