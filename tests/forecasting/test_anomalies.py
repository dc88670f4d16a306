"""Anomaly scores against known values, and the detector on loads with one thing wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from forecasting.anomalies.detector import Detector, Verdict
from forecasting.anomalies.scores import conformal_p, k_sigma, page_hinkley, robust, seasonal_residual
from forecasting.anomalies.surprise import CAP, Surprise
from forecasting.anomalies.usual import improbabilities, improbability
from forecasting.errors import BadSetting, HistoryTooShort, InfiniteValue
from forecasting.series import Array, Series
from tests.forecasting.builders import DAY, STEP_S, daily, series, with_gaps


def watch(values: Array, step_s: float = STEP_S) -> list[Verdict]:
    detector = Detector(step_s)
    return [detector.observe(value) for value in values.tolist()]


def test_k_sigma_and_robust_scores_are_what_hand_calculation_gives() -> None:
    values = np.array([1.0, 2, 3, 4, 5, 9])
    assert k_sigma(values, 5)[-1] == pytest.approx(6 / np.sqrt(2))
    assert robust(values, 5)[-1] == pytest.approx(6 / 1.4826)
    assert np.isnan(k_sigma(values, 5)[:5]).all()


def test_one_outlier_hides_the_next_from_sigma_and_not_from_the_median() -> None:
    values = np.random.default_rng(0).standard_normal(60)
    values[50], values[55] = 80, 80
    assert k_sigma(values, 40)[55] < 8 < robust(values, 40)[55]


def test_a_constant_metric_that_moves_is_finite_and_unusual() -> None:
    values = np.concatenate([np.full(30, 5.0), [6.0]])
    for score in (k_sigma(values, 20), robust(values, 20)):
        assert np.isfinite(score[-1])
        assert score[-1] > 100
        assert score[-2] == 0


def test_the_seasonal_residual_finds_what_is_usual_at_another_hour() -> None:
    values = daily(6, noise=0.02)
    values[3 * DAY + 108] = values.max()
    score = seasonal_residual(series(values))
    assert int(np.argmax(score)) == 3 * DAY + 108
    with pytest.raises(HistoryTooShort):
        seasonal_residual(series(values[:50]))


def test_page_hinkley_rises_after_a_change_of_level_in_either_direction() -> None:
    rng = np.random.default_rng(1)
    for jump in (2.0, -2.0):
        values = np.concatenate([rng.standard_normal(300), jump + rng.standard_normal(50)])
        score = page_hinkley(values, 100)
        assert score[:300].max() < 12 < score[-1]
    with pytest.raises(BadSetting, match="warm-up"):
        page_hinkley(np.full(10, np.nan), 5)


def test_conformal_p_values_of_exchangeable_scores_are_uniform() -> None:
    found = conformal_p(np.random.default_rng(2).exponential(size=3000))
    assert kstest(found[200:], "uniform").pvalue > 0.01
    assert conformal_p(np.array([1.0, 2, np.nan, 3]))[[0, 1, 3]].tolist() == [1, 0.5, pytest.approx(1 / 3)]


def test_surprise_is_minus_the_logarithm_of_the_probability() -> None:
    rng = np.random.default_rng(3)
    surprise = Surprise()
    found = np.array([surprise.of(score) for score in rng.exponential(size=20_000)])
    assert np.mean(found >= 2) == pytest.approx(0.01, rel=0.25)
    assert np.mean(found >= 3) == pytest.approx(0.001, rel=0.6)
    assert surprise.of(1e9) == CAP


def test_a_quiet_load_raises_few_alarms() -> None:
    verdicts = watch(daily(14, noise=0.05))
    assert sum(verdict.anomalous for verdict in verdicts) <= 6


@pytest.mark.parametrize("kind", ["spike", "outage", "noon at midnight"])
def test_what_is_wrong_is_found_and_said(kind: str) -> None:
    values = daily(10, noise=0.02)
    at = 8 * DAY + 108
    values[at : at + 4] = {"spike": 400.0, "outage": 0.0, "noon at midnight": 140.0}[kind]
    verdicts = watch(values)
    assert any(verdict.anomalous for verdict in verdicts[at : at + 4])
    first = next(verdict for verdict in verdicts[at:] if verdict.anomalous)
    assert first.reason in ("shape", "season", "range")
    assert "is an anomaly" in first.message
    assert not any(verdict.anomalous for verdict in verdicts[at - DAY : at])


def test_one_event_is_one_alarm() -> None:
    values = daily(6, noise=0.02)
    values[5 * DAY : 5 * DAY + 12] = 500.0
    verdicts = watch(values)
    assert sum(verdict.anomalous for verdict in verdicts[5 * DAY : 5 * DAY + 12]) <= 2


def test_gaps_are_no_anomalies_and_do_not_blind_the_detector() -> None:
    values = with_gaps(daily(8, noise=0.02), 0.1)
    values[7 * DAY + 50] = 900.0
    verdicts = watch(values)
    assert all(not verdict.anomalous for verdict, value in zip(verdicts, values, strict=True) if np.isnan(value))
    assert verdicts[7 * DAY + 50].anomalous


def test_a_metric_below_zero_is_watched_and_an_infinite_one_refused() -> None:
    assert not watch(-daily(3))[-1].anomalous
    with pytest.raises(InfiniteValue):
        Detector(60.0).observe(float("inf"))
    with pytest.raises(BadSetting):
        Detector(0.0)


def test_a_flat_metric_scores_nothing() -> None:
    assert all(verdict.score == 0 for verdict in watch(np.full(500, 3.0)))


def test_what_is_usual_is_judged_by_the_time_of_the_day() -> None:
    rng = np.random.default_rng(4)
    at = np.arange(13 * 144 + 37)  # It ends at the top of the day.
    values = (100 + 60 * np.sin(2 * np.pi * at / 144)) * rng.lognormal(0, 0.05, len(at))
    calm = improbability(Series(0.0, 600.0, values))
    assert calm is not None
    assert calm[1] < 3
    # The night's load at noon is nothing that was never seen, but not at noon.
    moved = values.copy()
    moved[-1] = values[-73]
    odd = improbability(Series(0.0, 600.0, moved))
    assert odd is not None
    assert odd[1] > 3
    assert (odd[0] < 0) == (values[-73] < values[-1])


def test_nothing_is_unusual_where_too_little_is_known() -> None:
    assert improbability(Series(0.0, 600.0, np.ones(20))) is None
    assert improbability(Series(0.0, 600.0, np.array([]))) is None
    assert improbability(Series(0.0, 600.0, np.array([*np.ones(200), np.nan]))) is None


def test_a_value_is_judged_by_those_before_it_only() -> None:
    values = np.random.default_rng(5).lognormal(0, 0.3, 600)
    whole = improbabilities(Series(0.0, 600.0, values))
    part = improbabilities(Series(0.0, 600.0, values[:400]))
    assert np.array_equal(whole[:400], part, equal_nan=True)
