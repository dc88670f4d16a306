"""Regression on sines and cosines of the day and the week, its errors an ARIMA: statsmodels' SARIMAX.

The parameters are estimated once; later forecasts only filter, which the state space does with gaps as they are.
Thorough and slow: for comparisons and offline use, not for the refresh of a fleet.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.statespace.sarimax import SARIMAX

from forecasting.models.base import Origins, require
from forecasting.models.scale import Logarithm
from forecasting.series import DAY_S, WEEK_S, Array, Series

DAY_WAVES: Final = 4
WEEK_WAVES: Final = 3
LONGEST_FIT: Final = 2100
"""Steps of history that are used, the latest ones: the filter's time grows with them."""


@dataclass(frozen=True, slots=True)
class FourierArima:
    """order: of the errors: autoregression, differences, moving average."""

    order: tuple[int, int, int] = (2, 1, 1)
    name: str = "Fourier + ARIMA errors of the logarithm"

    def fit(self, series: Series) -> FittedFourier:
        require(self, series, 8 * (DAY_WAVES + WEEK_WAVES))
        scale = Logarithm.of(series.values)
        waves = _waves_for(series)
        recent = series.last(LONGEST_FIT)
        first = len(series) - len(recent)
        model = self.model(scale.into(recent.values), fourier(waves, first, len(recent)))
        with warnings.catch_warnings():
            # An estimate that has not settled is still the best one found, and the backtest judges it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)
            found = model.fit(disp=False, maxiter=30)
        return FittedFourier(self, np.asarray(found.params, dtype=np.float64), waves, scale)

    def model(self, values: Array, waves: Array) -> Any:
        return SARIMAX(values, exog=waves, order=self.order, trend="c" if self.order[1] == 0 else None)


def _waves_for(series: Series) -> tuple[tuple[float, int], ...]:
    """(period in steps, number) for the periods of which the history holds two."""
    wanted = ((DAY_S / series.step_s, DAY_WAVES), (WEEK_S / series.step_s, WEEK_WAVES))
    return tuple((period, n) for period, n in wanted if period > 2 * n and len(series) >= 2 * period) or ((1e9, 1),)


def fourier(waves: tuple[tuple[float, int], ...], first: int, n: int) -> Array:
    """(n, 2 × waves) sines and cosines from step `first` on."""
    at = first + np.arange(n)
    angles = [2 * np.pi * k * at / period for period, count in waves for k in range(1, count + 1)]
    return np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class FittedFourier:
    model: FourierArima
    params: Array
    waves: tuple[tuple[float, int], ...]
    scale: Logarithm

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        return np.stack([self._once(values, int(origin), steps) for origin in origins])

    def _once(self, values: Array, origin: int, steps: int) -> Array:
        first = max(origin - LONGEST_FIT, 0)
        known = self.scale.into(values[first:origin])
        state = self.model.model(known, fourier(self.waves, first, origin - first)).filter(self.params)
        ahead = state.forecast(steps, exog=fourier(self.waves, origin, steps))
        return self.scale.back(np.asarray(ahead, dtype=np.float64))
