"""CPU time of one decision, with a forecast of an hour in minutes at many levels."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.report import Row
from forecasting.policy import Bounds, Capacity, Load, LoadForecast, Memory, PolicySettings, ScalingInput, plan

CALLS = 2000
GOAL_MS = 5.0


def rows() -> list[Row]:
    """Median and 99th percentile of single calls."""
    levels = tuple(at / 20 for at in range(1, 20))
    values = tuple(tuple(4000.0 + 10 * at + 40 * level for level in levels) for at in range(60))
    memory = Memory(0.0, tuple((990.0 + at, 20 - at) for at in range(10)), 0.0, 1000.0)
    given = ScalingInput(
        now_s=1000.0,
        bounds=Bounds(1, 50),
        current=5,
        ready=5,
        load=Load(8.0, 3000.0, 1200.0, 90.0, 3.0, 0.4, 15.0),
        forecast=LoadForecast(1000.0, 60.0, levels, values),
        capacity=Capacity(900.0, 40.0),
        lead_time_s=480.0,
        settings=PolicySettings(),
        memory=memory,
    )
    taken_ms = sorted(_timed_ms(given) for _ in range(CALLS))
    name = "one decision for one service"
    return [
        Row(name, "median, CPU time", "ms", median(taken_ms), goal=GOAL_MS),
        Row(name, "99th percentile, CPU time", "ms", taken_ms[int(0.99 * CALLS)], goal=GOAL_MS),
    ]


def _timed_ms(given: ScalingInput) -> float:
    start_s = time.thread_time()
    plan(given)
    return 1e3 * (time.thread_time() - start_s)
