"""Arithmetic over points of attainment and GPU-hours: fronts, GPU-hours at one attainment, bootstrap over days."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = (0.98, 0.99, 0.995, 0.999)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of one autoscaler on the test days, over all seeds. days: (attained, came, GPU-hours) of each."""

    family: str
    label: str
    attainment: float
    gpu_hours: float
    worst_window: float
    scale_events: float
    days: tuple[tuple[float, float, float], ...]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other point of the list beats in both; by rising GPU-hours."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (each.gpu_hours, -each.attainment)):
        if not kept or point.attainment > kept[-1].attainment:
            kept.append(point)
    return kept


def gpu_hours_at(points: Sequence[Point], attainment: float) -> float | None:
    """GPU-hours at which these points reach an attainment, between two neighbours of their front by a straight line in
    the logarithm of what is missed; None when none reaches it. Below the cheapest point it is that point's."""
    line = front(points)
    above = next((at for at, point in enumerate(line) if point.attainment >= attainment), None)
    if above is None:
        return None
    if above == 0:
        return line[0].gpu_hours
    low, high = line[above - 1], line[above]
    missed = [math.log(max(1 - each, 1e-7)) for each in (low.attainment, attainment, high.attainment)]
    share = (missed[0] - missed[1]) / max(missed[0] - missed[2], 1e-12)
    return low.gpu_hours + share * (high.gpu_hours - low.gpu_hours)


def ratio_interval(ours: Point, other: Point, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % of the ratio of GPU-hours, ours over the other's, when whole days are drawn again in pairs."""
    mine, theirs = np.array([day[2] for day in ours.days]), np.array([day[2] for day in other.days])
    which = np.random.default_rng(seed).integers(0, len(mine), (draws, len(mine)))
    ratios = mine[which].sum(axis=1) / theirs[which].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def attainment_interval(point: Point, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % of the attainment when whole days are drawn again."""
    good, came = np.array([day[0] for day in point.days]), np.array([day[1] for day in point.days])
    which = np.random.default_rng(seed).integers(0, len(good), (draws, len(good)))
    shares = good[which].sum(axis=1) / came[which].sum(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)
