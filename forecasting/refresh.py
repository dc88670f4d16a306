"""From a history to a forecast with its intervals, in a fraction of a second, whatever the history is like.

    models that the history can carry → rolling backtest → weights per horizon → what the weighted forecast would have
    missed by → adaptive conformal quantiles → models fitted on everything, weighed, with those quantiles around them

Everything is learned anew from the history, so that a restart loses nothing. A short or odd history falls back to
persistence with wide intervals; nothing that comes out is NaN, infinite or negative. The functions are picklable, for a
pool of processes that this module does not know of.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.backtest import Backtest, actual_after, backtest, origins_for
from forecasting.ensemble import Weights, combined, median, weights_from
from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.forecast import LEVELS, Forecast
from forecasting.intervals import AdaptiveConformal, replay
from forecasting.models.base import Model, Origins
from forecasting.models.lagged import LaggedRegression
from forecasting.models.naive import Persistence, SeasonalNaive
from forecasting.models.scale import Logarithm
from forecasting.models.smoothing import Smoothing
from forecasting.series import DAY_S, WEEK_S, Array, Series

MIN_STEPS: Final = 16
"""Below this many steps there is nothing to learn from but the last value."""
CEILING: Final = 4.0
"""The highest quantile that is ever said, in multiples of the highest load observed."""


@dataclass(frozen=True, slots=True)
class RefreshSettings:
    """How much is done. backtest_s: how far back the rolling backtest goes; origins: at most so many moments of it;
    refits: how often the models learn again on the way; stages: how often the weights do."""

    backtest_s: float = WEEK_S
    origins: int = 336
    refits: int = 4
    stages: int = 12
    longest_season: int = 400
    """In steps: exponential smoothing of a longer season costs more than it gives."""


def refresh(
    series: Series, steps: int, levels: tuple[float, ...] = LEVELS, settings: RefreshSettings | None = None
) -> Forecast:
    """Quantiles of the load of the `steps` after the end of the series.

    Raises: BadSetting (steps, levels); HistoryTooShort where nothing at all was observed.
    """
    if steps < 1:
        raise BadSetting(f"Forecast of '{series.name}': {steps} steps were asked; at least 1 is allowed.")
    if not series.n_observed:
        raise HistoryTooShort(
            f"Forecast of '{series.name}': none of its {len(series)} steps is observed; one is needed."
            " Wait for the first measurement or scale by the reactive floor alone."
        )
    settings = settings or RefreshSettings()
    history = _without_leading_gaps(series)
    models = models_for(history, settings)
    origins = _origins(history, settings)
    if len(models) == 1 or not len(origins):
        return _persisted(history, steps, levels)
    return _learned(history, steps, levels, models, origins, settings)


def models_for(series: Series, settings: RefreshSettings) -> list[Model]:
    """Those that the history is long enough for; always persistence, first."""
    n = len(series)
    models: list[Model] = [Persistence()]
    if n < MIN_STEPS or series.n_observed < MIN_STEPS // 2:
        return models
    models.append(Smoothing())
    day, week = series.steps_in(DAY_S), series.steps_in(WEEK_S)
    if day and day > 1 and n > day:
        models.append(SeasonalNaive(DAY_S))
    if week and week > 1 and n > week:
        models.append(SeasonalNaive(WEEK_S))
    if day and 1 < day <= settings.longest_season and n > 3 * day:
        models.append(Smoothing.holt_winters())
    if series.n_observed > 4 * MIN_STEPS:
        models += [LaggedRegression(logarithm=False), LaggedRegression(), LaggedRegression(penalty=3e-2)]
    return models


def _without_leading_gaps(series: Series) -> Series:
    return series.last(len(series) - int(np.argmax(series.observed)))


def _origins(series: Series, settings: RefreshSettings) -> Origins:
    n = len(series)
    window = min(int(settings.backtest_s / series.step_s), 3 * n // 4)
    every = max(-(-window // settings.origins), 1)
    return origins_for(n, n - window, every) if window >= MIN_STEPS // 4 else np.zeros(0, dtype=np.int64)


def _learned(
    series: Series,
    steps: int,
    levels: tuple[float, ...],
    models: Sequence[Model],
    origins: Origins,
    settings: RefreshSettings,
) -> Forecast:
    tested = backtest(models, series, origins, steps, settings.refits)
    scale = Logarithm.of(series.values, unit_share=1.0)
    residuals = scale.into(tested.actual) - scale.into(_staged(tested, series.values, settings.stages))
    conformal = AdaptiveConformal(steps, levels, int(origins[-1] - origins[-2]) if len(origins) > 1 else 1)
    replay(conformal, residuals, origins, series.start_s, series.step_s)
    weights = weights_from(tested)
    centre = _centre(series, models, weights, steps)
    around = conformal.at(series.times_ahead_s(steps))
    quantiles = scale.back(scale.into(centre)[:, None] + around)
    message = (
        f"first step: {weights.explain(0)} = {centre[0]:.4g}; last: {weights.explain(steps - 1)} = {centre[-1]:.4g};"
        f" quantiles from {conformal.n_residuals} residuals of {len(origins)} backtests"
    )
    return _safe(series, levels, quantiles, "ensemble", message)


def _staged(tested: Backtest, values: Array, stages: int) -> Array:
    """(origins, steps) what the ensemble would have said, its weights from outcomes known by then."""
    said = []
    for block in np.array_split(np.arange(len(tested.origins)), min(stages, len(tested.origins))):
        now = int(tested.origins[block[0]])
        past = tested.origins < now
        if np.count_nonzero(past) < 4:
            said.append(median(tested.forecasts[:, block]))
            continue
        known = actual_after(values[:now], tested.origins[past], tested.actual.shape[1])
        weights = weights_from(Backtest(tested.names, tested.origins[past], tested.forecasts[:, past], known))
        said.append(combined(tested.forecasts[:, block], weights.values))
    return np.concatenate(said)


def _centre(series: Series, models: Sequence[Model], weights: Weights, steps: int) -> Array:
    """(steps,) of the models that have any weight, fitted on everything."""
    said = np.full((len(models), steps), np.nan)
    now = np.array([len(series)])
    for at, model in enumerate(models):
        if weights.values[at].max() > 0:
            with suppress(
                HistoryTooShort
            ):  # After a long gap the last steps may be too few for one that knew what was before.
                said[at] = model.fit(series).forecast(series.values, now, steps)[0]
    return combined(np.maximum(said, 0.0), weights.values)


def _persisted(series: Series, steps: int, levels: tuple[float, ...]) -> Forecast:
    last = Persistence().forecast(series.values, np.array([len(series)]), 1)[0, 0]
    scale = Logarithm.of(series.values, unit_share=1.0)
    around = AdaptiveConformal(steps, levels).at(series.times_ahead_s(steps))
    message = f"{series.n_observed} observations teach no more than the last one, {last:.4g}; wide intervals around it"
    return _safe(series, levels, scale.back(scale.into(last) + around), "persistence", message)


def _safe(series: Series, levels: tuple[float, ...], quantiles: Array, reason: str, message: str) -> Forecast:
    """Whatever the arithmetic gave: at least 0, at most CEILING × the highest load, never falling along the levels."""
    highest = CEILING * float(np.nanmax(series.values))
    bounded = np.clip(np.nan_to_num(quantiles, nan=highest, posinf=highest, neginf=0.0), 0.0, highest)
    rising = np.maximum.accumulate(bounded, axis=1)
    return Forecast(series.name, series.end_s, series.step_s, levels, rising, reason, message)
