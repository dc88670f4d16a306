"""A rolling-origin test of the forecasts of one series, beside persistence and seasonal naive with intervals of theirs.

The references get split conformal quantiles of their own residuals of the week before, so that their pinball loss is of
a fair quantile. Everything said at an origin is from what was known then. No aggregation: that is for the rows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from forecasting.backtest import actual_after
from forecasting.forecast import LEVELS
from forecasting.models.base import Origins
from forecasting.models.naive import Persistence, SeasonalNaive
from forecasting.refresh import refresh
from forecasting.series import DAY_S, WEEK_S, Array, Series

INTERVALS: Final = {"80": (0.1, 0.9), "95": (0.025, 0.975), "99": (0.005, 0.995)}
PROVISIONING: Final = 0.95
"""The level that the scaling policy buys capacity for, by default."""
LONG_STEPS: Final = 36
"""Six hours of ten minutes."""
LONG_LEAD: Final = 1
"""The step from ten to twenty minutes ahead: the longest common cold start and one scrape later."""
WARM_DAYS: Final = 7


def origins_of(series: Series, how_many: int) -> Origins:
    """Evenly spread over the days after the first week, or over the second half of a shorter recording."""
    week = round(WEEK_S / series.step_s)
    first = week if len(series) > week + LONG_STEPS else len(series) // 2
    return np.unique(np.linspace(first, len(series) - 2, how_many).astype(np.int64))


def rolled(series: Series, origins: Origins) -> dict[str, Any]:
    """Of each origin, over the steps ahead: lists of sums and counts, by what they are of."""
    actual = actual_after(series.values, origins, LONG_STEPS)
    forecasts = [refresh(series.first(int(origin)), LONG_STEPS) for origin in origins]
    quantiles = np.stack([forecast.quantiles for forecast in forecasts])
    ours = quantiles[:, :, LEVELS.index(0.5)]
    provisioned = quantiles[:, :, LEVELS.index(PROVISIONING)]
    references = {
        "persistence": _reference(series, origins, None),
        "seasonal naive": _reference(series, origins, DAY_S),
    }
    out: dict[str, Any] = {
        "name": series.name,
        "origins": origins.tolist(),
        "known": (~np.isnan(actual)).sum(axis=1).tolist(),
        "load": np.nansum(actual, axis=1).tolist(),
        "error": {"ours": _error(actual, ours)},
        "pinball": {"ours": _loss(actual, provisioned)},
        "quantile_loss": _all_levels(actual, quantiles),
        "covered": {name: _covered(actual, quantiles, bounds) for name, bounds in INTERVALS.items()},
        "width": {name: _width(actual, quantiles, bounds) for name, bounds in INTERVALS.items()},
    }
    for name, (centre, upper) in references.items():
        out["error"][name] = _error(actual, centre)
        out["pinball"][name] = _loss(actual, upper)
    return out


def _reference(series: Series, origins: Origins, period_s: float | None) -> tuple[Array, Array]:
    """(origins, steps) of the forecast and of its provisioning quantile."""
    usable = (
        period_s is not None and series.steps_in(period_s) is not None and len(series) > 2 * period_s / series.step_s
    )
    model = SeasonalNaive(period_s).fit(series) if usable and period_s is not None else Persistence().fit(series)
    week = round(WEEK_S / series.step_s)
    centre = model.forecast(series.values, origins, LONG_STEPS)
    upper = np.empty_like(centre)
    for row, origin in enumerate(origins.tolist()):
        known = series.values[:origin]
        past = np.arange(max(origin - week, origin // 4, 1), origin, max(min(week, origin) // 336, 1))
        residual = actual_after(known, past, LONG_STEPS) - model.forecast(known, past, LONG_STEPS)
        counts = (~np.isnan(residual)).any(axis=0)
        room = np.nanquantile(np.where(counts, residual, 0.0), PROVISIONING, axis=0)
        upper[row] = np.maximum(centre[row] + room, 0)
    return centre, upper


def _error(actual: Array, forecast: Array) -> list[float]:
    return [float(one) for one in np.nansum(np.abs(actual - forecast), axis=1)]


def _loss(actual: Array, quantile: Array) -> list[float]:
    """At the lead only; 0 where nothing was measured then."""
    above = (actual - quantile)[:, LONG_LEAD]
    return [float(one) for one in np.nan_to_num(np.maximum(PROVISIONING * above, (PROVISIONING - 1) * above))]


def _all_levels(actual: Array, quantiles: Array) -> list[float]:
    """Twice the mean pinball loss over all levels, summed over the steps."""
    levels = np.asarray(LEVELS)
    above = actual[:, :, None] - quantiles
    return [float(one) for one in np.nansum(2 * np.maximum(levels * above, (levels - 1) * above).mean(axis=2), axis=1)]


def _covered(actual: Array, quantiles: Array, bounds: tuple[float, float]) -> list[int]:
    low, high = (quantiles[:, :, LEVELS.index(level)] for level in bounds)
    return [int(one) for one in ((actual >= low) & (actual <= high)).sum(axis=1)]


def _width(actual: Array, quantiles: Array, bounds: tuple[float, float]) -> list[float]:
    low, high = (quantiles[:, :, LEVELS.index(level)] for level in bounds)
    return [float(one) for one in np.where(np.isnan(actual), 0.0, high - low).sum(axis=1)]
