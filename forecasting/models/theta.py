"""Theta: the season taken out, half of the slope of the whole history, and a smoothed level.

(Assimakopoulos and Nikolopoulos 2000, as simple exponential smoothing with drift: Hyndman and Billah 2003.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.models.base import Origins, require
from forecasting.models.smoothing import ALPHAS, smooth
from forecasting.series import DAY_S, Array, Series


@dataclass(frozen=True, slots=True)
class Theta:
    """period_s: of the season that is taken out where the history holds two of it; None for none."""

    period_s: float | None = DAY_S
    name: str = "Theta"

    def fit(self, series: Series) -> FittedTheta:
        require(self, series, 4)
        period = (series.steps_in(self.period_s) if self.period_s is not None else None) or 0
        season = seasonal_means(series.values, period) if 2 <= 2 * period <= len(series) else np.zeros(1)
        plain = series.values - np.resize(season, len(series))
        grid = np.array([(alpha, 0.0, 1.0, 0.0) for alpha in ALPHAS]).T
        best = int(np.argmin(smooth(plain, grid, 0).squared_error))
        seen = np.flatnonzero(~np.isnan(plain))
        slope = float(np.polyfit(seen, plain[seen], 1)[0])
        return FittedTheta(season, grid[:, [best]], slope)


def seasonal_means(values: Array, period: int) -> Array:
    """(period,) the mean distance of each phase from the mean of its own period; 0 where a phase was never observed."""
    whole = values[len(values) % period :].reshape(-1, period)
    counts = (~np.isnan(whole)).sum(axis=1, keepdims=True)
    centre = np.nansum(whole, axis=1, keepdims=True) / np.maximum(counts, 1)
    away = np.where(np.isnan(whole), 0.0, whole - centre)
    found = away.sum(axis=0) / np.maximum((~np.isnan(whole)).sum(axis=0), 1)
    return np.asarray(np.roll(found - found.mean(), len(values) % period), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class FittedTheta:
    """season: (period,) by position from the start of the history. chosen: (4, 1)."""

    season: Array
    chosen: Array
    slope: float

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        plain = values - np.resize(self.season, len(values))
        run = smooth(plain[: int(origins.max())], self.chosen, 0)
        ahead = np.arange(1, steps + 1)
        level = run.level[origins, 0][:, None] + 0.5 * self.slope * ahead[None, :]
        phase = (origins[:, None] + ahead[None, :] - 1) % len(self.season)
        return np.asarray(level + self.season[phase], dtype=np.float64)
