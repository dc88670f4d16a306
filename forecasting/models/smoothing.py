"""Exponential smoothing with a damped trend and an additive season, whose states at every moment are kept.

    error   e(t) = y(t) - level(t-1) - phi trend(t-1) - season(t-m)
    level(t)  = level(t-1) + phi trend(t-1) + alpha e(t)
    trend(t)  = phi trend(t-1) + alpha beta e(t)
    season(t) = season(t-m) + gamma (1 - alpha) e(t)

(Hyndman, Koehler, Ord, Snyder 2008, ETS(A,Ad,A) in error-correction form.) A gap has no error: the states go on without
it. A small grid of parameters is run side by side and the one with the least squared error is kept: no optimiser, so
the same history always gives the same forecast, in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from forecasting.errors import HistoryTooShort
from forecasting.models.base import Origins, period_steps, require
from forecasting.models.scale import Logarithm, Measured, Scale
from forecasting.series import DAY_S, Array, Series

ALPHAS: Final = (0.02, 0.08, 0.2, 0.4, 0.65, 0.95)
BETAS: Final = (0.0, 0.05, 0.2)
PHIS: Final = (0.9, 0.98)
GAMMAS: Final = (0.05, 0.2, 0.4)
PERIODS_NEEDED: Final = 2
LEAST_SEEN = 4
FIT_STEPS: Final = 600
FIT_PERIODS: Final = 4
"""Parameters are chosen on the latest FIT_STEPS steps or FIT_PERIODS periods, whichever is longer."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Damped ETS; with a period, damped Holt-Winters."""

    period_s: float | None = None
    logarithm: bool = False

    @property
    def name(self) -> str:
        kind = "damped ETS" if self.period_s is None else "Holt-Winters"
        return f"{kind} of the logarithm" if self.logarithm else kind

    @classmethod
    def holt_winters(cls, period_s: float = DAY_S, *, logarithm: bool = True) -> Smoothing:
        return cls(period_s, logarithm)

    def fit(self, series: Series) -> FittedSmoothing:
        require(self, series, LEAST_SEEN)
        period = 0 if self.period_s is None else period_steps(self, series, self.period_s)
        if period and len(series) < PERIODS_NEEDED * period:
            raise HistoryTooShort(
                f"{self.name} of '{series.name}': {len(series)} steps; {PERIODS_NEEDED} periods of {period} are needed."
            )
        scale: Scale = Logarithm.of(series.values) if self.logarithm else Measured()
        values = scale.into(series.values)[-max(FIT_STEPS, FIT_PERIODS * period) :]
        if np.isnan(values).sum() > len(values) - LEAST_SEEN:
            raise HistoryTooShort(
                f"{self.name} of '{series.name}': of its last {len(values)} steps {LEAST_SEEN} must be observed."
            )
        grid = parameters(seasonal=period > 0)
        run = smooth(values, grid, period)
        return FittedSmoothing(grid[:, [int(np.argmin(run.squared_error))]], period, scale)


def parameters(*, seasonal: bool) -> Array:
    """(4, candidates): alpha, beta, phi, gamma."""
    gammas = GAMMAS if seasonal else (0.0,)
    trends = [(0.0, 1.0), *product(BETAS[1:], PHIS)]
    return np.array([(a, b, p, g) for a, (b, p), g in product(ALPHAS, trends, gammas)], dtype=np.float64).T


@dataclass(frozen=True, slots=True)
class Run:
    """States after each step. level, trend: (n + 1, candidates), [t] is after t values; season: (n + m, candidates)."""

    level: Array
    trend: Array
    season: Array
    squared_error: Array
    """(candidates,)"""


def smooth(values: Array, grid: Array, period: int) -> Run:
    """values: (n,) with NaN for gaps. grid: (4, candidates)."""
    alpha, beta, phi, gamma = grid
    n, width = len(values), grid.shape[1]
    level, trend = np.empty((n + 1, width)), np.zeros((n + 1, width))
    first, pattern = _start(values, period)
    level[0] = first
    season = np.zeros((n + max(period, 1), width))
    season[:period] = pattern[:, None]
    squared = np.zeros(width)
    if width == 1:
        return _smooth_one(values, grid[:, 0], period, level, trend, season)
    trend_gain, season_gain = alpha * beta, gamma * (1 - alpha)
    for t, value in enumerate(values.tolist()):
        slope = phi * trend[t]
        expected = level[t] + slope
        if value != value:  # a gap: NaN is the only number that is not itself
            level[t + 1], trend[t + 1] = expected, slope
            if period:
                season[t + period] = season[t]
            continue
        error = value - expected - season[t] if period else value - expected
        level[t + 1] = expected + alpha * error
        trend[t + 1] = slope + trend_gain * error
        if period:
            season[t + period] = season[t] + season_gain * error
        squared += error * error
    return Run(level, trend, season, squared)


def _smooth_one(values: Array, chosen: Array, period: int, level: Array, trend: Array, season: Array) -> Run:
    """As the loop of `smooth`, with plain numbers: for one candidate an array's overhead is most of the time."""
    alpha, beta, phi, gamma = chosen.tolist()
    lately, slope, squared = float(level[0, 0]), 0.0, 0.0
    levels, slopes, pattern = [lately], [slope], season[: max(period, 1), 0].tolist()
    for t, value in enumerate(values.tolist()):
        slope *= phi
        expected = lately + slope
        error = 0.0 if value != value else value - expected - pattern[t]
        lately = expected + alpha * error
        slope += alpha * beta * error
        levels.append(lately)
        slopes.append(slope)
        pattern.append(pattern[t] + gamma * (1 - alpha) * error if period else 0.0)
        squared += error * error
    level[:, 0], trend[:, 0], season[:, 0] = levels, slopes, pattern[: len(season)]
    return Run(level, trend, season, np.array([squared]))


def _start(values: Array, period: int) -> tuple[float, Array]:
    """The level and the season (mean 0) of the first two periods; of the first values without a season."""
    seen = values[~np.isnan(values)]
    if not period:
        return float(seen[: min(len(seen), 10)].mean()), np.zeros(0)
    head = values[: PERIODS_NEEDED * period].reshape(PERIODS_NEEDED, period)
    counts = (~np.isnan(head)).sum(axis=0)
    level = float(np.nanmean(head)) if counts.any() else float(seen[0])
    pattern = np.where(counts > 0, np.nansum(head, axis=0) / np.maximum(counts, 1) - level, 0.0)
    return level, pattern - pattern.mean()


@dataclass(frozen=True, slots=True)
class FittedSmoothing:
    """chosen: (4, 1): alpha, beta, phi, gamma."""

    chosen: Array
    period: int
    scale: Scale

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        run = smooth(self.scale.into(values[: int(origins.max())]), self.chosen, self.period)
        phi = float(self.chosen[2, 0])
        reach = np.cumsum(phi ** np.arange(1, steps + 1))
        ahead = run.level[origins, 0][:, None] + run.trend[origins, 0][:, None] * reach[None, :]
        if self.period:
            phase = np.arange(steps) % self.period
            ahead += run.season[origins[:, None] + phase[None, :], 0]
        return self.scale.back(ahead)
