"""The forecasts that every other one has to beat: the last value, and the value of a day or a week ago.

They skip gaps and need one observation; a season needs as many as half a period has steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.gaps import carried
from forecasting.models.base import Origins, period_steps, require
from forecasting.series import DAY_S, WEEK_S, Array, Series


@dataclass(frozen=True, slots=True)
class Persistence:
    """The last observation, for ever."""

    name: str = "persistence"

    def fit(self, series: Series) -> Persistence:
        require(self, series, 1)
        return self

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        return np.repeat(_last(values, origins)[:, None], steps, axis=1)


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """The latest observation at the same phase of the period; where there is none, the last observation."""

    period_s: float = DAY_S

    @property
    def name(self) -> str:
        known = {DAY_S: "day before", WEEK_S: "week before"}
        return known.get(self.period_s, f"{self.period_s:g} s before")

    def fit(self, series: Series) -> FittedSeasonalNaive:
        period = period_steps(self, series, self.period_s)
        require(self, series, max(period // 2, 1))
        return FittedSeasonalNaive(period)


@dataclass(frozen=True, slots=True)
class FittedSeasonalNaive:
    period: int

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        by_phase = _carried_by_phase(values, self.period)
        ahead = origins[:, None] + np.arange(steps)[None, :]
        periods_back = np.ceil((ahead + 1 - origins[:, None]) / self.period).astype(np.int64)
        source = ahead - periods_back * self.period
        found = np.where(source >= 0, by_phase[np.maximum(source, 0)], np.nan)
        return np.where(np.isnan(found), _last(values, origins)[:, None], found)


def _carried_by_phase(values: Array, period: int) -> Array:
    """Each gap holds the observation of the nearest earlier period at its phase."""
    padded = np.concatenate([values, np.full(-len(values) % period, np.nan)]).reshape(-1, period)
    seen = ~np.isnan(padded)
    source = np.maximum.accumulate(np.where(seen, np.arange(len(padded))[:, None], -1), axis=0)
    found = np.where(source >= 0, padded[np.maximum(source, 0), np.arange(period)[None, :]], np.nan)
    return found.ravel()[: len(values)]


def _last(values: Array, origins: Origins) -> Array:
    """The last observation before each origin; the first one of all where there is none before."""
    known = carried(values)
    found = known[np.maximum(origins - 1, 0)]
    return np.where(np.isnan(found), values[~np.isnan(values)][0], found)
