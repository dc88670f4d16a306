"""What a forecaster says: quantiles of the load for each step ahead, safe to act on whatever the history was.

A `Forecast` never holds NaN, an infinity or a negative number, and its quantiles never cross; making one that would is
refused. It computes nothing of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.errors import BadSetting
from forecasting.series import Array

LEVELS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995,
)  # fmt: skip
"""Both ends of the 80, 95 and 99 % intervals, the deciles, and the upper levels that capacity is planned on."""


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """`quantiles[i, j]` is the level `levels[j]` of the load in the step that begins at `origin_s + i * step_s`.

    quantiles: (steps, levels) float64, read-only, ≥ 0, never falling along the levels.
    reason: the forecaster that spoke, in one word. message: how it came to its median, as arithmetic.
    Raises: BadSetting.
    """

    name: str
    origin_s: float
    step_s: float
    levels: tuple[float, ...]
    quantiles: Array
    reason: str
    message: str

    def __post_init__(self) -> None:
        quantiles = np.array(self.quantiles, dtype=np.float64)
        if quantiles.ndim != 2 or quantiles.shape[1] != len(self.levels) or not len(quantiles):
            raise BadSetting(
                f"Forecast '{self.name}': quantiles of shape {quantiles.shape} for {len(self.levels)} levels."
            )
        if list(self.levels) != sorted(set(self.levels)) or not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise BadSetting(f"Forecast '{self.name}': levels {self.levels} must rise between 0 and 1.")
        if not np.isfinite(quantiles).all() or (quantiles < 0).any() or (np.diff(quantiles, axis=1) < 0).any():
            raise BadSetting(f"Forecast '{self.name}': quantiles must be finite, at least 0 and rise with the level.")
        quantiles.setflags(write=False)
        object.__setattr__(self, "quantiles", quantiles)

    def __reduce__(self) -> tuple[object, ...]:
        fields = (self.name, self.origin_s, self.step_s, self.levels, self.quantiles, self.reason, self.message)
        return Forecast, fields

    @property
    def steps(self) -> int:
        return len(self.quantiles)

    @property
    def end_s(self) -> float:
        return self.origin_s + self.steps * self.step_s

    @property
    def median(self) -> Array:
        """(steps,)"""
        return self.quantile(0.5)

    def quantile(self, level: float) -> Array:
        """(steps,) the load that is not passed with probability `level`; between two levels by a straight line.

        Raises: BadSetting where the level is beyond the outermost ones.
        """
        if not self.levels[0] <= level <= self.levels[-1]:
            raise BadSetting(
                f"Forecast '{self.name}': level {level} was asked; {self.levels[0]} to {self.levels[-1]} are known."
            )
        above = int(np.searchsorted(self.levels, level))
        if self.levels[above] == level:
            return self.quantiles[:, above].copy()
        low, high = self.levels[above - 1], self.levels[above]
        share = (level - low) / (high - low)
        return self.quantiles[:, above - 1] * (1 - share) + self.quantiles[:, above] * share

    def at(self, time_s: float, level: float) -> float:
        """The quantile of the step that holds `time_s`; of the first or the last step where it is outside."""
        step = int((time_s - self.origin_s) // self.step_s)
        return float(self.quantile(level)[min(max(step, 0), self.steps - 1)])

    def peak(self, until_s: float, level: float) -> float:
        """The highest quantile from the first step to the one that holds `until_s`."""
        last = int((until_s - self.origin_s) // self.step_s)
        return float(self.quantile(level)[: min(max(last, 0), self.steps - 1) + 1].max())
