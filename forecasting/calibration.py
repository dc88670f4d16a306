"""Whether forecasts keep what they promise: each is held against what came, and trust goes and returns with a margin.

Pure values. A forecast that was never met by its truth is trusted: its intervals come from a backtest of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

LEVELS: Final = (0.8, 0.95, 0.99)
"""Of the intervals that are counted."""
JUDGED: Final = 0.95
WINDOW: Final = 96
"""Outcomes that are counted: the last ones."""
ENOUGH: Final = 20
DEMOTED_BELOW: Final = 0.80
"""Achieved coverage of the 95 % interval. Of 20 right forecasts fewer than 16 hit in 1 of 400 cases."""
TRUSTED_FROM: Final = 0.90


@dataclass(frozen=True, slots=True)
class Promise:
    """Intervals for one step: (low, high) for each of LEVELS."""

    at_s: float
    intervals: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Promises that wait for their truth, and the outcomes of the others, oldest first, one flag for each of LEVELS."""

    waiting: tuple[Promise, ...] = ()
    outcomes: tuple[tuple[bool, ...], ...] = ()
    trusted: bool = True

    @property
    def samples(self) -> int:
        return len(self.outcomes)

    def achieved(self, level: float) -> float | None:
        """Share of outcomes within the interval; None before there are any."""
        at = LEVELS.index(level)
        return sum(one[at] for one in self.outcomes) / len(self.outcomes) if self.outcomes else None


def promised(state: Calibration, promise: Promise) -> Calibration:
    """One more to be held against its truth. A second promise for the same step is not taken: the first was bolder."""
    if any(one.at_s == promise.at_s for one in state.waiting):
        return state
    return replace(state, waiting=(*state.waiting[-WINDOW:], promise))


def observed(state: Calibration, truth: Sequence[tuple[float, float]], now_s: float) -> Calibration:
    """`truth` are (step, load), without the steps that nobody saw. What waits for more than a day is dropped."""
    known = dict(truth)
    met = [one for one in state.waiting if one.at_s in known]
    hits = [tuple(low <= known[one.at_s] <= high for low, high in one.intervals) for one in met]
    outcomes = (*state.outcomes, *hits)[-WINDOW:]
    left = tuple(one for one in state.waiting if one.at_s not in known and one.at_s > now_s - 86_400)
    return judged(replace(state, waiting=left, outcomes=outcomes))


def judged(state: Calibration) -> Calibration:
    """Trust goes below one bound and returns above another, and neither on few outcomes."""
    share = state.achieved(JUDGED)
    if share is None or state.samples < ENOUGH:
        return state
    if state.trusted and share < DEMOTED_BELOW:
        return replace(state, trusted=False)
    if not state.trusted and share >= TRUSTED_FROM:
        return replace(state, trusted=True)
    return state
