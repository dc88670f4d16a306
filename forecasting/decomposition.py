"""Load = Trend + Seasonal + Residual, as values that can be plotted and that sum to the load.

By MSTL (Bandara, Hyndman, Bergmeir 2021) of statsmodels; gaps are filled for it, and are gaps again in what comes out:
a trend and a season are known there, a residual is not. It looks at the past and the future of a moment, so it explains
and does not forecast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from statsmodels.tsa.seasonal import MSTL, STL

from forecasting.errors import HistoryTooShort
from forecasting.gaps import filled
from forecasting.series import DAY_S, WEEK_S, Array, Series

PERIODS_NEEDED = 2


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """Each (n,), on the steps of `series`. seasonal: one array a period, in the order of `periods_s`."""

    series: Series
    trend: Array
    seasonal: tuple[Array, ...]
    periods_s: tuple[float, ...]
    residual: Array
    """NaN where the load is."""

    @property
    def season(self) -> Array:
        """The sum over the periods."""
        return np.asarray(np.sum(self.seasonal, axis=0), dtype=np.float64)

    @property
    def seasonal_strength(self) -> float:
        """From 0 (none) to 1: 1 - Var(residual) / Var(season + residual) (Hyndman and Athanasopoulos, FPP3, 4.3)."""
        both = float(np.nanvar(self.season + self.residual))
        return max(0.0, 1 - float(np.nanvar(self.residual)) / both) if both > 0 else 0.0

    def explain(self, at: int) -> str:
        """`182.0 = trend 150.2 + day 20.1 + week 4.0 + residual 7.7`"""
        names = {DAY_S: "day", WEEK_S: "week"}
        parts = [f"trend {self.trend[at]:.4g}"]
        parts += [
            f"{names.get(period, f'{period:g} s')} {part[at]:.4g}"
            for period, part in zip(self.periods_s, self.seasonal, strict=True)
        ]
        if np.isnan(self.series.values[at]):
            return f"no measurement; {' + '.join(parts)} was expected"
        return f"{self.series.values[at]:.4g} = {' + '.join([*parts, f'residual {self.residual[at]:.4g}'])}"


def decompose(series: Series, periods_s: tuple[float, ...] = (DAY_S, WEEK_S), *, robust: bool = False) -> Decomposition:
    """By those of the periods that the steps divide and of which the history holds two.

    Raises: HistoryTooShort where none is left.
    """
    usable = {period: series.steps_in(period) for period in periods_s}
    steps = {s: n for s, n in usable.items() if n is not None and n >= 2 and PERIODS_NEEDED * n < len(series)}
    if not steps or not series.n_observed:
        raise HistoryTooShort(
            f"Decomposition of '{series.name}': {len(series)} steps of {series.step_s:g} s,"
            f" {series.n_observed} observed, hold no two periods of {', '.join(f'{p:g} s' for p in periods_s)}."
        )
    values = filled(series.values, min(steps.values()))
    trend, seasonal = _fitted(values, sorted(steps.values()), robust)
    return Decomposition(series, trend, seasonal, tuple(sorted(steps)), series.values - trend - sum(seasonal))


def _fitted(values: Array, periods: list[int], robust: bool) -> tuple[Array, tuple[Array, ...]]:
    if len(periods) == 1:
        one = STL(values, period=periods[0], robust=robust).fit()
        return np.asarray(one.trend, dtype=np.float64), (np.asarray(one.seasonal, dtype=np.float64),)
    found = MSTL(values, periods=periods, stl_kwargs={"robust": robust}).fit()
    seasonal = np.asarray(found.seasonal, dtype=np.float64).reshape(len(values), -1)
    return np.asarray(found.trend, dtype=np.float64), tuple(seasonal[:, at] for at in range(len(periods)))
