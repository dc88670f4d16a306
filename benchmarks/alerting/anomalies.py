"""False alarms that were asked for beside those that came, on loads without any event; and what is found of events."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.report import Better, Row
from controllers.plans.alerting.readings import COARSE_S, YEAR_S
from forecasting.anomalies.scores import k_sigma
from forecasting.anomalies.usual import improbabilities
from forecasting.series import Array, Series

Flags = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
DAY = 144
DAYS = 42
WARM_UP = 14 * DAY
ASKED = 52.0
"""False alarms in a year."""


def loads(seed: int) -> dict[str, Array]:
    """(n,) requests each second of six weeks, in steps of ten minutes, without any event."""
    rng = np.random.default_rng(seed)
    at = np.arange(DAYS * DAY)
    daily = 100 + 60 * np.sin(2 * np.pi * at / DAY)
    weekly = daily * np.where((at // DAY) % 7 < 5, 1.0, 0.45)
    wandering = np.zeros(len(at))
    for now in range(1, len(at)):
        wandering[now] = 0.95 * wandering[now - 1] + rng.normal(0, 0.05)
    return {
        "even": np.maximum(100 + rng.normal(0, 8, len(at)), 0),
        "daily": np.maximum(daily * rng.lognormal(0, 0.1, len(at)), 0),
        "weekly": np.maximum(weekly * rng.lognormal(0, 0.1, len(at)), 0),
        "wandering": daily * np.exp(wandering),
        "heavy tails": np.maximum(daily + 8 * rng.standard_t(3, len(at)), 0),
        "sparse": rng.poisson(3.0 + 2.0 * np.sin(2 * np.pi * at / DAY)).astype(float),
    }


def measure(runs: int) -> list[Row]:
    """One row of false alarms and one of found events for each shape."""
    limit = math.log10(YEAR_S / COARSE_S / ASKED)
    names = list(loads(0))
    false = {name: [0, 0] for name in names}
    found = {name: [0, 0, 0] for name in names}
    steps = 0
    for seed in range(runs):
        for name, values in loads(seed).items():
            rng = np.random.default_rng(1000 + seed)
            alarms, sigmas = _alarms(values, limit)
            false[name][0] += int(alarms[WARM_UP:].sum())
            false[name][1] += int(sigmas[WARM_UP:].sum())
            events = rng.choice(np.arange(WARM_UP, len(values) - 3), 6, replace=False)
            hurt = values.copy()
            for begin in events.tolist():
                hurt[begin : begin + 3] *= 0.3 if begin % 2 else 2.5
            ours, theirs = _alarms(hurt, limit)
            found[name][0] += sum(bool(ours[begin : begin + 3].any()) for begin in events.tolist())
            found[name][1] += sum(bool(theirs[begin : begin + 3].any()) for begin in events.tolist())
            found[name][2] += len(events)
        steps += DAYS * DAY - WARM_UP
    years = steps * COARSE_S / YEAR_S
    rows = []
    for name in names:
        workload = f"calibrated anomaly, {ASKED:g} false alarms a year asked: {name} load"
        rows.append(
            Row(
                workload,
                "false alarms",
                "a year",
                false[name][0] / years,
                false[name][1] / years,
                "3 σ of a day",
                2 * ASKED,
            )
        )
        of = found[name][2]
        rows.append(
            Row(
                workload,
                "half-hour events found (×0.3, ×2.5)",
                "share",
                found[name][0] / of,
                found[name][1] / of,
                "3 σ of a day",
                None,
                Better.HIGHER,
            )
        )
    return rows


def _alarms(values: Array, limit: float) -> tuple[Flags, Flags]:
    ours = np.nan_to_num(improbabilities(Series(0.0, COARSE_S, values))) >= limit
    return ours, np.nan_to_num(k_sigma(values, DAY)) > 3.0
