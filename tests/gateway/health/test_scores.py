"""Outliers among equals, and one score from everything that is known of an endpoint."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.health.load import Evidence, Loss
from gateway.health.outliers import OutlierPolicy, Record, outliers
from gateway.health.passive import Health, HealthPolicy, Why, eject, is_ejected, returned, share
from gateway.health.score import LEAST, score

POLICY, OUTLIER, FRESH = HealthPolicy(), OutlierPolicy(), Health()


def scored(health: Health = FRESH, loss: Loss | None = None, suspect: bool = False, errors: float = 0.0) -> float:
    return score(health, loss, suspect, errors, 100.0, POLICY)


def test_the_one_with_errors_stands_out_and_says_by_how_much() -> None:
    records = [Record(50, 20, 0.1), Record(50, 0, 0.1), Record(50, 1, 0.1)]
    found = outliers(records, OUTLIER)
    assert set(found) == {0}
    assert found[0].found + found[0].compared == "40% errors of 50 requests against 1% elsewhere, 6.5 standard errors"


def test_the_slow_one_stands_out_even_between_two() -> None:
    found = outliers([Record(20, 0, 0.9), Record(20, 0, 0.1)], OUTLIER)
    assert found[0] == Why("LatencyOutlier", "latency 0.900 s", ", 9.0 × the 0.100 s elsewhere")
    assert set(found) == {0}


def test_what_nobody_feels_is_no_outlier() -> None:
    assert outliers([Record(20, 0, 0.02), Record(20, 0, 0.001)], OUTLIER) == {}


@given(st.integers(1, 9), st.floats(0, 9), st.floats(0.001, 100))
def test_few_requests_prove_nothing(requests: int, errors: float, latency_s: float) -> None:
    records = [Record(requests, min(errors, requests), latency_s), Record(100, 0, 0.001), Record(100, 0, 0.001)]
    assert 0 not in outliers(records, OUTLIER)


@given(st.lists(st.floats(0.1, 0.29), min_size=2, max_size=8))
def test_ordinary_differences_are_no_outliers(latencies: list[float]) -> None:
    assert outliers([Record(30, 1, one) for one in latencies], OUTLIER) == {}


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 2)), max_size=60), st.integers(1, 6))
def test_outliers_too_are_never_more_than_a_share(steps: list[tuple[int, float]], count: int) -> None:
    healths, now_s = [Health()] * count, 0.0
    for which, passed_s in steps:
        now_s += passed_s
        index = which % count
        out = sum(is_ejected(one, now_s) for one in healths)
        if not is_ejected(healths[index], now_s):
            verdict = eject(healths[index], now_s, POLICY, Why("X", "x", ""), endpoints=count, ejected=out)
            healths[index] = verdict.health
        assert sum(is_ejected(one, now_s) for one in healths) <= count // 2


def test_a_fresh_endpoint_has_all_of_its_part_and_a_lost_one_none() -> None:
    assert scored() == 1.0
    assert scored(loss=Loss(Evidence.HUNG, "")) == 0.0


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_errors_never_make_a_better_score(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert LEAST <= scored(errors=high) <= scored(errors=low) <= 1.0


def test_a_worker_that_may_be_about_to_be_lost_gets_less_than_its_equals() -> None:
    assert scored(suspect=True) == 0.5 * scored()


def test_one_that_was_lost_comes_back_as_slowly_as_one_that_was_ejected() -> None:
    health = returned(Health(), 100.0)
    assert [round(share(health, now_s, POLICY), 2) for now_s in (100.0, 105.0, 110.0)] == [0.1, 0.55, 1.0]
