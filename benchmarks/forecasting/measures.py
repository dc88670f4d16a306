"""What is measured, each as jobs that a pool of processes runs and rows that the report takes.

Every function of a job takes and returns plain values. No measure knows where its data came from.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.forecasting import made
from benchmarks.forecasting.data import M4Series, NabFile
from benchmarks.forecasting.nab_scoring import LOW_FALSE_ALARMS, LOW_MISSES, STANDARD, best, events
from benchmarks.forecasting.pieces import Job, Pieces, code_digest, digest
from benchmarks.forecasting.rolling import INTERVALS, origins_of, rolled
from benchmarks.report import Better, Row
from controllers.capacity_forecast.job import Job as PoolJob
from controllers.capacity_forecast.pool import ForecastPool
from forecasting.anomalies.detector import THRESHOLD, Detector
from forecasting.forecast import LEVELS
from forecasting.metrics import coverage, mase, skill, smape
from forecasting.models.naive import SeasonalNaive
from forecasting.refresh import refresh
from forecasting.series import Array, Series
from forecasting.standing import AHEAD_STEPS

HOUR_S: Final = 3600.0
M4_STEPS: Final = 48
GOAL_MASE: Final = 0.95
GOAL_SMAPE: Final = 11.0
GOAL_NAB: Final = 60.0
GOAL_POINTS: Final = 2.0
GOAL_FLEET_S: Final = 300.0
GOAL_FLEET_MB: Final = 1000.0
FLEET: Final = 1000


# --- M4 ---------------------------------------------------------------------------------------------------------------


def m4_piece(name: str, history: Array, actual: Array) -> dict[str, Any]:
    series = Series(0.0, HOUR_S, history, name)
    forecast = refresh(series, len(actual))
    naive = SeasonalNaive().fit(series).forecast(history, np.array([len(history)]), len(actual))[0]
    column = {level: forecast.quantiles[:, at] for at, level in enumerate(LEVELS)}
    return {
        "mase": [mase(history, actual, said, 24) for said in (forecast.median, naive)],
        "smape": [smape(actual, said) for said in (forecast.median, naive)],
        "covered": {key: coverage(actual, column[low], column[high]) for key, (low, high) in INTERVALS.items()},
    }


def m4(pieces: Pieces, series: Sequence[M4Series], workload: str) -> list[Row]:
    code = code_digest()
    jobs = [
        Job(one.name, digest([code, one.history, one.actual]), m4_piece, (one.name, one.history, one.actual))
        for one in series
    ]
    found = pieces.all("m4", jobs)
    rows = []
    for metric, goal, unit in (("mase", GOAL_MASE, "1"), ("smape", GOAL_SMAPE, "%")):
        ours, naive = (np.array([one[metric][side] for one in found], dtype=np.float64) for side in (0, 1))
        usable = np.isfinite(ours) & np.isfinite(naive)
        name = {"mase": "MASE (period 24)", "smape": "sMAPE"}[metric]
        rows.append(
            Row(workload, name, unit, _r(ours[usable].mean()), _r(naive[usable].mean()), "seasonal naive", goal)
        )
        rows += _skill_rows(workload, f"{name}, skill over seasonal naive", ours[usable], naive[usable])
    for key in INTERVALS:
        share = 100 * float(np.mean([one["covered"][key] for one in found]))
        rows.append(Row(workload, f"coverage of the {key} % interval", "%", _r(share), better=Better.HIGHER))
    return rows


# --- traces -----------------------------------------------------------------------------------------------------------


def trace_jobs(series: Sequence[Series], n_origins: int) -> list[Job]:
    code = code_digest()
    return [
        Job(one.name, digest([code, one.values, str(one.step_s), str(n_origins)]), _trace_piece, (one, n_origins))
        for one in series
    ]


def _trace_piece(series: Series, n_origins: int) -> dict[str, Any]:
    return rolled(series, origins_of(series, n_origins))


def traces(found: Sequence[dict[str, Any]], workload: str) -> list[Row]:
    """One workload's rows of the pieces of its series."""
    rows = [_wape_row(found, workload), _loss_row(found, workload)]
    for key in INTERVALS:
        share = 100 * sum(sum(one["covered"][key]) for one in found) / sum(sum(one["known"]) for one in found)
        width = float(np.median([sum(one["width"][key]) / max(sum(one["load"]), 1e-9) for one in found]))
        away = abs(share - float(key))
        rows += [
            Row(workload, f"coverage of the {key} % interval", "%", _r(share), better=Better.HIGHER),
            Row(workload, f"its distance from {key} %", "points", _r(away), goal=GOAL_POINTS),
            Row(workload, "its width ÷ mean load, median series", "1", _r(width)),
        ]
    for reference in ("seasonal naive", "persistence"):
        for what, name in (("error", "absolute error"), ("pinball", "pinball loss, p95 at the lead")):
            ours, theirs = (_by_day(found, what, side) for side in ("ours", reference))
            rows += _skill_rows(workload, f"{name}, skill over {reference}", ours, theirs)
    return rows


def _wape_row(found: Sequence[dict[str, Any]], workload: str) -> Row:
    ours, theirs = (
        float(np.mean([sum(one["error"][side]) / max(sum(one["load"]), 1e-9) for one in found]))
        for side in ("ours", "persistence")
    )
    return Row(workload, "WAPE over all steps ahead, mean of series", "1", _r(ours), _r(theirs), "persistence")


def _loss_row(found: Sequence[dict[str, Any]], workload: str) -> Row:
    loss = float(np.mean([sum(one["quantile_loss"]) / max(sum(one["load"]), 1e-9) for one in found]))
    return Row(workload, "weighted quantile loss, mean of series", "1", _r(loss))


BLOCKS: Final = 7
"""A series' origins are cut into so many blocks of time: about a day each."""


def _by_day(found: Sequence[dict[str, Any]], what: str, side: str) -> Array:
    """(series × blocks,) losses, each series' in units of its mean load so that none drowns the others."""
    blocks = []
    for one in found:
        load = max(sum(one["load"]) / max(sum(one["known"]), 1), 1e-9)
        blocks += [float(part.sum()) / load for part in np.array_split(np.array(one[what][side]), BLOCKS)]
    return np.array(blocks)


def _skill_rows(workload: str, name: str, ours: Array, theirs: Array) -> list[Row]:
    found = skill(ours, theirs, np.random.default_rng(0))
    bounds = f"{name} (95 % from {found.lower:+.3f} to {found.upper:+.3f})"
    return [Row(workload, bounds, "1", _r(found.value), better=Better.HIGHER)]


# --- anomalies --------------------------------------------------------------------------------------------------------


def nab_piece(values: Array, step_s: float) -> list[float]:
    detector = Detector(step_s)
    return [round(detector.observe(value).score, 4) for value in values.tolist()]


def nab(pieces: Pieces, files: Sequence[NabFile], workload: str) -> list[Row]:
    code = code_digest()
    jobs = [
        Job(one.name, digest([code, one.values, str(one.step_s)]), nab_piece, (one.values, one.step_s)) for one in files
    ]
    scores = [np.array(found) for found in pieces.all("nab", jobs)]
    rows = []
    for profile in (STANDARD, LOW_FALSE_ALARMS, LOW_MISSES):
        scored = best(files, scores, profile)
        goal = GOAL_NAB if profile is STANDARD else None
        rows.append(
            Row(
                workload,
                f"NAB score, {profile.name} profile",
                "of 100",
                _r(scored.score),
                goal=goal,
                better=Better.HIGHER,
            )
        )
    chosen = best(files, scores, STANDARD).threshold
    for name, threshold in (
        (f"the best threshold, {chosen:.2f}", chosen),
        (f"the default threshold, {THRESHOLD:g}", THRESHOLD),
    ):
        seen = events(files, scores, threshold)
        rows += [
            Row(
                workload, f"windows found at {name}", f"of {seen.found + seen.missed}", seen.found, better=Better.HIGHER
            ),
            Row(workload, f"event F1 at {name}", "1", _r(seen.f1), better=Better.HIGHER),
            Row(workload, f"false alarms at {name}", "a day", _r(seen.false_alarms_a_day)),
        ]
    return rows


# --- speed ------------------------------------------------------------------------------------------------------------


def speed(services: int, processes: int) -> list[Row]:
    """The operator's own pool, asked as the operator asks it. Wall time and memory are of this run alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    peak_mb = asyncio.run(_refreshed(services, processes))
    took = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    whole = services == FLEET
    workload = f"{services:,} services × 14 days at 10 min, {AHEAD_STEPS} steps ahead, {processes} processes"
    return [
        Row(workload, "all refreshed", "s", _r(took), goal=GOAL_FLEET_S if whole else None),
        Row(workload, "CPU time of all, over the processes", "s", _r(cpu_s / processes)),
        Row(workload, "CPU time a service", "ms", _r(1e3 * cpu_s / services)),
        Row(workload, "memory of all processes, peak", "MB", _r(peak_mb), goal=GOAL_FLEET_MB if whole else None),
    ]


async def _refreshed(services: int, processes: int) -> float:
    """Forecasts of all; the peaks of this process and of the pool's, in MB, together."""
    others = set(_children())
    pool, slots, children = ForecastPool(processes, timeout_s=120.0), asyncio.Semaphore(2 * processes), set[int]()

    async def one(index: int) -> None:
        async with slots:
            await pool.run(PoolJob(made.service(index), AHEAD_STEPS))
            children.update(set(_children()) - others)

    await asyncio.gather(*(one(index) for index in range(services)))
    peak_mb = sum(_peak_mb(pid) for pid in (os.getpid(), *(set(_children()) - others)))
    assert len(children) <= processes, f"{len(children)} processes were started for {processes}: some died"
    await pool.close()
    return peak_mb


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _peak_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _r(value: float) -> float:
    return float(f"{float(value):.4g}")
