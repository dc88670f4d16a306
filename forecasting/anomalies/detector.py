"""The detector of unusual loads: one value in, one verdict out, with memory that is bounded.

Three questions, each answered by a number, whose surprise (surprise.py) is summed:

    shape    how far are the last six values from the nearest six in a row that were ever seen
    season   how far is the value outside of what the same time of the last seven days held
    range    how far is the value beyond all values so far

The sum counts only as far as it passes the recent sums, which halve every HALF_LIFE steps: one event, one alarm. It
works on any metric, negative ones too. Never acts on what it finds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from forecasting.anomalies.surprise import Surprise
from forecasting.errors import BadSetting, InfiniteValue
from forecasting.series import DAY_S, Array

SHAPE: Final = 6
NEAREST: Final = 6
SHAPES_KEPT: Final = 5000
DAYS: Final = 7
AROUND: Final = 2
"""Steps to each side of the same time of a day."""
PULL: Final = 0.1
"""What a distance from the middle of those days weighs beside one from their range."""
HALF_LIFE: Final = 20.0
THRESHOLD: Final = 5.0
"""Of the sum of surprises; chosen on half of a public corpus."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """score: 0 is usual, at or above the threshold is an anomaly. Surprises are -log10 of a probability."""

    score: float
    anomalous: bool
    shape: float
    season: float
    range: float
    reason: str
    message: str


@dataclass(slots=True)
class Detector:
    """step_s: the distance of two values, which tells where yesterday is. Raises: BadSetting."""

    step_s: float
    threshold: float = THRESHOLD
    _values: deque[float] = field(init=False)
    _lowest: float = field(init=False, default=np.inf)
    _highest: float = field(init=False, default=-np.inf)
    _shapes: _Shapes = field(init=False)
    _day: int = field(init=False)
    _recent: float = field(init=False, default=0.0)
    _surprise: dict[str, Surprise] = field(init=False)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.step_s) and self.step_s > 0 and self.threshold > 0):
            raise BadSetting(f"Detector: step_s {self.step_s} and threshold {self.threshold}; both must be positive.")
        self._day = max(round(DAY_S / self.step_s), 1)
        self._values = deque(maxlen=DAYS * self._day + AROUND)
        self._shapes = _Shapes()
        self._surprise = {part: Surprise() for part in ("shape", "season", "range")}

    def observe(self, value: float) -> Verdict:
        """The verdict on the next value. NaN is a gap: it is no anomaly, and no shape reaches over it.

        Raises: InfiniteValue.
        """
        if np.isinf(value):
            raise InfiniteValue(f"Detector: {value}; a value is finite, a gap is NaN.")
        if np.isnan(value):
            self._shapes.interrupt()
            self._values.append(value)
            return Verdict(0.0, False, 0.0, 0.0, 0.0, "gap", "no measurement")
        raw = {
            "shape": self._shapes.distance(value),
            "season": self._out_of_season(value),
            "range": self._beyond(value),
        }
        parts = {name: self._surprise[name].of(score) for name, score in raw.items()}
        self._values.append(value)
        return self._verdict(parts, value)

    def _verdict(self, parts: dict[str, float], value: float) -> Verdict:
        total = sum(parts.values())
        fresh = max(total - self._recent, 0.0)
        self._recent = max(self._recent * 2 ** (-1 / HALF_LIFE), total)
        anomalous = fresh >= self.threshold
        most = max(parts, key=lambda name: parts[name])
        terms = " + ".join(f"{name} {surprise:.1f}" for name, surprise in parts.items())
        message = f"{value:.4g}: {terms} = {total:.1f}, {fresh:.1f} of it new; {self.threshold:g} is an anomaly"
        return Verdict(fresh, anomalous, **parts, reason=most if anomalous else "usual", message=message)

    def _out_of_season(self, value: float) -> float:
        n = len(self._values)
        places = [n - day * self._day for day in range(1, DAYS + 1) if n - day * self._day - AROUND >= 0]
        same = [self._values[at + off] for at in places for off in range(-AROUND, AROUND + 1) if at + off < n]
        known = np.array([one for one in same if one == one])
        if not len(known):
            return 0.0
        outside = max(float(known.min()) - value, value - float(known.max()), 0.0)
        return outside + PULL * abs(value - float(np.median(known)))

    def _beyond(self, value: float) -> float:
        first = self._highest < self._lowest
        beyond = 0.0 if first else max(value - self._highest, self._lowest - value, 0.0)
        self._lowest, self._highest = min(self._lowest, value), max(self._highest, value)
        return beyond


@dataclass(slots=True)
class _Shapes:
    """The runs of SHAPE values so far, and the distance of the latest to its nearest neighbours."""

    runs: Array = field(default_factory=lambda: np.zeros((SHAPES_KEPT, SHAPE)))
    seen: int = 0
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=SHAPE))

    def interrupt(self) -> None:
        self.latest.clear()

    def distance(self, value: float) -> float:
        self.latest.append(value)
        if len(self.latest) < SHAPE:
            return 0.0
        run = np.array(self.latest)
        found = self._nearest(run)
        self.runs[self.seen % SHAPES_KEPT] = run
        self.seen += 1
        return found

    def _nearest(self, run: Array) -> float:
        """The mean distance to the nearest runs that share no value with this one."""
        others = self._apart()
        if len(others) < NEAREST:
            return 0.0
        away = others - run
        squared = np.einsum("ij,ij->i", away, away)
        return float(np.sqrt(np.partition(squared, NEAREST - 1)[:NEAREST]).mean())

    def _apart(self) -> Array:
        """The runs but for the SHAPE - 1 latest."""
        if self.seen <= SHAPES_KEPT:
            return self.runs[: max(self.seen - SHAPE + 1, 0)]
        return np.delete(self.runs, np.arange(self.seen - SHAPE + 1, self.seen) % SHAPES_KEPT, axis=0)
