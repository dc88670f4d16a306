"""The most that any policy could serve: each step for itself, all GPUs idle, moves and cuts free. Proven, not measured.

No policy, with whatever foresight, serves more of a step than its best layout of the whole fleet holds, and that is no
more than a linear program says in which GPUs may be cut in fractions. So where this is less than a heuristic and a
tenth, no planner can be a tenth better than the heuristic. Shares no code with the planner but the geometry.

And the most that is left where important classes come first: of all layouts worth as much as the step's best one (the
planner's own, of idle GPUs, which its solver has proven), what the one that serves most of all demand serves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linprog

from benchmarks.mig.demand import PROFILES, Demands
from benchmarks.mig.fleet import Kind, slices
from benchmarks.mig.run import WARM_UP_STEPS
from benchmarks.report import Better, Report, Row
from controllers.plans.mig.demand import PlanSettings, Unit, Want, worth
from controllers.plans.mig.geometry import Family
from controllers.plans.mig.layouts import layout_of, maximal_placements, slices_of
from controllers.plans.mig.planner import plan_layouts

METRIC = "most that any policy could serve"
IN_ORDER = "most where important classes come first"
SERVED = "demand served"


def most_served(family: Family, gpus: int, workload: Demands) -> float:
    """Share of all demand of the steps that count."""
    steps = workload.steps[WARM_UP_STEPS:]
    return sum(most_slices(family, gpus, step) for step in steps) / sum(slices(step) for step in steps)


def most_in_order(family: Family, gpus: int, workload: Demands) -> float:
    """The same, of layouts that are worth as much as the best of their step."""
    steps = workload.steps[WARM_UP_STEPS:]
    most = (most_slices(family, gpus, step, best_worth(family, gpus, step)) for step in steps)
    return sum(most) / sum(slices(step) for step in steps)


def best_worth(family: Family, gpus: int, demand: Counter[Kind]) -> float:
    """Of the best layout of idle GPUs, less than what the solver may be wrong by."""
    idle = [Unit(str(index), {family.name: 1}, ((),)) for index in range(gpus)]
    wants = [Want(f"{name}/{priority}", name, count, priority) for (name, priority), count in sorted(demand.items())]
    plan = plan_layouts(wants, idle, {family.name: family}, PlanSettings(whole_gpus=False))
    return plan.value * (1 - 1e-6)


def most_slices(family: Family, gpus: int, demand: Counter[Kind], least_worth: float = 0.0) -> float:
    """Compute slices: as many of each profile as are wanted and as the GPUs, each in one of its layouts, give."""
    layouts = sorted({layout_of(one) for one in maximal_placements(family)})
    kinds = sorted(demand)
    given = np.array([[dict(one).get(profile, 0) for one in layouts] for profile in PROFILES], dtype=float)
    taken = np.array([[float(name == profile) for name, _ in kinds] for profile in PROFILES])
    gain = np.array([float(slices_of(name)) for name, _ in kinds])
    worths = np.array([float(worth(priority)) for _, priority in kinds])
    # Variables: GPUs in each layout, then served slices of each profile and class.
    none = np.zeros(len(layouts))
    found = linprog(
        c=np.concatenate([none, -gain]),
        A_ub=np.vstack(
            [
                np.hstack([-given, taken]),
                np.concatenate([none + 1.0, np.zeros(len(kinds))]),
                np.concatenate([none, -gain * worths]),
            ]
        ),
        b_ub=[0.0] * len(PROFILES) + [float(gpus), -least_worth],
        bounds=[(0, None)] * len(layouts) + [(0, demand[kind]) for kind in kinds],
        method="highs",
    )
    assert found.success, found.message
    return -float(found.fun)


def bounds_of(family: Family, gpus: int, workload: Demands) -> list[Row]:
    """Without goals; the second where there are classes."""
    rows = [bound_row(workload, most_served(family, gpus, workload))]
    if len({priority for step in workload.steps for _, priority in step}) > 1:
        rows.append(bound_row(workload, most_in_order(family, gpus, workload), IN_ORDER))
    return rows


def bound_row(workload: Demands, most: float, metric: str = METRIC) -> Row:
    """Beside the rows of the workload, without a goal."""
    return Row(workload.name, metric, "share", round(most, 4), better=Better.HIGHER)


def with_bounds(report: Report, bounds: Sequence[Row]) -> Report:
    """The report with the bounds after their workload's first row, in the place of older ones."""
    rows: list[Row] = []
    for row in report.rows:
        if row.metric not in (METRIC, IN_ORDER):
            rows.append(row)
        if row.metric == SERVED:
            rows += [one for one in bounds if one.workload == row.workload]
    return replace(report, rows=tuple(rows))


def out_of_reach(rows: Sequence[Row], metric: str = METRIC) -> list[str]:
    """What the page says of each workload whose goal lies beyond the bound of this name."""
    most = {row.workload: row.ours for row in rows if row.metric == metric}
    said = []
    for row in rows:
        bound = most.get(row.workload)
        if row.metric == SERVED and bound is not None and row.peer and row.goal and bound < row.goal:
            more = f"{bound / row.peer - 1:.1%}"
            said.append(
                f"{row.workload}: at most {bound:.3f}, which is {more} more than {row.peer_name}'s {row.peer:.3f}"
            )
    return said
