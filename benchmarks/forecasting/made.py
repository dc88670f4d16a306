"""Self-made data, for a run without any data set and for the speed of a fleet. Seeded: the same in every run."""

from __future__ import annotations

import numpy as np

from benchmarks.forecasting.data import M4Series, NabFile
from forecasting.series import Array, Series

STEP_S = 600.0
DAY = 144


def service(index: int, days: int = 14) -> Series:
    """A service with days and weeks, bursts, a slow trend and a few gaps."""
    rng = np.random.default_rng(index)
    at = np.arange(days * DAY)
    day = 1 + rng.uniform(0.1, 0.8) * np.sin(2 * np.pi * at / DAY + rng.uniform(0, 6))
    week = 1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * at / (7 * DAY))
    drift = np.exp(np.cumsum(rng.standard_normal(len(at))) * 0.01)
    values = rng.uniform(1, 200) * day * week * drift * rng.gamma(20, 1 / 20, len(at))
    values[rng.random(len(at)) < 0.01] = np.nan
    return Series(0.0, STEP_S, values, f"service-{index:04d}")


def hourly(count: int) -> list[M4Series]:
    found = []
    for index in range(count):
        values = _hourly(index)
        found.append(M4Series(f"made-{index}", values[:-48], values[-48:]))
    return found


def _hourly(index: int) -> Array:
    rng = np.random.default_rng(1000 + index)
    at = np.arange(700 + 48)
    wave = 1 + 0.4 * np.sin(2 * np.pi * at / 24) + 0.2 * np.sin(2 * np.pi * at / 168)
    return np.asarray(rng.uniform(10, 1000) * wave * np.exp(0.05 * rng.standard_normal(len(at))), dtype=np.float64)


def watched(count: int) -> list[NabFile]:
    """Metrics of four days at five minutes, each with one jump."""
    found = []
    for index in range(count):
        rng = np.random.default_rng(2000 + index)
        values = 50 + 20 * np.sin(2 * np.pi * np.arange(4 * 288) / 288) + rng.standard_normal(4 * 288)
        begin = int(rng.integers(600, 1000))
        values[begin : begin + 20] += 45
        found.append(NabFile(f"made/{index}.csv", 300.0, 4.0, values, ((begin - 20, begin + 60),)))
    return found
