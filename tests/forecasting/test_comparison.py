"""Sequential comparison: exact where it can be counted by hand, right under chance, quick under a regression."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.comparison import errors, ranks
from forecasting.comparison.evidence import holm, mixture, p_value, weaker_half
from forecasting.comparison.tilt import Array, log_ratios

RUNS = 200


def every_subset_weighed(candidate: Array, pool: Array, scores: Array, tilt: float) -> float:
    """The same ratio by counting all subsets."""
    items = np.repeat(scores, pool.astype(int))
    sums = [sum(one) for one in combinations(items, int(candidate.sum()))]
    return float(tilt * (candidate * scores).sum() - np.log(np.mean(np.exp(tilt * np.array(sums)))))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=4),
    st.floats(-4, 4),
)
def test_a_ratio_is_what_counting_all_subsets_gives(drawn: list[tuple[int, int]], tilt: float) -> None:
    candidate = np.array([float(mine) for mine, _ in drawn])
    pool = candidate + [float(others) for _, others in drawn]
    scores = np.linspace(-0.5, 0.5, len(drawn))
    found = log_ratios(candidate, pool, scores, np.array([tilt]))[0]
    if 0 < candidate.sum() < pool.sum():
        assert found == pytest.approx(every_subset_weighed(candidate, pool, scores, tilt), abs=1e-8)
    else:
        assert found == 0.0


def test_the_approximation_for_large_batches_meets_the_exact_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, pool = np.array([60.0, 30.0, 40.0]), np.array([400.0, 300.0, 300.0])
    scores, tilts = np.array([-0.3, 0.05, 0.35]), np.array([0.5, 2.0, 6.0])
    quick = log_ratios(candidate, pool, scores, tilts)
    monkeypatch.setattr("forecasting.comparison.tilt._ENOUGH_VARIANCE", 1e9)
    assert quick == pytest.approx(log_ratios(candidate, pool, scores, tilts), abs=1e-4)


def test_a_batch_of_one_revision_alone_tells_nothing() -> None:
    nobody, some = np.zeros(5), np.array([0.0, 3.0, 2.0, 0.0, 1.0])
    for test in (ranks.above, ranks.below, ranks.apart, ranks.within):
        assert not test(some, nobody, 1).any()
        assert not test(nobody, some, 1).any()


# --- chance and regressions ------------------------------------------------------------------------------------------


def latencies(rng: np.random.Generator, requests: int, factor: float = 1.0) -> Array:
    """RUNS histograms of log-normal times over buckets a factor of 1.2 ** 0.5 apart."""
    times = factor * np.exp(rng.normal(np.log(0.2), 0.5, (RUNS, requests)))
    buckets = np.searchsorted(0.02 * 1.2 ** (np.arange(60) / 2), times)
    return np.stack([(buckets == one).sum(-1) for one in range(61)], axis=-1).astype(float)


def outcomes(rng: np.random.Generator, requests: int, rate: float) -> Array:
    failed = rng.binomial(requests, rate, RUNS).astype(float)
    return np.stack((requests - failed, failed), axis=-1)


def ever(steps: list[Array], alpha: float, combined: type | object = mixture) -> float:
    """The share of runs in which the summed evidence passes at any look."""
    summed = np.cumsum(steps, axis=0)
    return float((combined(summed) >= np.log(1 / alpha)).any(0).mean())  # type: ignore[operator]


def test_equal_revisions_are_called_worse_no_more_often_than_alpha_says_however_often_one_looks() -> None:
    rng = np.random.default_rng(1)
    slow, failing = [], []
    for _ in range(20):
        slow.append(ranks.apart(latencies(rng, 100), latencies(rng, 30), 0))
        failing.append(errors.more(outcomes(rng, 100, 0.03), outcomes(rng, 30, 0.03), 0.0))
    assert ever(slow, 0.05) <= 0.09  # Of 200 runs at 5 %: 18, two and a half deviations above 10.
    assert ever(failing, 0.05) <= 0.09


def test_one_percent_of_errors_against_three_is_seen_in_five_looks_of_five_hundred() -> None:
    rng = np.random.default_rng(2)
    looks = [errors.more(outcomes(rng, 500, 0.01), outcomes(rng, 500, 0.03), 0.0) for _ in range(5)]
    assert ever(looks, 0.05) >= 0.9


def test_a_fifth_slower_is_seen_and_is_not_called_no_worse() -> None:
    rng = np.random.default_rng(3)
    slower, close = [], []
    for _ in range(8):
        stable, candidate = latencies(rng, 300), latencies(rng, 300, 1.2)
        slower.append(ranks.above(stable, candidate, 1))
        close.append(ranks.below(stable, candidate, 2))
    assert ever(slower, 0.01) >= 0.95
    assert ever(close, 0.05) <= 0.09


def test_equal_revisions_are_shown_to_be_no_worse() -> None:
    rng = np.random.default_rng(4)
    before = np.zeros((RUNS, 2))
    close, few = [], []
    for _ in range(10):
        close.append(ranks.within(latencies(rng, 300), latencies(rng, 300), 2))
        stable, candidate = outcomes(rng, 300, 0.002), outcomes(rng, 300, 0.002)
        few.append(errors.no_more(stable, candidate, 0.01, before))
        before = before + stable + candidate
    assert ever(close, 0.01, weaker_half) >= 0.95
    assert ever(few, 0.01) >= 0.95


def test_a_rate_that_lies_the_whole_margin_higher_is_not_called_close() -> None:
    rng = np.random.default_rng(5)
    before, few = np.zeros((RUNS, 2)), []
    for _ in range(20):
        stable, candidate = outcomes(rng, 200, 0.01), outcomes(rng, 100, 0.02)
        few.append(errors.no_more(stable, candidate, 0.01, before))
        before = before + stable + candidate
    assert ever(few, 0.05) <= 0.09


def test_shorter_answers_are_apart_as_longer_ones_are() -> None:
    rng = np.random.default_rng(6)
    for factor in (0.7, 1.4):
        looks = [ranks.apart(latencies(rng, 300), latencies(rng, 300, factor), 1) for _ in range(4)]
        assert ever(looks, 0.01) >= 0.95


# --- shifts and verdicts ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=3, max_size=8), st.integers(-4, 4))
def test_a_shift_keeps_every_observation(counts: list[int], buckets: int) -> None:
    moved = ranks.shifted(np.array(counts, dtype=float), max(-len(counts) + 1, min(len(counts) - 1, buckets)))
    assert moved.sum() == sum(counts)


def test_a_shift_moves_by_whole_buckets_and_the_last_ones_keep_what_would_leave() -> None:
    counts = np.array([1.0, 2.0, 3.0, 4.0])
    assert ranks.shifted(counts, 1).tolist() == [0, 1, 2, 7]
    assert ranks.shifted(counts, -2).tolist() == [6, 4, 0, 0]


def test_holm_rejects_in_order_and_stops_at_the_first_that_holds() -> None:
    assert holm({"a": 0.001, "b": 0.004, "c": 0.2}, 0.01) == {"a", "b"}
    assert holm({"a": 0.004, "b": 0.004, "c": 0.004}, 0.01) == frozenset()
    assert holm({}, 0.01) == frozenset()


def test_evidence_against_the_claim_is_a_p_value_of_one() -> None:
    assert p_value(-3.0) == 1.0
    assert p_value(float(np.log(100))) == pytest.approx(0.01)
