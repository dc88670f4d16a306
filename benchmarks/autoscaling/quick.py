"""A trace made here, for a run of a minute: two days with a daily wave and sudden bursts, lengths log-normal."""

from __future__ import annotations

import numpy as np

from benchmarks.autoscaling.workloads import Workload
from forecasting.simulator.arrivals import SecondArrivals, lengths_of
from forecasting.simulator.requests import Floats, Requests

HOURS = 16
TEST_FROM_HOUR = 12


def made_lengths(seed: int = 0) -> tuple[Floats, Floats]:
    """Input and output tokens of 5,000 requests."""
    random = np.random.default_rng((seed, 0x1E))
    inputs = np.clip(random.lognormal(6.6, 0.9, 5000), 8, 8000).round()
    outputs = np.clip(random.lognormal(4.9, 0.9, 5000), 2, 1000).round()
    return inputs, outputs


def made(seed: int, mean_rate: float) -> SecondArrivals:
    """Arrivals a second over HOURS."""
    random = np.random.default_rng((seed, 0x9A))
    inputs, outputs = made_lengths()
    seconds = HOURS * 3600
    at = np.arange(seconds)
    rate = mean_rate * (1 + 0.5 * np.sin(2 * np.pi * at / 14_400) + 0.1 * np.sin(2 * np.pi * at / 3700))
    for start in random.integers(0, seconds - 1200, 10):
        rate[start : start + 900] *= 1.5
    counts = random.poisson(rate).astype(np.float64)
    tokens = counts * inputs.mean() + random.normal(0, inputs.std(), seconds) * np.sqrt(counts)
    return SecondArrivals(counts, np.maximum(tokens, counts), lengths_of(inputs, outputs))


def workload(mean_rate: float) -> Workload:
    """Tuned on four hours, tested on the four after."""
    return Workload(
        "made-up waves and bursts",
        ((TEST_FROM_HOUR - 4) * 3600, TEST_FROM_HOUR * 3600),
        (TEST_FROM_HOUR * 3600, HOURS * 3600),
        lambda seed: made(seed, mean_rate),
        lambda span_s: sample(mean_rate, span_s),
    )


def sample(mean_rate: float, span_s: int) -> Requests:
    """Single requests of the mean rate."""
    random = np.random.default_rng(1)
    inputs, outputs = made_lengths()
    n = random.poisson(mean_rate * span_s)
    which = random.integers(0, len(inputs), n)
    times = np.sort(random.uniform(0, span_s, n))
    return Requests(times, inputs[which].astype(np.int64), outputs[which].astype(np.int64), float(span_s))
