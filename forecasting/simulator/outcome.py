"""What a run was worth: joint attainment, latencies, the worst ten minutes, GPU-hours, scale events, dollars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.simulator.requests import Floats, Requests
from forecasting.simulator.world import Slo

WORST_WINDOW_S = 600.0
_SPEAKS = 0.1
"""Of the mean requests of ten minutes; ten minutes with fewer say little."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. attainment: share of requests that met TTFT and TPOT; those that did not finish met neither.

    worst_window: attainment of the worst ten minutes that carry enough requests to speak of. The 99th percentiles are
    None where the simulation knew no single requests.
    """

    requests: float
    finished: float
    attainment: float
    worst_window: float
    ttft_p99_s: float | None
    tpot_p99_s: float | None
    gpu_hours: float
    scale_ups: int
    scale_downs: int
    mean_replicas: float
    peak_replicas: int


def met(requests: Requests, first_s: Floats, done_s: Floats, slo: Slo) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) whether each request met both targets. NaN times are of requests that did not get so far."""
    ttft = first_s - requests.arrival_s
    tpot = tpot_s(requests, first_s, done_s)
    with np.errstate(invalid="ignore"):
        good: np.ndarray[tuple[int], np.dtype[np.bool_]] = (ttft <= slo.ttft_s) & (tpot <= slo.tpot_s)
    return good


def tpot_s(requests: Requests, first_s: Floats, done_s: Floats) -> Floats:
    """(n,) mean seconds of a token after the first; 0 where there is one token only, NaN where it did not finish."""
    further = np.maximum(requests.output_tokens - 1, 1)
    return (done_s - first_s) / further


def worst_window(arrival_s: Floats, good: Floats, duration_s: float) -> float:
    """The lowest attainment of any ten minutes that carry enough requests to speak of; 1 without requests."""
    if not len(arrival_s):
        return 1.0
    windows = int(np.ceil(duration_s / WORST_WINDOW_S)) or 1
    at = np.minimum((arrival_s / WORST_WINDOW_S).astype(np.int64), windows - 1)
    count = np.bincount(at, minlength=windows)
    kept = np.bincount(at, weights=good.astype(np.float64), minlength=windows)
    return worst_of(count.astype(np.float64), kept.astype(np.float64))


def worst_of(count: Floats, good: Floats) -> float:
    """The same out of counts per window."""
    if not count.sum():
        return 1.0
    enough = count >= max(min(10.0, float(count.max())), _SPEAKS * float(count.mean()))
    return float((good[enough] / count[enough]).min())
