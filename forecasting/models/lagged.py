"""A ridge regression on the load's own past: the last steps, the same time of the days and of the week before.

An autoregression with seasonal lags is what an ARIMA of a seasonal series comes to, at a thousandth of its cost: one
linear solve, and a forecast that feeds itself. Rows with a gap are left out of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.gaps import filled
from forecasting.models.base import Origins, require
from forecasting.models.scale import Logarithm, Measured, Scale
from forecasting.series import DAY_S, WEEK_S, Array, Series

RECENT: Final = 6
CAUTIOUS: Final = 1e-2
"""From this penalty on, a model is named so."""
ROWS_A_LAG: Final = 6
"""Fewer observations than this for each coefficient, and the longest lags are dropped."""


@dataclass(frozen=True, slots=True)
class LaggedRegression:
    """penalty: of the squared distance from persistence (a weight of 1 on the last step), per row, at unit variance.

    A small one suits a smooth load that repeats itself, a large one a load of bursts; an ensemble can hold both.
    """

    logarithm: bool = True
    penalty: float = 1e-4

    @property
    def name(self) -> str:
        strength = "" if self.penalty < CAUTIOUS else "cautious "
        return f"{strength}lags of the logarithm" if self.logarithm else f"{strength}lags"

    def fit(self, series: Series) -> FittedLags:
        require(self, series, 4 * ROWS_A_LAG)
        scale: Scale = Logarithm.of(series.values) if self.logarithm else Measured()
        values = scale.into(series.values)
        day, week = series.steps_in(DAY_S), series.steps_in(WEEK_S)
        return _solved(values, lags_for(len(values), day, week), self.penalty, scale, day)


def lags_for(n: int, day: int | None, week: int | None) -> npt.NDArray[np.int64]:
    """The lags that a history of `n` steps can carry."""
    lags = set(range(1, RECENT + 1))
    around_day = [day * back + off for back in (1, 2) for off in (-2, -1, 0, 1, 2)] if day and day > 2 * RECENT else []
    days = [day * back + off for back in (3, 4, 5, 6) for off in (0, 1)] if around_day and day else []
    around_week = [week + off for off in (-2, -1, 0, 1, 2)] if around_day and week else []
    for more in (around_day[:5], around_day[5:], days, around_week):
        if more and n - max(more) >= ROWS_A_LAG * (len(lags) + len(more)):
            lags.update(more)
    return np.array(sorted(lags), dtype=np.int64)


def _solved(values: Array, lags: npt.NDArray[np.int64], penalty: float, scale: Scale, day: int | None) -> FittedLags:
    mean, spread = float(np.nanmean(values)), float(np.nanstd(values))
    if spread <= 1e-9 * max(abs(mean), 1e-9):
        return FittedLags(lags, np.zeros(len(lags)), mean, 1.0, scale, day)
    unit = (values - mean) / spread
    longest = int(lags[-1])
    rows = np.stack([unit[longest - lag : len(unit) - lag] for lag in lags] + [unit[longest:]], axis=1)
    rows = rows[~np.isnan(rows).any(axis=1)]
    past, target = rows[:, :-1], rows[:, -1]
    gram = past.T @ past + penalty * max(len(rows), 1) * np.eye(len(lags))
    towards = np.where(lags == 1, 1.0, 0.0)
    weights = towards + np.linalg.solve(gram, past.T @ (target - past @ towards))
    return FittedLags(lags, weights, mean, spread, scale, day)


@dataclass(frozen=True, slots=True)
class FittedLags:
    """load(t) - mean = sum of weight × (load(t - lag) - mean), on the scale."""

    lags: npt.NDArray[np.int64]
    weights: Array
    mean: float
    spread: float
    scale: Scale
    day: int | None

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        longest = int(self.lags[-1])
        unit = (filled(self.scale.into(values), self.day) - self.mean) / self.spread
        padded = np.concatenate([np.zeros(longest), np.nan_to_num(unit)])
        path = np.zeros((longest + steps, len(origins)))
        path[:longest] = padded[origins[None, :] + np.arange(longest)[:, None]]
        lowest, highest = _bounds(path[:longest])
        for step in range(longest, longest + steps):
            path[step] = np.clip(self.weights @ path[step - self.lags], lowest, highest)
        return self.scale.back(path[longest:].T * self.spread + self.mean)


def _bounds(past: Array) -> tuple[Array, Array]:
    """An unstable fit must not run away: half a range beyond what the lags hold, and two spreads."""
    lowest, highest = past.min(axis=0), past.max(axis=0)
    room = 0.5 * (highest - lowest) + 2
    return lowest - room, highest + room
