"""Made-up loads for the tests of forecasting."""

from __future__ import annotations

import numpy as np

from forecasting.series import DAY_S, Array, Series

STEP_S = 600.0
DAY = int(DAY_S / STEP_S)


def daily(days: float, *, level: float = 100.0, swing: float = 40.0, noise: float = 0.05, seed: int = 0) -> Array:
    """A sine of a day around a level, with multiplicative noise."""
    at = np.arange(int(days * DAY))
    clean = level + swing * np.sin(2 * np.pi * at / DAY)
    return np.asarray(clean * np.exp(noise * np.random.default_rng(seed).standard_normal(len(at))), dtype=np.float64)


def series(values: Array, step_s: float = STEP_S) -> Series:
    return Series(0.0, step_s, values, "api")


def with_gaps(values: Array, share: float, seed: int = 1) -> Array:
    holes = np.random.default_rng(seed).random(len(values)) < share
    return np.where(holes, np.nan, values)
