"""Quantiles of the load some minutes ahead, from how loads grew before: what the lead time of a scale-up needs.

A few minutes ahead the present level is the best point forecast, and what matters is how far above it the load may be.
For each step ahead the growth of the logarithm is regressed on its momentum and on its growth a day and a week before;
the residuals are the quantiles. Learning takes milliseconds and may be done hourly; a forecast takes microseconds and
may be made for every decision. For hours and days ahead use `refresh`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.series import DAY_S, WEEK_S, Array

Steps = npt.NDArray[np.int64]

LEVELS: Final = (0.5, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999)
LEVEL_STEPS: Final = 3
MOMENTUM_STEPS: Final = 10
RIDGE: Final = 30.0
"""In rows: as strong as so many rows that say that nothing grows."""
LEAST_ROWS: Final = 60
UNIT_SHARE: Final = 0.01
"""Part of the mean load that is added before the logarithm, which has none of an empty load."""


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """logs: (n,) log of each step's load; level: (n,) log of the mean of the last LEVEL_STEPS. NaN where unknown."""

    step_s: float
    unit: float
    logs: Array
    level: Array


def levels_of(values: Array, step_s: float, unit: float | None = None) -> Levels:
    """Of loads at even steps, NaN where there is a gap. `unit` of an earlier call keeps two calls comparable.

    Raises:
        HistoryTooShort: nothing was observed.
    """
    if unit is None:
        if np.isnan(values).all():
            raise HistoryTooShort("Growth: no load was observed; one step is needed.")
        unit = max(UNIT_SHARE * float(np.nanmean(values)), 1e-9)
    padded = np.concatenate([np.full(LEVEL_STEPS - 1, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, LEVEL_STEPS)
    count = np.count_nonzero(~np.isnan(windows), axis=1)
    mean = np.where(count > 0, np.nansum(windows, axis=1) / np.maximum(count, 1), np.nan)
    return Levels(step_s, unit, np.log(values + unit), np.log(mean + unit))


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """weights: (steps, 3) of momentum, yesterday and last week; residuals: (steps, levels) of the log growth."""

    weights: Array
    residuals: Array

    def quantiles(self, levels: Levels, at: int) -> Array:
        """(steps, LEVELS) of the load in the steps after step `at`; nothing after `at` is read.

        Raises:
            BadSetting: the level at that step is not known.
        """
        if np.isnan(levels.level[at]):
            raise BadSetting("Growth: the newest loads are gaps; there is no level to grow from.")
        ahead = np.arange(1, len(self.weights) + 1)
        features = _features(levels, np.full(len(ahead), at), ahead)
        centre = levels.level[at] + (self.weights * features).sum(axis=1)
        grown: Array = np.exp(centre[:, None] + self.residuals)
        return np.maximum(grown - levels.unit, 0.0)


def learn(levels: Levels, until: int, steps: int, window_s: float = WEEK_S) -> Growth:
    """From the `window_s` before step `until`; nothing from that step on is read.

    Raises:
        HistoryTooShort: fewer than LEAST_ROWS steps can be learned from.
    """
    first = max(until - round(window_s / levels.step_s), MOMENTUM_STEPS)
    weights, residuals = [], []
    for ahead in range(1, steps + 1):
        rows = np.arange(first, max(until - ahead, first))
        target = levels.logs[rows + ahead] - levels.level[rows]
        features = _features(levels, rows, np.full(len(rows), ahead))
        known = ~np.isnan(target)
        if np.count_nonzero(known) < LEAST_ROWS:
            raise HistoryTooShort(
                f"Growth: {np.count_nonzero(known)} steps of {levels.step_s:.0f} s are known;"
                f" {LEAST_ROWS} are needed. Scale by the measured load until then."
            )
        target, features = target[known], features[known]
        gram = features.T @ features + RIDGE * np.eye(features.shape[1]) * max(float(features.var()), 1e-9)
        weight = np.linalg.solve(gram, features.T @ target)
        weights.append(weight)
        residuals.append(np.quantile(target - features @ weight, LEVELS))
    return Growth(np.array(weights), np.array(residuals))


def _features(levels: Levels, at: Steps, ahead: Steps) -> Array:
    """(rows, 3), 0 where the past does not reach."""
    columns = [levels.level[at] - levels.level[np.maximum(at - MOMENTUM_STEPS, 0)]]
    for season_s in (DAY_S, WEEK_S):
        before = at - round(season_s / levels.step_s)
        # The level is a mean of the steps up to it, so one step later is centred on the target.
        then = np.minimum(before + ahead + 1, at)
        grown = levels.level[np.maximum(then, 0)] - levels.level[np.maximum(before, 0)]
        columns.append(np.where(before >= 0, grown, 0.0))
    return np.nan_to_num(np.stack(columns, axis=1))
