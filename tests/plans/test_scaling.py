"""Scaling on the requests that workers hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.plans.scaling import Direction, History, ScalingDecision, plan_scaling
from controllers.plans.snapshot import Load
from tests.gen import service_spec

SCALED = service_spec(scaling={"min": 1, "max": 10, "targetConcurrency": 8, "scaleDownDelay": "5m"})


def fresh(*requests: int) -> list[Load | None]:
    return [Load(number, age_s=1.0) for number in requests]


def decide(current: int | None, loads: list[Load | None], now_s: float = 0.0, since_s: float = 0.0) -> ScalingDecision:
    return plan_scaling(SCALED, current, loads, History(since_s), now_s)


def test_a_fixed_number_is_what_the_spec_says() -> None:
    assert plan_scaling(service_spec(replicas=3), 7, [], History(0), 0).replicas == 3
    assert plan_scaling(service_spec(replicas=0), 7, [], History(0), 0).replicas == 0


def test_without_replicas_and_scaling_there_is_one_worker() -> None:
    assert plan_scaling(service_spec(), None, [], History(0), 0).replicas == 1


def test_the_first_look_starts_at_the_minimum() -> None:
    assert decide(None, []).replicas == 1


def test_more_requests_than_the_target_add_workers_at_once_and_the_reason_is_arithmetic() -> None:
    decision = decide(2, fresh(11, 9))
    assert (decision.replicas, decision.direction) == (3, Direction.UP)
    assert decision.message == "2 → 3 replicas: 20 requests on 2 workers ÷ 8 each = 2.5, limits 1…10"


def test_one_decision_at_most_doubles_or_adds_four() -> None:
    assert decide(1, fresh(800)).replicas == 5
    assert decide(5, fresh(800, 0, 0, 0, 0)).replicas == 10


def test_fewer_requests_take_nothing_away_before_the_delay() -> None:
    assert decide(4, fresh(1, 0, 0, 0), now_s=299, since_s=0).direction is Direction.HOLD


def test_after_the_delay_at_most_half_goes_and_the_delay_starts_anew() -> None:
    decision = decide(8, fresh(1, *[0] * 7), now_s=300, since_s=0)
    assert (decision.replicas, decision.direction) == (4, Direction.DOWN)
    assert decision.message.endswith("lower for 5m")
    assert decision.history == History(300)


def test_a_peak_within_the_delay_keeps_the_workers() -> None:
    peak = plan_scaling(SCALED, 4, fresh(30, 0, 0, 0), History(0), 200)
    later = plan_scaling(SCALED, 4, fresh(0, 0, 0, 0), peak.history, 400)
    assert later.replicas == 4
    assert plan_scaling(SCALED, 4, fresh(0, 0, 0, 0), later.history, 600).replicas == 2


@pytest.mark.parametrize("loads", [[], [None, None], [Load(0, age_s=60)], [Load(500, age_s=60)]])
def test_missing_and_stale_metrics_hold_the_number(loads: list[Load | None]) -> None:
    decision = decide(4, loads, now_s=10_000)
    assert (decision.replicas, decision.direction) == (4, Direction.HOLD)


def test_metrics_that_were_missing_start_the_delay_anew() -> None:
    gap = plan_scaling(SCALED, 4, [None], History(0), 1000)
    assert plan_scaling(SCALED, 4, fresh(0), gap.history, 1100).replicas == 4


def test_one_silent_worker_does_not_block_growing_and_counts_as_full_when_shrinking() -> None:
    assert decide(2, [*fresh(40), None]).replicas == 5
    assert decide(3, [*fresh(8, 8), None], now_s=10_000).replicas == 3
    assert decide(3, [*fresh(1, 1), None], now_s=10_000).replicas == 2


def test_new_limits_are_honoured_at_once() -> None:
    assert decide(40, []).replicas == 10
    assert plan_scaling(service_spec(scaling={"min": 5, "max": 9}), 2, [], History(0), 0).replicas == 5


@given(
    current=st.integers(1, 10),
    rounds=st.lists(st.lists(st.one_of(st.none(), st.integers(0, 200)), max_size=10), max_size=40),
    period_s=st.sampled_from([5.0, 60.0, 400.0]),
)
def test_the_number_stays_within_its_limits_and_never_falls_twice_within_the_delay(
    current: int, rounds: list[list[int | None]], period_s: float
) -> None:
    history, fell_at_s = History(0.0), float("-inf")
    for number, requests in enumerate(rounds):
        now_s = number * period_s
        loads = [None if one is None else Load(one, 0.0) for one in requests]
        decision = plan_scaling(SCALED, current, loads, history, now_s)
        assert 1 <= decision.replicas <= 10
        if decision.replicas < current:
            assert now_s - fell_at_s >= 300
            assert any(one is not None for one in requests)
            fell_at_s = now_s
        current, history = decision.replicas, decision.history
        assert len(history.called_for) <= 301
