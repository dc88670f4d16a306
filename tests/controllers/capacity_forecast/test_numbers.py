"""The pure parts: the work in a history, what a worker carries, how long one takes, and whether forecasts came true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.capacity_forecast.work import mean_lengths
from controllers.history.interface import Counts
from controllers.plans.capacity import INPUT_WEIGHT, lead_time_s, learn, profile_of, workers_text
from controllers.plans.carried import MeanLengths
from forecasting.calibration import ENOUGH, LEVELS, WINDOW, Calibration, Promise, observed, promised
from forecasting.counts import tokens_per_request, work_series
from tests.gen import service_spec


def counts(arrivals: list[float], completed: list[float], inputs: list[float], outputs: list[float]) -> Counts:
    return Counts(0.0, 600.0, *(np.array(one, dtype=float) for one in (arrivals, completed, inputs, outputs)))


def test_work_is_what_arrived_as_heavy_as_what_was_answered() -> None:
    # 60 requests a step, each of 100 input and 75 output tokens: 60 × (25 + 75) / 600 s.
    series = work_series(counts([60, 60], [60, 60], [6000, 6000], [4500, 4500]), INPUT_WEIGHT, "demo/chat")
    np.testing.assert_allclose(series.values, [10.0, 10.0])


def test_an_overloaded_service_is_asked_for_what_came_not_for_what_it_managed() -> None:
    series = work_series(counts([60, 600], [60, 60], [0, 0], [6000, 6000]), INPUT_WEIGHT, "demo/chat")
    np.testing.assert_allclose(series.values, [10.0, 100.0])


def test_gaps_stay_gaps_and_requests_that_nobody_answered_are_as_heavy_as_others() -> None:
    nan = float("nan")
    got = work_series(counts([nan, 60, 0], [nan, 0, 0], [nan, 0, 0], [nan, 0, 0]), INPUT_WEIGHT, "demo/chat")
    np.testing.assert_allclose(got.values, [nan, 0.1, 0.0])
    early = counts([10, 10], [0, 10], [0, 0], [0, 100])
    np.testing.assert_allclose(tokens_per_request(early, INPUT_WEIGHT), [10.0, 10.0])


# --- what a worker carries --------------------------------------------------------------------------------------------


def test_workers_are_told_by_model_and_accelerator() -> None:
    assert workers_text(service_spec()) == "m on cpu 1"
    assert workers_text(service_spec(accelerator={"cpu": {"cores": "500m"}})) == "m on cpu 0.5"
    assert workers_text(service_spec(accelerator={"gpu": {"count": 2}})) == "m on gpu 2"
    assert workers_text(service_spec(accelerator={"mig": {"profile": "1g.10gb"}})) == "m on mig 1g.10gb"


def test_models_of_one_name_are_apart_by_namespace_and_by_uid() -> None:
    def profile(namespace: str, uid: str, **spec: Any) -> str:
        return profile_of(namespace, service_spec(**spec), {"metadata": {"uid": uid}})

    assert profile("demo", "1") == profile("demo", "1", replicas=3) == "demo/m 1 on cpu 1"
    others = profile("other", "1"), profile("demo", "2"), profile("demo", "1", accelerator={"gpu": {"count": 2}})
    assert len({profile("demo", "1"), *others}) == 4
    assert profile_of("demo", service_spec(), None) == "demo/m  on cpu 1"


def test_mean_lengths_are_those_of_the_last_day_or_of_all_where_it_was_quiet() -> None:
    day = 144
    old, new = [10.0] * day, [20.0] * day
    found = mean_lengths(counts(old + new, old + new, [100.0] * day + [6000.0] * day, old + [400.0] * day))
    assert found == MeanLengths(300.0, 20.0)
    quiet = [0.0] * day
    assert mean_lengths(counts(old + quiet, old + quiet, [100.0] * day + quiet, old + quiet)) == MeanLengths(10.0, 1.0)
    nan = float("nan")
    assert mean_lengths(counts([nan], [nan], [nan], [nan])) is None


def test_capacity_is_learned_from_busy_workers_only() -> None:
    assert learn(None, 50.0, held=3, target=8) is None
    assert learn(None, 50.0, held=4, target=8) == 100.0
    assert learn(None, 120.0, held=16, target=8) == 120.0
    assert learn(100.0, 120.0, held=8, target=8) == pytest.approx(101.0)
    assert learn(100.0, 0.0, held=8, target=8) == 100.0
    assert learn(100.0, float("nan"), held=8, target=8) == 100.0


def test_the_lead_time_is_the_95th_percentile_and_at_least_five_minutes() -> None:
    assert lead_time_s([]) == 300
    assert lead_time_s([20.0] * 50) == 300
    assert lead_time_s([float(number) for number in range(1, 1001)]) == 950


# --- calibration ------------------------------------------------------------------------------------------------------

WIDE = tuple((0.0, 10.0) for _ in LEVELS)


def outcomes(state: Calibration, values: list[float], first: int = 0) -> Calibration:
    for number, value in enumerate(values, start=first):
        at_s = number * 600.0
        state = promised(state, Promise(at_s, WIDE))
        state = observed(state, [(at_s, value)], at_s + 600)
    return state


def test_what_came_true_is_counted_once() -> None:
    state = promised(Calibration(), Promise(600.0, WIDE))
    assert promised(state, Promise(600.0, ((99.0, 100.0),) * 3)) == state
    seen = observed(state, [(0.0, 50.0), (600.0, 5.0)], 1200.0)
    assert (seen.samples, seen.achieved(0.95), seen.waiting) == (1, 1.0, ())
    assert observed(seen, [(600.0, 5.0)], 1800.0) == seen


def test_trust_is_lost_after_enough_misses_and_returns_with_a_margin() -> None:
    state = outcomes(Calibration(), [5.0] * (ENOUGH - 5) + [50.0] * 4)
    assert state.trusted, "too few outcomes"
    state = outcomes(state, [50.0], first=ENOUGH - 1)
    assert not state.trusted
    at = ENOUGH
    back = state
    while not back.trusted:
        back = outcomes(back, [5.0], first=at)
        at += 1
    achieved = back.achieved(0.95)
    assert achieved
    assert achieved >= 0.90
    assert at > ENOUGH + 10, "one good forecast is not enough"


def test_only_the_last_outcomes_count() -> None:
    state = outcomes(Calibration(), [50.0] * WINDOW)
    state = outcomes(state, [5.0] * WINDOW, first=WINDOW)
    assert (state.samples, state.achieved(0.99), state.trusted) == (WINDOW, 1.0, True)


def test_promises_whose_truth_nobody_saw_are_forgotten_after_a_day() -> None:
    state = promised(Calibration(), Promise(0.0, WIDE))
    assert observed(state, [], 3600.0).waiting
    assert not observed(state, [], 90_000.0).waiting


@given(st.lists(st.booleans(), max_size=300))
def test_trust_never_flaps_between_two_outcomes(hits: list[bool]) -> None:
    state, changes, last = Calibration(), 0, -WINDOW
    for number, hit in enumerate(hits):
        was = state.trusted
        state = outcomes(state, [5.0 if hit else 50.0], first=number)
        if state.trusted is not was:
            changes += 1
            assert number - last > 1
            last = number
    assert changes <= len(hits) / 2
