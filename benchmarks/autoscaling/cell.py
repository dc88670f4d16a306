"""The cells of the study: a workload under cold-start regimes. Tune on its tuning days, test on its test days.

From each family's grid those settings are tested that were cheapest for an attainment on the tuning days; the test days
are looked at once. A cell that is done is kept as JSON, and what is under way every five minutes, so that a run may be
interrupted.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.autoscaling.families import Context, Setting, all_settings
from benchmarks.autoscaling.pareto import Point
from benchmarks.autoscaling.workloads import DAY_S, Workload, cache_folder
from benchmarks.report import commit
from cli.kept import Saver, restored
from controllers.plans.capacity import lead_time_s
from forecasting import near
from forecasting.simulator.arrivals import SecondArrivals
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.autoscalers.foretold import OperatorForecasts, counts_of
from forecasting.simulator.many import Batch, Run
from forecasting.simulator.oracle import (
    CANDIDATES,
    PRICES,
    Clairvoyant,
    best_schedules,
    lower_bound_gpu_hours,
    search,
)
from forecasting.simulator.outcome import Outcome
from forecasting.simulator.record import record_of
from forecasting.simulator.requests import Ints
from forecasting.simulator.world import World
from forecasting.standing import Schedule

TUNED_FOR = (0.98, 0.985, 0.99, 0.993, 0.996, 0.999)
CHOSEN_FOR = 0.993
"""The attainment on the tuning days that a user who is promised 99 % would tune for."""
SAVE_EVERY_S = 300.0
COMMITTED = re.compile("[0-9a-f]+")
"""What `commit` says of a checkout that is as it was committed."""
Progress = Callable[[str, float], None]
Tuned = dict[str, tuple[list[str], str]]


@dataclass(frozen=True, slots=True)
class Cell:
    """What came out. lower and upper bound in GPU-hours over the test time (mean of the seeds); chosen: each family's
    label that was tuned for CHOSEN_FOR."""

    workload: str
    cold_start_s: float
    seeds: int
    test_days: float
    tune_days: float
    requests: float
    mean_replicas: float
    lower_bound: float
    upper_bound: float | None
    upper_attainment: float | None
    points: tuple[Point, ...]
    chosen: dict[str, str]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Cell:
        raw = json.loads(path.read_text(encoding="utf-8"))
        points = tuple(Point(**{**each, "days": tuple(map(tuple, each["days"]))}) for each in raw["points"])
        return cls(**{**raw, "points": points})


@dataclass(frozen=True, slots=True)
class Bounds:
    """The oracles, in GPU-hours; attained: by the upper one."""

    lower: float
    upper: float | None
    attained: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of a cell is done: seeds of the test, whether grids are whole, how many test settings a family."""

    seeds: int = 2
    full: bool = True


def run_cells(
    workload: Workload, worlds: Sequence[World], sizing: Sizing, plan: Plan, progress: Progress
) -> list[Cell]:
    """Tune, test, and ask the oracles; the regimes run side by side, which costs little more than one."""
    tuned = _tuned(workload, worlds, sizing, plan, progress)
    tested, requests = _tested(workload, worlds, sizing, plan, tuned, progress)
    bounds = _bounds(workload, worlds, sizing, plan, progress)
    found = zip(worlds, tuned, tested, bounds, strict=True)
    return [_cell(workload, world, plan, requests, labels, points, oracle) for world, labels, points, oracle in found]


def run_families(
    workload: Workload,
    worlds: Sequence[World],
    sizing: Sizing,
    plan: Plan,
    progress: Progress,
    families: Collection[str],
    cells: Sequence[Cell],
) -> list[Cell]:
    """Cells that are done, with these families tuned and tested anew: what the others gave does not depend on them."""
    tuned = _tuned(workload, worlds, sizing, plan, progress, families)
    tested, _ = _tested(workload, worlds, sizing, plan, tuned, progress)
    found = zip(cells, tuned, tested, strict=True)
    return [_renewed(cell, families, labels, points) for cell, labels, points in found]


def _renewed(cell: Cell, families: Collection[str], tuned: Tuned, points: Sequence[Point]) -> Cell:
    kept = [point for point in cell.points if point.family not in families]
    return replace(cell, points=(*kept, *points), chosen={**cell.chosen, **_chosen(tuned)})


def _chosen(tuned: Tuned) -> dict[str, str]:
    return {family: label for family, (_, label) in tuned.items()}


def _cell(
    workload: Workload, world: World, plan: Plan, requests: float, tuned: Tuned, points: list[Point], bounds: Bounds
) -> Cell:
    test_s = workload.test[1] - workload.test[0]
    return Cell(
        workload.name,
        world.cold_start.load_s,
        plan.seeds,
        test_s / DAY_S,
        (workload.tune[1] - workload.tune[0]) / DAY_S,
        requests,
        bounds.lower * 3600 / test_s,
        bounds.lower,
        bounds.upper,
        bounds.attained,
        tuple(points),
        _chosen(tuned),
    )


def _contexts(
    whole: SecondArrivals,
    span: tuple[int, int],
    worlds: Sequence[World],
    sizing: Sizing,
    progress: Callable[[float], None],
) -> list[Context]:
    """Of each world in the seconds of `span`; what was before is known."""
    start, end = span
    past, part = whole.between(0, start) if start else None, whole.between(start, end)
    foretold = _foretold(whole, span, worlds, sizing, progress)
    return [Context(world, sizing, record_of(past, part, world.metrics_lag_s), foretold) for world in worlds]


def _foretold(
    whole: SecondArrivals,
    span: tuple[int, int],
    worlds: Sequence[World],
    sizing: Sizing,
    progress: Callable[[float], None],
) -> OperatorForecasts:
    """The operator's, for the longest lead time: forecasts for a shorter one are their beginning. Kept like a run."""
    (start, end), lead_s = span, lead_time_s([world.cold_start.p95_s() for world in worlds])
    known = whole.between(0, end)
    path, found = _kept(f"{span} {lead_s} {sizing}", [known], "forecast")
    if not isinstance(found, OperatorForecasts):
        counts, minutes = (counts_of(known, None, 0.0, step_s) for step_s in (Schedule().step_s, near.STEP_S))
        found = OperatorForecasts(counts, minutes, sizing.input_weight, lead_s, float(start), float(end - start))
    saver = Saver(path, found, progress, SAVE_EVERY_S)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the operator: what a fit finds odd is in its intervals
        found.run(saver)
    saver.save()
    return found


def _start_replicas(part: SecondArrivals, sizing: Sizing) -> int:
    """All begin with room for the first ten minutes; nobody is judged by how the run was cut."""
    return max(int(np.ceil(1.3 * part.counts[:600].mean() / sizing.requests_per_s)), 1)


def _tuned(
    workload: Workload,
    worlds: Sequence[World],
    sizing: Sizing,
    plan: Plan,
    progress: Progress,
    families: Collection[str] | None = None,
) -> list[Tuned]:
    """For each world and family the labels to test, and the one chosen; `families` if not all."""
    # Another seed than those of the test: nobody tunes on the noise that is tested.
    whole = workload.make(1000)
    part = whole.between(*workload.tune)
    contexts = _contexts(whole, workload.tune, worlds, sizing, lambda share: progress("forecasts to tune by", share))
    grids = [
        [each for each in all_settings(context, full=plan.full) if families is None or each.family in families]
        for context in contexts
    ]
    runs = [
        Run(world, setting.make(), 1000, _start_replicas(part, sizing))
        for world, grid in zip(worlds, grids, strict=True)
        for setting in grid
    ]
    labels = [f"{setting.family}: {setting.label}" for grid in grids for setting in grid]
    outcomes = iter(_ran(runs, labels, [part], lambda share: progress("tune", share))[1])
    return [_best([(setting, next(outcomes)) for setting in grid]) for grid in grids]


def _ran(
    runs: Sequence[Run], labels: Sequence[str], parts: Sequence[SecondArrivals], progress: Callable[[float], None]
) -> tuple[Batch, list[Outcome]]:
    """From where an interrupted run was kept."""
    said = f"{labels} {[(run.world, run.seed, run.replicas, run.arrivals) for run in runs]}"
    path, found = _kept(said, parts, "state")
    batch = found if isinstance(found, Batch) else Batch(runs, parts)
    outcomes = batch.run(Saver(path, batch, progress, SAVE_EVERY_S))
    path.unlink(missing_ok=True)
    return batch, outcomes


def _kept(said: str, parts: Sequence[SecondArrivals], suffix: str) -> tuple[Path, object]:
    """Where the state of such a computation is kept, and what was by the same commit; edited code begins anew."""
    at = commit()
    key = hashlib.sha256(f"{at} {said}".encode())
    for part in parts:
        key.update(part.counts.tobytes() + part.inputs.tobytes())
    path = cache_folder() / "interrupted" / f"{key.hexdigest()[:16]}.{suffix}"
    return path, restored(path) if COMMITTED.fullmatch(at) else None


def _best(tried: Sequence[tuple[Setting, Outcome]]) -> Tuned:
    found: Tuned = {}
    for family in dict.fromkeys(setting.family for setting, _ in tried):
        mine = [each for each in tried if each[0].family == family]
        labels = dict.fromkeys(_cheapest(mine, level) for level in TUNED_FOR)
        chosen = _cheapest(mine, CHOSEN_FOR)
        found[family] = list(dict.fromkeys([*labels, chosen])), chosen
    return found


def _cheapest(tried: Sequence[tuple[Setting, Outcome]], attainment: float) -> str:
    """The label of the cheapest setting that reaches it; of the one that comes nearest when none does."""
    reached = [(outcome.gpu_hours, setting.label) for setting, outcome in tried if outcome.attainment >= attainment]
    return min(reached)[1] if reached else max(tried, key=lambda each: each[1].attainment)[0].label


def _tested(
    workload: Workload,
    worlds: Sequence[World],
    sizing: Sizing,
    plan: Plan,
    tuned: Sequence[Tuned],
    progress: Progress,
) -> tuple[list[list[Point]], float]:
    parts, runs, labels = [], [], []
    for seed in range(plan.seeds):
        whole = workload.make(seed)
        part = whole.between(*workload.test)
        parts.append(part)
        name = f"forecasts to test by, {seed + 1} of {plan.seeds}"
        contexts = _contexts(whole, workload.test, worlds, sizing, partial(progress, name))
        for at, (world, context) in enumerate(zip(worlds, contexts, strict=True)):
            for setting in all_settings(context):
                if setting.label in tuned[at].get(setting.family, ([], ""))[0]:
                    runs.append(Run(world, setting.make(), seed, _start_replicas(part, sizing), seed))
                    labels.append((at, setting.family, setting.label))
    batch, outcomes = _ran(
        runs, [f"{family}: {label}" for _, family, label in labels], parts, lambda share: progress("test", share)
    )
    windows = batch.windows()
    points = [_points(_of_world(labels, at), outcomes, windows) for at in range(len(worlds))]
    return points, float(np.mean([part.counts.sum() for part in parts]))


def _of_world(labels: Sequence[tuple[int, str, str]], world: int) -> list[tuple[str, str] | None]:
    return [(family, label) if at == world else None for at, family, label in labels]


def _points(
    labels: Sequence[tuple[str, str] | None],
    outcomes: Sequence[Outcome],
    windows: tuple[np.ndarray, ...],
) -> list[Point]:
    """Means over the seeds; days one after the other, of all seeds. None: a run of another world."""
    points = []
    for family, label in dict.fromkeys(each for each in labels if each is not None):
        mine = [at for at, each in enumerate(labels) if each == (family, label)]
        came, good = (sum(_by_day(part[:, at]).sum() for at in mine) for part in windows[:2])
        points.append(
            Point(
                family,
                label,
                float(good / max(came, 1e-9)),
                float(np.mean([outcomes[at].gpu_hours for at in mine])),
                min(outcomes[at].worst_window for at in mine),
                float(np.mean([outcomes[at].scale_ups + outcomes[at].scale_downs for at in mine])),
                tuple(day for at in mine for day in _days(windows, at)),
            )
        )
    return points


def _days(windows: Sequence[np.ndarray], at: int) -> list[tuple[float, float, float]]:
    came, good, spent = (_by_day(part[:, at]) for part in windows)
    return [(float(g), float(c), float(s)) for g, c, s in zip(good, came, spent, strict=True)]


def _by_day(values: np.ndarray) -> np.ndarray:
    """Sums of 144 windows; a shorter trace is cut into four blocks."""
    block = 144 if len(values) >= 288 else max(len(values) // 4, 1)
    starts = np.arange(0, len(values), block)
    return np.asarray(np.add.reduceat(values, starts))


def _searched(part: SecondArrivals, world: World, sizing: Sizing) -> Ints:
    """The oracle's search knows no cold start, so the regimes of a workload share it."""
    said = f"{world.profile} {world.slo} {world.min_replicas} {world.max_replicas} {PRICES} {CANDIDATES}"
    key = hashlib.sha256(part.counts.tobytes() + part.inputs.tobytes() + said.encode()).hexdigest()[:16]
    path = cache_folder() / f"oracle-{key}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, search(part, world, sizing.requests_per_s))
    return np.asarray(np.load(path), dtype=np.int64)


def _bounds(
    workload: Workload, worlds: Sequence[World], sizing: Sizing, plan: Plan, progress: Progress
) -> list[Bounds]:
    """Means over the seeds; without an upper bound when no schedule of a seed reached the attainment."""
    lower, found = [], []
    for seed in range(plan.seeds):
        part = workload.make(seed).between(*workload.test)
        lower.append(lower_bound_gpu_hours(part, sizing.requests_per_s, worlds[0].profile.gpus))
        found.append(best_schedules(_searched(part, worlds[0], sizing), part, worlds))
        progress("oracle", (seed + 1) / plan.seeds)
    return [_mean_bounds(float(np.mean(lower)), [each[at] for each in found]) for at in range(len(worlds))]


def _mean_bounds(lower: float, found: Sequence[Clairvoyant | None]) -> Bounds:
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return Bounds(lower, None, None)
    hours, attained = ([each.gpu_hours for each in known], [each.attainment for each in known])
    return Bounds(lower, float(np.mean(hours)), float(np.mean(attained)))
