"""Which of a service's endpoints may be chosen at all. Pure.

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
