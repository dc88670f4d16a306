"""The autoscaling benchmark: its arithmetic, its cells and its page, on a trace of minutes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.autoscaling import cell as cells
from benchmarks.autoscaling.agreement import compare
from benchmarks.autoscaling.agreement import rows_of as agreement_rows
from benchmarks.autoscaling.cell import Cell, Plan, Progress, run_cells, run_families
from benchmarks.autoscaling.families import OURS, Context, all_settings
from benchmarks.autoscaling.page import words
from benchmarks.autoscaling.pareto import Point, attainment_interval, front, gpu_hours_at, ratio_interval
from benchmarks.autoscaling.plots import plot
from benchmarks.autoscaling.quick import made, made_lengths, sample
from benchmarks.autoscaling.rows import best_baseline, of_family, rows_of, summary
from benchmarks.autoscaling.workloads import Workload, from_file, sizing_of
from benchmarks.report import Report, render
from forecasting.profile import LLAMA_8B_H100
from forecasting.simulator.arrivals import lengths_of
from forecasting.simulator.autoscalers.ours import PerfectForecasts
from forecasting.simulator.record import record_of
from forecasting.simulator.world import ColdStart, Slo, World


def point(attainment: float, gpu_hours: float, family: str = "f", label: str = "l") -> Point:
    days = ((90.0, 100.0, gpu_hours / 2), (100 * (2 * attainment - 0.9), 100.0, gpu_hours / 2))
    return Point(family, label, attainment, gpu_hours, 0.5, 3, days)


def test_the_front_leaves_out_what_another_point_beats() -> None:
    points = [point(0.98, 10), point(0.97, 11), point(0.99, 12), point(0.99, 13), point(0.999, 20)]
    assert [each.gpu_hours for each in front(points)] == [10, 12, 20]


def test_gpu_hours_at_an_attainment_lie_between_its_neighbours() -> None:
    points = [point(0.98, 10), point(0.995, 20)]
    share = (math.log(0.02) - math.log(0.01)) / (math.log(0.02) - math.log(0.005))
    assert gpu_hours_at(points, 0.99) == pytest.approx(10 + 10 * share)
    assert gpu_hours_at(points, 0.5) == 10
    assert gpu_hours_at(points, 0.999) is None


def test_intervals_hold_the_value_and_are_the_same_every_time() -> None:
    low, high = attainment_interval(point(0.97, 10))
    assert low <= 0.97 <= high
    assert attainment_interval(point(0.97, 10)) == (low, high)
    assert ratio_interval(point(0.97, 10), point(0.97, 20)) == pytest.approx((0.5, 0.5))


SIZING = sizing_of(LLAMA_8B_H100, lengths_of(*made_lengths()), Slo())
WORLD = World(cold_start=ColdStart(60.0), max_replicas=60)
PLAN = Plan(1, full=False)
MINUTES = Workload(
    "minutes",
    (2400, 4200),
    (4800, 7200),
    lambda seed: made(seed, 3 * SIZING.requests_per_s).between(0, 6 * 1200),
    lambda span_s: sample(20.0, span_s),
)


def cell_of_minutes(progress: Progress) -> Cell:
    return run_cells(MINUTES, [WORLD], SIZING, PLAN, progress)[0]


@pytest.fixture(scope="module")
def cell() -> Cell:
    return cell_of_minutes(lambda stage, share: None)


def test_a_cell_has_points_of_every_family_and_both_oracles(cell: Cell) -> None:
    assert len({each.family for each in cell.points}) == 15
    assert cell.upper_bound is not None
    assert cell.lower_bound < cell.upper_bound
    assert cell.upper_attainment is not None
    assert cell.upper_attainment >= 0.99
    for each in cell.points:
        assert sum(day[2] for day in each.days) == pytest.approx(each.gpu_hours)
        good, came = (sum(day[at] for day in each.days) for at in (0, 1))
        assert good / came == pytest.approx(each.attainment)


def test_a_cell_is_read_back_as_it_was_written(cell: Cell, tmp_path: Path) -> None:
    cell.write(tmp_path / "cell.json")
    assert Cell.read(tmp_path / "cell.json") == cell


def test_a_run_that_was_interrupted_goes_on_to_the_same_cell(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(cells, "commit", lambda: "0123abcd")
    monkeypatch.setattr(cells, "cache_folder", lambda: tmp_path)
    begun: list[float] = []

    def stops(stage: str, share: float) -> None:
        if stage == "test" and share > 0.5:
            raise KeyboardInterrupt

    def counts(stage: str, share: float) -> None:
        begun.append(share)

    with pytest.raises(KeyboardInterrupt):
        cell_of_minutes(stops)
    (kept,) = (tmp_path / "interrupted").glob("*.state")
    assert cell_of_minutes(lambda stage, share: counts(stage, share) if stage == "test" else None) == cell
    assert min(begun) > 0.5
    assert not kept.exists()


def test_a_family_that_is_run_anew_leaves_the_others_as_they_were(cell: Cell) -> None:
    spoilt = tuple(replace(each, gpu_hours=each.gpu_hours + 1000) for each in cell.points)
    before = replace(cell, points=spoilt, chosen={**cell.chosen, OURS: "none"})
    (after,) = run_families(MINUTES, [WORLD], SIZING, PLAN, lambda stage, share: None, [OURS], [before])
    assert of_family(after, OURS) == of_family(cell, OURS)
    assert after.chosen == cell.chosen
    others = [point for point in after.points if point.family != OURS]
    assert others == [point for point in spoilt if point.family != OURS]


def test_the_page_and_the_plot_come_from_the_cells(cell: Cell, tmp_path: Path) -> None:
    report = Report("machine", "commit", "date", tuple(rows_of(cell)))
    drawn = plot(cell, tmp_path)
    page = render(report, words([cell], [drawn.name]))
    assert drawn.read_text(encoding="utf-8").count("<svg") == 1
    assert f"]({drawn.name})" in page
    assert "UB: clairvoyant schedule at 99 %" in page
    assert summary([cell])[0].startswith("minutes, cold start 60 s: at 99 %")


def test_the_fluid_and_the_exact_mode_are_held_against_each_other() -> None:
    sizing = sizing_of(LLAMA_8B_H100, lengths_of(*made_lengths()), Slo())
    pairs = compare(sample(3.5 * sizing.requests_per_s, 60), World(), sizing)
    assert [each.name for each in pairs][-1] == "persistence × 1.15"
    rows = agreement_rows("minutes", pairs)
    assert {row.goal for row in rows} == {0.02, None}
    assert all(0 <= each.exact <= 1 and 0 <= each.fluid <= 1 for each in pairs)


def test_the_best_baseline_is_never_one_of_ours(cell: Cell) -> None:
    cheap = [replace(each, gpu_hours=0.001, attainment=1.0) for each in of_family(cell, OURS)]
    rigged = replace(cell, points=(*cell.points, *cheap))
    assert best_baseline(rigged, 0.9) == best_baseline(cell, 0.9)


def test_every_baseline_has_a_budget_of_thirty_settings() -> None:
    sizing = sizing_of(LLAMA_8B_H100, lengths_of(*made_lengths()), Slo())
    arrivals = made(0, 10.0).between(0, 600)
    record = record_of(None, arrivals, 15.0)
    settings = all_settings(Context(World(), sizing, record, PerfectForecasts(record, 0.25, 60.0)))
    budget: dict[str, int] = {}
    for each in settings:
        budget[each.family] = budget.get(each.family, 0) + 1
    assert budget[OURS] == 30
    ours = {family for family in budget if family.startswith("Foretide") or "our policy" in family}
    assert all(count >= 30 for family, count in budget.items() if family not in ours), budget
    assert len({(each.family, each.label) for each in settings}) == len(settings)


def test_a_trace_file_is_tuned_on_its_first_half_and_tested_on_the_second(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        f"{at:.2f},{random.integers(1, 900)},{random.integers(1, 90)}" for at in np.sort(random.uniform(0, 1199, 2400))
    ]
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    found = from_file(path, None, 0.05, None, LLAMA_8B_H100, Slo())
    assert found.name == "mine"
    assert found.tune[1] == found.test[0]
    whole = found.make(0)
    assert len(whole) == found.test[1]
    assert 0 < whole.counts.sum() < 2400
