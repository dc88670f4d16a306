"""Rows and words of the results, from finished cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.autoscaling.cell import CHOSEN_FOR, Cell
from benchmarks.autoscaling.families import OURS, PERFECT
from benchmarks.autoscaling.pareto import LEVELS, Point, attainment_interval, front, gpu_hours_at, ratio_interval
from benchmarks.report import Better, Row
from forecasting.capacity import capacity_of
from forecasting.profile import Profile
from forecasting.simulator.arrivals import Lengths
from forecasting.simulator.world import Slo

GOAL_RATIO = 1.15
GOAL_ATTAINMENT = 0.99


def rows_of(cell: Cell) -> list[Row]:
    """Everything that is said of one cell."""
    name = f"{cell.workload}, cold start {cell.cold_start_s:.0f} s"
    return [*_bounds(name, cell), *_chosen(name, cell), *_levels(name, cell), *_everyone(name, cell)]


def families(cell: Cell) -> list[str]:
    """All but ours and what no one can have."""
    return [each for each in dict.fromkeys(point.family for point in cell.points) if not is_ours(each)]


def is_ours(family: str) -> bool:
    return family.startswith("Foretide") or family == PERFECT


def of_family(cell: Cell, family: str) -> list[Point]:
    return [point for point in cell.points if point.family == family]


def best_baseline(cell: Cell, level: float) -> tuple[float, str] | None:
    """The fewest GPU-hours of any baseline at an attainment, and whose."""
    found = [(gpu_hours_at(of_family(cell, each), level), each) for each in families(cell)]
    return min(((hours, each) for hours, each in found if hours is not None), default=None)


def _bounds(name: str, cell: Cell) -> list[Row]:
    return [
        Row(name, "lower bound (fluid work, no cold start)", "GPU-h", cell.lower_bound),
        Row(name, "UB: clairvoyant schedule at 99 %", "GPU-h", cell.upper_bound),
    ]


def _chosen(name: str, cell: Cell) -> list[Row]:
    """The one setting that the tuning days chose: what a user would have had."""
    point = next((p for p in of_family(cell, OURS) if p.label == cell.chosen.get(OURS)), None)
    if point is None:
        return []
    low, high = attainment_interval(point)
    ratio = point.gpu_hours / cell.upper_bound if cell.upper_bound else None
    rows = [
        Row(
            name,
            f"attainment of the setting tuned for {CHOSEN_FOR:.1%} ({point.label}; 95 % by days {low:.2%}–{high:.2%})",
            "share",
            point.attainment,
            goal=GOAL_ATTAINMENT,
            better=Better.HIGHER,
        ),
        Row(name, "its GPU-hours over UB", "×", ratio, goal=GOAL_RATIO),
        Row(name, "its worst ten minutes", "attainment", point.worst_window, better=Better.HIGHER),
        Row(name, "its scale events", "a run", point.scale_events),
    ]
    rival = best_baseline(cell, GOAL_ATTAINMENT)
    if rival is not None:
        other = next(p for p in of_family(cell, rival[1]) if p.label == cell.chosen[rival[1]])
        interval = ratio_interval(point, other)
        rows.append(
            Row(
                name,
                f"GPU-hours over {rival[1]} as tuned for the same ({other.attainment:.2%};"
                f" 95 % by days {interval[0]:.3f}–{interval[1]:.3f})",
                "×",
                point.gpu_hours / other.gpu_hours,
            )
        )
    return rows


def _levels(name: str, cell: Cell) -> list[Row]:
    rows = []
    for level in LEVELS:
        ours, rival = gpu_hours_at(of_family(cell, OURS), level), best_baseline(cell, level)
        if rival is None:
            continue
        rows.append(
            Row(
                name,
                f"GPU-hours at {level:.1%}, over the best baseline ({rival[1]})",
                "×",
                None if ours is None else ours / rival[0],
                goal=1.0,
            )
        )
        if level == GOAL_ATTAINMENT and ours is not None and cell.upper_bound:
            rows.append(Row(name, "GPU-hours at 99 %, over UB", "×", ours / cell.upper_bound, goal=GOAL_RATIO))
    return rows


def _everyone(name: str, cell: Cell) -> list[Row]:
    """GPU-hours at equal 99 % of every family; who cannot reach it has none, and its best attainment is said."""
    rows = []
    for family in dict.fromkeys(point.family for point in cell.points):
        points = of_family(cell, family)
        hours = gpu_hours_at(points, GOAL_ATTAINMENT)
        best = max(points, key=lambda each: each.attainment)
        note = "" if hours is not None else f" (cannot: at most {best.attainment:.2%} at {best.gpu_hours:.0f} GPU-h)"
        rows.append(Row(name, f"at 99 %: {family}{note}", "GPU-h", hours))
    return rows


def sensitivity(profile: Profile, lengths: Lengths, slo: Slo) -> list[Row]:
    """What one replica carries when the profile's slopes are 30 % off: how much a wrong profile would plan wrong."""
    rows = [Row("sensitivity of the profile", "requests/s of a replica", "requests/s", _carries(profile, lengths, slo))]
    for name in ("delta_s", "gamma_s"):
        for factor in (0.7, 1.3):
            other = replace(profile, **{name: factor * getattr(profile, name)})
            said = f"with {name} × {factor:g}"
            rows.append(Row("sensitivity of the profile", said, "requests/s", _carries(other, lengths, slo)))
    return rows


def _carries(profile: Profile, lengths: Lengths, slo: Slo) -> float:
    return capacity_of(profile, lengths, slo).requests_per_s


def summary(cells: Sequence[Cell]) -> list[str]:
    """Lines for the terminal."""
    lines = []
    for cell in cells:
        ours, rival = gpu_hours_at(of_family(cell, OURS), GOAL_ATTAINMENT), best_baseline(cell, GOAL_ATTAINMENT)
        over = f"{ours / cell.upper_bound:.3f} × UB" if ours and cell.upper_bound else "not reached"
        versus = f", {ours / rival[0]:.3f} × {rival[1]}" if ours and rival else ""
        lines.append(f"{cell.workload}, cold start {cell.cold_start_s:.0f} s: at 99 % {over}{versus}")
    return lines


__all__ = ["families", "front", "is_ours", "of_family", "rows_of", "sensitivity", "summary"]
