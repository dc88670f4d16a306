"""Services whose windows are an AR(1) series around a mean, changed or not; what the watch finds. Seeded, no clock."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from benchmarks.report import Better, Row
from controllers.plans.quality import Measure, Moments, Policy, Watched, after, drifts

ALIKE: Final = (0.0, 0.3, 0.5, 0.7, 0.85)
"""Correlations of a window with the one before."""
CHANGES: Final = (2.0, 3.0, 4.0, 6.0)
"""In standard deviations of a window."""
DAYS: Final = 30
WINDOWS_A_DAY: Final = 96
SEARCHED: Final = 200
"""Windows after a change in which it may be found."""
FALSE_PERCENT: Final = 1.0
FOUND_PERCENT: Final = 95.0
PEER: Final = "the same, blind to it"
_POLICY: Final = Policy()
_MEASURE: Final = Measure.LENGTH
_MEAN, _DEVIATION = 200.0, 20.0


@dataclass(frozen=True, slots=True)
class Found:
    """After how many windows each way of looking told a drift; None where it did not."""

    ours: int | None
    blind: int | None


def measure(n_services: int) -> list[Row]:
    """All rows."""
    rows = []
    for alike in ALIKE:
        rows += _false(alike, [_service(alike, seed, 0.0, DAYS * WINDOWS_A_DAY) for seed in range(n_services)])
        for change in CHANGES:
            found = [_service(alike, 10_000 + seed, change, SEARCHED) for seed in range(n_services)]
            rows += _soon(alike, change, found)
    return rows


def _service(alike: float, seed: int, change: float, n_windows: int) -> Found:
    """One whose answers have a baseline of a day, then change at once by so many standard deviations."""
    series = _series(random.Random(f"{alike}/{seed}"), alike)
    watched = Watched()
    for _ in range(_POLICY.baseline_windows):
        watched = _after(watched, next(series))
    values = [next(series) + change for _ in range(n_windows)]
    return Found(_first(watched, values), _first(_blinded(watched), values))


def _series(chance: random.Random, alike: float) -> Iterator[float]:
    value = chance.gauss(0.0, 1.0)
    while True:
        yield value
        value = alike * value + math.sqrt(1.0 - alike**2) * chance.gauss(0.0, 1.0)


def _after(watched: Watched, value: float) -> Watched:
    return after(watched, "a", {_MEASURE: _MEAN + _DEVIATION * value}, _POLICY)


def _blinded(watched: Watched) -> Watched:
    """The same baseline, taken for one of independent windows."""
    one = watched.baseline[_MEASURE]
    return replace(watched, baseline={_MEASURE: Moments(one.n, one.mean, one.squares)})


def _first(watched: Watched, values: list[float]) -> int | None:
    for number, value in enumerate(values, 1):
        watched = _after(watched, value)
        if any(drifts(watched)):
            return number
    return None


# --- rows -------------------------------------------------------------------------------------------------------------
def _false(alike: float, found: list[Found]) -> list[Row]:
    ours, blind = ([one.ours for one in found], [one.blind for one in found])
    goal = FALSE_PERCENT if alike <= 0.7 else None
    return [
        Row(_of(alike, "no change"), f"services that told a drift in {DAYS} days", "%", _percent(ours), _percent(blind),
            PEER, goal, Better.LOWER)
    ]  # fmt: skip


def _soon(alike: float, change: float, found: list[Found]) -> list[Row]:
    ours, blind = ([one.ours for one in found], [one.blind for one in found])
    where = _of(alike, f"a change of {change:g} deviations")
    goal = FOUND_PERCENT if alike <= 0.5 and change >= 4.0 else None
    return [
        Row(where, f"found within {SEARCHED} windows", "%", _percent(ours), _percent(blind), PEER, goal, Better.HIGHER),
        Row(where, "found after, median", "windows", _middle(ours), _middle(blind), PEER),
    ]


def _of(alike: float, what: str) -> str:
    return f"correlation {alike:g}: {what}"


def _percent(found: list[int | None]) -> float:
    return 100.0 * sum(one is not None for one in found) / len(found)


def _middle(found: list[int | None]) -> float | None:
    """Of those that were found."""
    hits = [one for one in found if one is not None]
    return float(median(hits)) if hits else None
