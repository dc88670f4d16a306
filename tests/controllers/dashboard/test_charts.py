"""Curves of one service out of counts and recorded decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.dashboard.budget import error_budget, window_s
from controllers.dashboard.charts import chart, span_of
from controllers.history.interface import Counts
from forecasting.policy.decide import plan
from forecasting.policy.record import to_json
from forecasting.policy.values import (
    Bounds,
    Capacity,
    Load,
    LoadForecast,
    Memory,
    Policy,
    PolicySettings,
    ScalingInput,
)

NOW_S = 1_800_000_000.0


def asked(now_s: float, current: int, work_per_s: float, forecast: LoadForecast | None = None) -> ScalingInput:
    load = Load(1.0, work_per_s, 0.0, running=1, waiting=0, kv_use=0.1, age_s=1.0)
    settings = PolicySettings(policy=Policy.PREDICTIVE)
    capacity = Capacity(work_per_s=100.0, running=100)
    return ScalingInput(now_s, Bounds(1, 9), current, 1, load, forecast, capacity, 300.0, settings, Memory())


def counts(values: list[float], step_s: float = 60.0) -> Counts:
    column = np.array(values)
    return Counts(NOW_S - len(values) * step_s, step_s, column, column, column * 60, column * 0)


def test_the_load_is_weighted_tokens_each_second_and_a_gap_stays_a_gap() -> None:
    found = chart(counts([1.0, float("nan"), 3.0]), [], span_of(6, NOW_S), NOW_S)
    assert found["load"]["values"] == [1.0, None, 3.0]
    assert found["forecast"] is None
    assert found["decisions"] == []


def test_the_band_is_what_the_last_decision_saw_from_now_on() -> None:
    rows = tuple((float(at), at + 10.0) for at in range(60))
    forecast = LoadForecast(NOW_S - 600, 600.0, (0.1, 0.9), rows)
    line = to_json(plan(asked(NOW_S, 1, 50.0, forecast)))
    band = chart(None, [line], span_of(6, NOW_S), NOW_S)["forecast"]
    assert (band["startS"], band["p10"][0], band["p50"][0], band["p95"][0]) == (NOW_S, 1.0, 6.0, 11.0)
    assert len(band["p10"]) == 18, "three hours ahead of six shown, as its rows reach that far"


def test_only_changes_are_told_newest_first_and_steps_stand_where_numbers_change() -> None:
    lines = [
        to_json(plan(asked(NOW_S + 60 * at, current, work)))
        for at, current, work in ((0, 1, 50.0), (1, 1, 350.0), (2, 4, 350.0))
    ]
    found = chart(None, lines, span_of(6, NOW_S), NOW_S)
    assert [(one["before"], one["replicas"]) for one in found["decisions"]] == [(1, 4)]
    assert [(one["atS"] - NOW_S, one["replicas"]) for one in found["planned"]] == [(0, 1), (60, 4)]
    assert [one["replicas"] for one in found["actual"]] == [1]


def test_a_line_of_another_version_is_left_out_and_the_rest_is_shown() -> None:
    line = to_json(plan(asked(NOW_S, 1, 350.0)))
    found = chart(None, ["{}", "not json", line], span_of(6, NOW_S), NOW_S)
    assert len(found["decisions"]) == 1


@pytest.mark.parametrize(("hours", "step_s"), [(1, 60), (6, 60), (24, 180), (72, 480), (168, 1200), (840, 5400)])
def test_a_span_has_at_most_six_hundred_steps_of_whole_minutes(hours: int, step_s: float) -> None:
    span = span_of(hours, NOW_S)
    assert span.step_s == step_s
    assert (span.end_s - span.start_s) / span.step_s <= 600
    assert span.start_s % 60 == 0


SLA = {"metadata": {"name": "x"}, "spec": {"availability": "99%", "window": "1d"}}


def test_an_error_budget_is_what_the_availability_allows_less_what_failed() -> None:
    arrived = counts([100.0] * 10)
    spent = error_budget(SLA, replace(arrived, completed=arrived.arrivals - 0.5))
    assert spent is not None
    assert spent["left"] == pytest.approx(0.5)
    assert spent["message"] == "5 of 1000 requests were not answered in full; 99% over 1d allows 10.0."
    assert window_s(SLA) == 86_400


def test_without_requests_or_availability_there_is_no_budget_to_show() -> None:
    assert error_budget(SLA, counts([0.0, float("nan")])) is None
    assert error_budget({"metadata": {"name": "x"}, "spec": {}}, counts([1.0])) is None
    assert window_s(None) is None
