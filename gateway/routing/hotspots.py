"""Hot spots: an endpoint that holds far more than its equals, found by the skew of their loads, and cooled. Pure.

Cooling lowers its part of the load, as coming back from an ejection does; it never takes an endpoint away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HotSpotPolicy:
    skew: float = 2.0
    """Times the mean load of all."""
    filled: float = 0.5
    """Of its slots: what is less than so full is no hot spot, however idle the others are."""
    sweeps: int = 3
    """In a row."""
    cooled: float = 0.5
    """Of its part of the load while it is hot."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One endpoint's load, requests over slots, and for how many sweeps in a row it has been too high."""

    load: float
    hot_sweeps: int = 0


@dataclass(frozen=True, slots=True)
class Heat:
    hot_sweeps: int
    cools: bool
    message: str


def skew(loads: Sequence[float]) -> float:
    """The highest load over the mean; 1 where nothing is to do."""
    mean = sum(loads) / len(loads) if loads else 0.0
    return max(loads) / mean if mean > 0 else 1.0


def heats(spots: Sequence[Spot], policy: HotSpotPolicy) -> list[Heat]:
    """For each endpoint, whether it is hot now. Two endpoints at least, else nothing is."""
    mean = sum(one.load for one in spots) / len(spots) if spots else 0.0
    return [_heat(one, mean, len(spots), policy) for one in spots]


def _heat(spot: Spot, mean: float, count: int, policy: HotSpotPolicy) -> Heat:
    # Among two endpoints no load is above twice the mean, so the bound comes closer as they get fewer.
    bound = min(policy.skew, 1.0 + (count - 1) / 2)
    over = count > 1 and spot.load >= policy.filled and spot.load > bound * mean
    sweeps = spot.hot_sweeps + 1 if over else max(spot.hot_sweeps - 1, 0)
    sweeps = min(sweeps, 2 * policy.sweeps)
    cools = sweeps >= policy.sweeps
    return Heat(sweeps, cools, f"load {spot.load:.2f} of its slots, {bound:g} × the mean is {bound * mean:.2f}")
