"""MSTL, with damped exponential smoothing of what is left when the seasons are taken out, on the logarithm.

The seasons of the last period are repeated. Thorough and slow (a fit for every moment it forecasts from), so it is for
comparisons and offline use; the refresh of a fleet does without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.decomposition import decompose
from forecasting.models.base import Origins, require
from forecasting.models.scale import Logarithm
from forecasting.models.smoothing import parameters, smooth
from forecasting.series import DAY_S, WEEK_S, Array, Series


@dataclass(frozen=True, slots=True)
class DecomposedSmoothing:
    """periods_s: of the seasons."""

    periods_s: tuple[float, ...] = (DAY_S, WEEK_S)
    name: str = "MSTL + ETS of the logarithm"

    def fit(self, series: Series) -> FittedDecomposed:
        require(self, series, 4)
        scale = Logarithm.of(series.values)
        _remainder(series, scale, self.periods_s)
        return FittedDecomposed(series.step_s, scale, self.periods_s)


@dataclass(frozen=True, slots=True)
class FittedDecomposed:
    step_s: float
    scale: Logarithm
    periods_s: tuple[float, ...]

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        return np.stack([self._once(values[: int(origin)], steps) for origin in origins])

    def _once(self, values: Array, steps: int) -> Array:
        plain, seasons, periods = _remainder(Series(0.0, self.step_s, values), self.scale, self.periods_s)
        grid = parameters(seasonal=False)
        best = grid[:, [int(np.argmin(smooth(plain, grid, 0).squared_error))]]
        run = smooth(plain, best, 0)
        reach = np.cumsum(best[2, 0] ** np.arange(1, steps + 1))
        ahead = run.level[-1, 0] + run.trend[-1, 0] * reach
        for season, period in zip(seasons, periods, strict=True):
            ahead = ahead + np.resize(season[-period:], steps)
        return self.scale.back(np.asarray(ahead, dtype=np.float64))


def _remainder(
    series: Series, scale: Logarithm, periods_s: tuple[float, ...]
) -> tuple[Array, tuple[Array, ...], list[int]]:
    """Trend and residual on the scale, gaps kept; the seasons; their lengths in steps. Raises: HistoryTooShort."""
    found = decompose(Series(series.start_s, series.step_s, scale.into(series.values), series.name), periods_s)
    periods = [round(period / series.step_s) for period in found.periods_s]
    return found.trend + found.residual, found.seasonal, periods
