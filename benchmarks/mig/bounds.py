"""The most that any policy could serve: each step for itself, all GPUs idle, moves and cuts free. Proven, not measured.

No policy, with whatever foresight, serves more of a step than its best layout of the whole fleet holds, and that is no
more than a linear program says in which GPUs may be cut in fractions. So where this is less than a heuristic and a
tenth, no planner can be a tenth better than the heuristic. Shares no code with the planner but the geometry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linprog

from benchmarks.mig.demand import PROFILES, Demands
from benchmarks.mig.fleet import slices
from benchmarks.mig.run import WARM_UP_STEPS
from benchmarks.report import Better, Report, Row
from controllers.plans.mig.geometry import Family
from controllers.plans.mig.layouts import layout_of, maximal_placements, slices_of

METRIC = "most that any policy could serve"
SERVED = "demand served"


def most_served(family: Family, gpus: int, workload: Demands) -> float:
    """Share of all demand of the steps that count."""
    steps = workload.steps[WARM_UP_STEPS:]
    return sum(most_slices(family, gpus, step) for step in steps) / sum(slices(step) for step in steps)


def most_slices(family: Family, gpus: int, demand: Counter[tuple[str, int]]) -> float:
    """Compute slices: as many of each profile as are wanted and as the GPUs, each in one of its layouts, give."""
    layouts = sorted({layout_of(one) for one in maximal_placements(family)})
    wanted = [sum(count for (name, _), count in demand.items() if name == profile) for profile in PROFILES]
    given = np.array([[dict(one).get(profile, 0) for one in layouts] for profile in PROFILES], dtype=float)
    # Variables: GPUs in each layout, then served slices of each profile.
    served_at_most_given = np.hstack([-given, np.eye(len(PROFILES))])
    gpus_at_most = np.array([1.0] * len(layouts) + [0.0] * len(PROFILES))
    found = linprog(
        c=[0.0] * len(layouts) + [-float(slices_of(profile)) for profile in PROFILES],
        A_ub=np.vstack([served_at_most_given, gpus_at_most]),
        b_ub=[0.0] * len(PROFILES) + [float(gpus)],
        bounds=[(0, None)] * len(layouts) + [(0, count) for count in wanted],
        method="highs",
    )
    assert found.success, found.message
    return -float(found.fun)


def bound_row(workload: Demands, most: float) -> Row:
    """Beside the rows of the workload, without a goal."""
    return Row(workload.name, METRIC, "share", round(most, 4), better=Better.HIGHER)


def with_bounds(report: Report, bounds: Sequence[Row]) -> Report:
    """The report with each bound after its workload's first row, in the place of older ones."""
    by_workload = {row.workload: row for row in bounds}
    rows: list[Row] = []
    for row in report.rows:
        if row.metric != METRIC:
            rows.append(row)
        if row.metric == SERVED and row.workload in by_workload:
            rows.append(by_workload[row.workload])
    return replace(report, rows=tuple(rows))


def out_of_reach(rows: Sequence[Row]) -> list[str]:
    """What the page says of each workload whose goal no policy could meet."""
    most = {row.workload: row.ours for row in rows if row.metric == METRIC}
    said = []
    for row in rows:
        bound = most.get(row.workload)
        if row.metric == SERVED and bound is not None and row.peer and row.goal and bound < row.goal:
            more = f"{bound / row.peer - 1:.1%}"
            said.append(
                f"{row.workload}: at most {bound:.3f}, which is {more} more than {row.peer_name}'s {row.peer:.3f}"
            )
    return said
