"""How good a forecast was: errors, quantile losses, coverage, width, and skill beside another forecast.

All take arrays of one shape and leave out what was not observed (NaN). Formulas: Hyndman and Koehler 2006 (MASE),
Makridakis et al. 2020 (sMAPE of the M4), Gneiting and Raftery 2007 (pinball loss).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.errors import BadSetting
from forecasting.series import Array


def mase(history: Array, actual: Array, forecast: Array, period: int) -> float:
    """Mean absolute error ÷ that of the seasonal naive forecast within the history; NaN where that is 0."""
    within = np.nanmean(np.abs(history[period:] - history[:-period])) if len(history) > period else np.nan
    return float(np.nanmean(np.abs(actual - forecast)) / within) if within > 0 else float("nan")


def smape(actual: Array, forecast: Array) -> float:
    """Percent: the mean of 200 |y - f| / (|y| + |f|), 0 where both are 0."""
    size = np.abs(actual) + np.abs(forecast)
    return float(200 * np.nanmean(np.abs(actual - forecast) / np.where(size > 0, size, 1.0)))


def wape(actual: Array, forecast: Array) -> float:
    """Sum of absolute errors ÷ sum of loads; NaN where there was no load."""
    total = np.nansum(np.where(np.isnan(forecast), np.nan, actual))
    return float(np.nansum(np.abs(actual - forecast)) / total) if total > 0 else float("nan")


def pinball(actual: Array, quantile: Array, level: float) -> float:
    """Mean of level × (y - q) where y is above q, (1 - level) × (q - y) where it is below."""
    above = actual - quantile
    return float(np.nanmean(np.maximum(level * above, (level - 1) * above)))


def weighted_quantile_loss(actual: Array, quantiles: Array, levels: tuple[float, ...]) -> float:
    """Twice the pinball loss, summed, ÷ the sum of loads; mean over the levels. quantiles: actual's shape × levels."""
    said = ~np.isnan(actual)
    total = float(actual[said].sum())
    if total <= 0:
        return float("nan")
    losses = [pinball(actual[said], quantiles[said][..., at], level) for at, level in enumerate(levels)]
    return 2 * float(np.mean(losses)) * int(said.sum()) / total


def coverage(actual: Array, lower: Array, upper: Array) -> float:
    """The share of what was observed that lies between the bounds, ends included."""
    said = ~np.isnan(actual)
    return float(np.mean((actual[said] >= lower[said]) & (actual[said] <= upper[said]))) if said.any() else float("nan")


@dataclass(frozen=True, slots=True)
class Skill:
    """1 - loss / loss of the reference, with the bounds of its bootstrap interval. Above 0 is better."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.lower:+.3f} to {self.upper:+.3f})"


def skill(losses: Array, reference: Array, rng: np.random.Generator, level: float = 0.95, draws: int = 1000) -> Skill:
    """Skill over independent blocks (a series, a day), resampled in pairs. losses, reference: (blocks,) ≥ 0.

    Raises: BadSetting where there are no blocks or their numbers differ.
    """
    if losses.shape != reference.shape or losses.ndim != 1 or not len(losses):
        raise BadSetting(f"Skill: {losses.shape} losses and {reference.shape} of the reference; give one pair a block.")
    drawn = rng.integers(0, len(losses), size=(draws, len(losses)))
    sums = losses[drawn].sum(axis=1), reference[drawn].sum(axis=1)
    found = 1 - sums[0] / np.maximum(sums[1], 1e-300)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Skill(1 - float(losses.sum() / max(reference.sum(), 1e-300)), float(low), float(high))
