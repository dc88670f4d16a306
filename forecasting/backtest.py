"""What the forecasters would have said: forecasts from many moments of a history, with parameters learned before them.

A forecast of a block of moments uses only what was observed before the block; the parameters are learned again for each
block. A model that could not have been fitted yet said nothing (NaN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.models.base import Model, Origins
from forecasting.series import Array, Series


@dataclass(frozen=True, slots=True, eq=False)
class Backtest:
    """forecasts: (models, origins, steps), ≥ 0, NaN where a model said nothing. actual: (origins, steps), NaN where it
    is unknown."""

    names: tuple[str, ...]
    origins: Origins
    forecasts: Array
    actual: Array

    @property
    def absolute_errors(self) -> Array:
        """(models, origins, steps)"""
        return np.abs(self.forecasts - self.actual[None])


def origins_for(n: int, first: int, every: int, last: int | None = None) -> Origins:
    """Moments of a rolling backtest, counted back from the latest: … , last - every, last, none before `first`.

    last: the number of observations at the latest moment; `n` - 1 where not given, which leaves one value to compare.
    """
    if every < 1:
        raise BadSetting(f"A backtest every {every} steps was asked; at least 1 is allowed.")
    latest = n - 1 if last is None else min(last, n - 1)
    return np.arange(latest, max(first, 1) - 1, -every, dtype=np.int64)[::-1]


def backtest(models: Sequence[Model], series: Series, origins: Origins, steps: int, refits: int = 1) -> Backtest:
    """Roll each model over the origins, its parameters learned `refits` times. origins: rising, at least one."""
    if not len(origins):
        raise BadSetting(f"Backtest of '{series.name}': no origins; the history of {len(series)} steps is too short.")
    forecasts = np.stack([rolled(model, series, origins, steps, refits) for model in models])
    return Backtest(tuple(m.name for m in models), origins, forecasts, actual_after(series.values, origins, steps))


def rolled(model: Model, series: Series, origins: Origins, steps: int, refits: int) -> Array:
    """(origins, steps) of one model."""
    parts = []
    for block in np.array_split(origins, min(refits, len(origins))):
        known = series.first(int(block[0]))
        try:
            fitted = model.fit(known)
        except HistoryTooShort:
            parts.append(np.full((len(block), steps), np.nan))
            continue
        parts.append(np.maximum(fitted.forecast(series.values, block, steps), 0.0))
    return np.concatenate(parts)


def actual_after(values: Array, origins: Origins, steps: int) -> Array:
    """(origins, steps) what came after each origin; NaN in gaps and after the end."""
    padded = np.concatenate([values, np.full(steps, np.nan)])
    return np.asarray(padded[origins[:, None] + np.arange(steps)[None, :]], dtype=np.float64)
