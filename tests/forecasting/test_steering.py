"""The quantile as an error budget: it falls while all goes well, rises with what is late, and rests at the promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.policy import (
    Bounds,
    Capacity,
    Judged,
    Load,
    LoadForecast,
    Memory,
    PolicySettings,
    ScalingInput,
    from_json,
    plan,
    to_json,
)
from forecasting.policy.steering import LEAST, MOST, SPENT, quantile_of

LEVELS = (0.5, 0.8, 0.95, 0.99)


def asked(judged: Judged | None, memory: Memory | None = None, promised: float | None = 0.99) -> ScalingInput:
    """One replica's worth of load now, and a forecast whose quantiles ask for 1, 2, 3 and 4."""
    values = (tuple(100.0 * (1 + at) for at in range(4)),) * 4
    return ScalingInput(
        now_s=1000.0,
        bounds=Bounds(0, 10),
        current=1,
        ready=1,
        load=Load(1.0, 0.0, 90.0, 1.0, 0.0, 0.1, 1.0),
        forecast=LoadForecast(1000.0, 600.0, LEVELS, values),
        capacity=Capacity(100.0, 50.0),
        lead_time_s=300.0,
        settings=PolicySettings(promised=promised),
        memory=memory or Memory(),
        judged=judged,
    )


def lived(shares: list[float], seconds: float, rate_per_s: float = 1.0) -> list[float]:
    """Quantiles of one decision after the other, `shares` of the requests between them in time."""
    memory, judged, said = Memory(), Judged(0.0, 0.0, 0.0), []
    for share in shares:
        memory = plan(asked(judged, memory)).memory
        came = rate_per_s * seconds
        judged = Judged(judged.at_s + seconds, judged.requests + came, judged.good + share * came)
        said.append(quantile_of(asked(judged, memory)))
    return said


def test_without_a_promise_or_counters_the_quantile_is_that_of_the_settings() -> None:
    assert quantile_of(asked(Judged(0.0, 10.0, 0.0), promised=None)) == 0.95
    assert quantile_of(asked(None)) == 0.95
    assert plan(asked(None)).memory.steering is None


def test_it_falls_while_all_goes_well_and_a_tenth_of_late_requests_raises_it_faster() -> None:
    falling = lived([1.0] * 24, 3600.0)
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(1 / (1 + np.exp(-(np.log(19) - 1))))  # One in a day.
    rising = lived([0.9], 3600.0)
    assert rising[-1] > 0.95 + 5 * (0.95 - falling[0])


def test_as_many_late_as_may_be_leave_it_where_it_is() -> None:
    assert lived([1 - 0.01 * SPENT] * 10, 600.0) == pytest.approx([0.95] * 10)


def test_over_days_the_share_that_is_late_comes_to_what_is_allowed_whatever_the_forecast_is_like() -> None:
    random = np.random.default_rng(3)
    memory, judged, late = Memory(), Judged(0.0, 0.0, 0.0), []
    for _ in range(30 * 144):
        memory = plan(asked(judged, memory)).memory
        # A forecast that promises more than it keeps: 6 % are beyond its p95, and a fifth of their requests is late.
        beyond = min(1.0, 1.2 * (1 - quantile_of(asked(judged, memory))))
        share = float(random.random() < beyond) / 5
        late.append(share)
        judged = Judged(judged.at_s + 600.0, judged.requests + 600.0, judged.good + 600.0 * (1 - share))
    assert np.mean(late[5 * 144 :]) == pytest.approx(0.01 * SPENT, rel=0.2)


def test_jumps_that_no_quantile_holds_do_not_buy_ever_more() -> None:
    assert lived([0.5] * 240, 3600.0)[-1] == pytest.approx(MOST)


def test_the_quantile_decides_which_forecast_is_bought_and_the_arithmetic_names_it() -> None:
    start = plan(asked(Judged(0.0, 0.0, 0.0)))
    assert start.replicas == 3
    assert "p95 load 300 tok/s" in start.message
    day = plan(asked(Judged(86_400.0, 100.0, 100.0), start.memory))
    better = plan(asked(Judged(172_800.0, 200.0, 200.0), day.memory))
    assert better.replicas == 2
    assert "p80 load 200 tok/s" in better.message
    worse = plan(asked(Judged(86_400.0, 100.0, 90.0), start.memory))
    assert worse.replicas == 4


def test_a_first_interval_without_requests_or_with_a_burst_does_not_set_the_pace_of_a_day() -> None:
    def after_a_day(first_rate_per_s: float) -> float:
        memory, judged = Memory(), Judged(0.0, 0.0, 0.0)
        for minute in range(1441):
            memory = plan(asked(judged, memory)).memory
            came = 15.0 * (first_rate_per_s if minute == 0 else 4.0)
            judged = Judged(judged.at_s + 60.0, judged.requests + came, judged.good + came)
        return quantile_of(asked(judged, memory))

    usual = after_a_day(4.0)
    assert [after_a_day(0.0), after_a_day(40.0)] == pytest.approx([usual] * 2, abs=0.01)


def test_a_clock_that_was_set_back_moves_nothing_and_what_comes_after_counts() -> None:
    memory = plan(asked(Judged(90_000.0, 100.0, 100.0))).memory
    back = plan(asked(Judged(3600.0, 110.0, 110.0), memory)).memory
    assert quantile_of(asked(Judged(3600.0, 110.0, 110.0), back)) == pytest.approx(0.95)
    assert quantile_of(asked(Judged(90_000.0, 200.0, 200.0), back)) < 0.95


def test_counters_that_fell_or_stood_still_move_nothing() -> None:
    memory = plan(asked(Judged(0.0, 100.0, 90.0))).memory
    assert quantile_of(asked(Judged(0.0, 100.0, 90.0), memory)) == pytest.approx(0.95)
    again = plan(asked(Judged(600.0, 5.0, 1.0), memory))
    assert again.memory.steering
    assert again.memory.steering.last == Judged(600.0, 5.0, 1.0)
    assert quantile_of(asked(Judged(600.0, 5.0, 1.0), again.memory)) == pytest.approx(0.95)


def test_a_quiet_night_counts_less_than_a_busy_noon() -> None:
    memory = Memory()
    for judged in (Judged(0.0, 0.0, 0.0), Judged(86_400.0, 86_400.0, 85_795.2)):
        memory = plan(asked(judged, memory)).memory
    night, noon = Judged(87_000.0, 86_460.0, 85_795.2), Judged(87_000.0, 89_400.0, 85_795.2)
    assert 0.95 < quantile_of(asked(night, memory)) < quantile_of(asked(noon, memory))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(1, 1e6), st.floats(0, 1e6))
def test_it_never_leaves_its_bounds(shares: list[float], seconds: float, rate_per_s: float) -> None:
    assert all(LEAST - 1e-9 <= each <= MOST + 1e-9 for each in lived(shares, seconds, rate_per_s))


def test_a_steered_decision_can_be_decided_again_from_its_record() -> None:
    memory = plan(asked(Judged(0.0, 0.0, 0.0))).memory
    decision = plan(asked(Judged(600.0, 100.0, 90.0), memory))
    again = from_json(to_json(decision))
    assert again == decision
    assert plan(again.inputs) == decision
    assert plan(replace(again.inputs, judged=None)) != decision
