"""Which worker gets a request. Pure: values in, a choice out; `turn` takes the place of chance.

Never looks at a request, and never asks anybody anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint, as far as choosing is concerned."""

    ready: bool = True
    terminating: bool = False
    draining: bool = False
    """It told us so itself, before the cluster did."""
    ejected: bool = False
    share: float = 1.0
    """Of an equal part of the load, in (0, 1]; below 1 while it comes back from an ejection."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Who may be chosen, and why not the others."""

    usable: tuple[int, ...]
    reason: str
    message: str

    @property
    def healthy(self) -> bool:
        return self.reason == "Healthy"


def select(candidates: Sequence[Candidate]) -> Selection:
    """The healthy ones; when there are none, the ejected ones, since a doubtful answer is better than none."""
    serving = [i for i, one in enumerate(candidates) if one.ready and not one.terminating and not one.draining]
    healthy = tuple(i for i in serving if not candidates[i].ejected)
    counts = f"{len(candidates)} endpoints, {len(serving)} ready, {len(serving) - len(healthy)} ejected"
    if healthy:
        return Selection(healthy, "Healthy", f"{counts}: {len(healthy)} to choose from")
    if serving:
        return Selection(tuple(serving), "AllEjected", f"{counts}: none is healthy, so the ejected ones serve")
    return Selection((), "NoneReady", f"{counts}: nothing to choose from")


def least_loaded(in_flight: Sequence[int], shares: Sequence[float], turn: int) -> int:
    """Index of the lowest `(in flight + 1) / share`; among equals, the next one from `turn` on.

    Both sequences have the same length, at least 1.
    """
    count = len(in_flight)
    start = turn % count
    best, best_load = start, (in_flight[start] + 1) / shares[start]
    for step in range(1, count):
        index = (start + step) % count
        load = (in_flight[index] + 1) / shares[index]
        if load < best_load:
            best, best_load = index, load
    return best
