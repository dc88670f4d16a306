"""One forecast of several: each model has a weight at each horizon, from how far off it was in a rolling backtest.

    weight(model, horizon) ~ (best error / its error) ^ SHARPNESS, and 0 where its error is over CUT_OFF × the best

The errors of the horizons from half to one and a half of each are averaged first, so that weights change smoothly.
Without a backtest the median of the models speaks. What a model did not say (NaN) has no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.backtest import Backtest
from forecasting.series import Array

SHARPNESS: Final = 2.0
CUT_OFF: Final = 2.0
TINY: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """values: (models, steps), each step sums to 1. errors: (models, steps), what they came from; inf for no word."""

    names: tuple[str, ...]
    values: Array
    errors: Array

    def explain(self, step: int) -> str:
        """`0.6 lags (error 12.1) + 0.4 day before (error 14.9)`"""
        order = np.argsort(-self.values[:, step], kind="stable")
        return " + ".join(self._part(int(at), step) for at in order if self.values[at, step] >= 0.005)

    def _part(self, at: int, step: int) -> str:
        error = self.errors[at, step]
        known = f"error {error:.3g}" if np.isfinite(error) else "no outcome yet"
        return f"{self.values[at, step]:.2f} {self.names[at]} ({known})"


def weights_from(backtest: Backtest) -> Weights:
    """Raises nothing: a horizon that nothing is known about weighs all models alike."""
    errors = _smooth(_mean_error(backtest))
    best = errors.min(axis=0)
    known = np.isfinite(errors)
    ratio = np.where(known, (best + TINY) / (np.where(known, errors, 1.0) + TINY), 0.0)
    raw = np.where(ratio >= 1 / CUT_OFF, ratio**SHARPNESS, 0.0)
    raw = np.where(raw.sum(axis=0) > 0, raw, 1.0)
    return Weights(backtest.names, raw / raw.sum(axis=0), errors)


def combined(forecasts: Array, weights: Array) -> Array:
    """The weighted mean over the first axis, of those that spoke.

    forecasts: (models, …, steps), weights: (models, steps).
    """
    shape = (weights.shape[0], *([1] * (forecasts.ndim - 2)), weights.shape[1])
    spoke = ~np.isnan(forecasts)
    share = np.where(spoke, weights.reshape(shape), 0.0)
    total = share.sum(axis=0)
    mean = (share * np.where(spoke, forecasts, 0.0)).sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, mean, median(forecasts))


def median(forecasts: Array | Sequence[Array]) -> Array:
    """The median over the first axis, of those that spoke; NaN where none did."""
    ordered = np.sort(np.asarray(forecasts), axis=0)
    spoke = (~np.isnan(ordered)).sum(axis=0)
    lower, upper = np.maximum(spoke - 1, 0) // 2, spoke // 2
    upper = np.minimum(upper, len(ordered) - 1)
    ends = [np.take_along_axis(ordered, at[None], axis=0)[0] for at in (lower, upper)]
    return np.asarray(np.where(spoke > 0, (ends[0] + ends[1]) / 2, np.nan), dtype=np.float64)


def _mean_error(backtest: Backtest) -> Array:
    errors = backtest.absolute_errors
    counts = (~np.isnan(errors)).sum(axis=1)
    return np.where(counts > 0, np.nansum(errors, axis=1) / np.maximum(counts, 1), np.inf)


def _smooth(errors: Array) -> Array:
    """A running mean over the horizons that are known."""
    index = np.arange(errors.shape[1])
    reach = (index + 1) // 2
    known = np.isfinite(errors)
    out = np.full_like(errors, np.inf)
    for row in np.flatnonzero(known.any(axis=1)):
        sums = np.concatenate([[0.0], np.cumsum(np.where(known[row], errors[row], 0.0))])
        seen = np.concatenate([[0], np.cumsum(known[row])])
        low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, errors.shape[1])
        n = seen[high] - seen[low]
        out[row] = np.where(n > 0, (sums[high] - sums[low]) / np.maximum(n, 1), np.inf)
    return out
