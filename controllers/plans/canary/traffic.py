"""Shares of sessions. They only rise while a candidate is tried, so a session moves to it once; and they only fall on
the way back, no faster than the old revision can carry it.
"""

from __future__ import annotations

from collections.abc import Sequence

from controllers.plans.rollout import RevisionState
from crds.traffic import TrafficShare


def split(stable: str, candidate: str, weight: int, mirror: int | None = None) -> tuple[TrafficShare, ...]:
    """Two shares."""
    return (
        TrafficShare(revision=stable, weight=100 - weight),
        TrafficShare(revision=candidate, weight=weight, mirror=mirror),
    )


def weight_of(traffic: Sequence[TrafficShare], revision: str) -> int:
    """The share that it was last given."""
    return next((one.weight for one in traffic if one.revision == revision), 0)


def raised(before: int, stable: RevisionState, candidate: RevisionState) -> int:
    """While the candidate replaces the old revision: its share of the ready workers, never less than before."""
    ready = stable.ready + candidate.ready
    return max(before, 100 * candidate.ready // ready if ready else 0)


def lowered(before: int, stable: RevisionState, candidate: RevisionState, desired: int) -> int:
    """On the way back: nothing as soon as the old revision has half of the workers that are wanted."""
    if 2 * stable.ready >= desired or not candidate.ready:
        return 0
    return min(before, 100 * candidate.ready // (stable.ready + candidate.ready))
