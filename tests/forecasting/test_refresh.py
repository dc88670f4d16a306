"""From a history to a forecast: right where it can be, wide where it cannot, and safe always."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.forecast import LEVELS
from forecasting.refresh import CEILING, RefreshSettings, models_for, refresh
from forecasting.series import Series
from tests.forecasting.builders import DAY, daily, series, with_gaps

QUICK = RefreshSettings(origins=24, refits=1, stages=3)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 15, 16, 17, 40, 65, 100, 145, 200, 433, 700])
def test_any_length_of_history_gives_a_forecast_that_is_safe(n: int) -> None:
    values = with_gaps(daily(5)[:n], 0.2)
    values[0] = 100.0
    forecast = refresh(series(values), 36, settings=QUICK)
    assert forecast.quantiles.shape == (36, len(LEVELS))
    assert forecast.quantiles.max() <= CEILING * np.nanmax(values)
    assert forecast.origin_s == series(values).end_s


@settings(max_examples=25, deadline=None)
@example([0.0] * 40, 600.0)
@example([1e300, 0.0] * 20, 600.0)
@example([1e-300, float("nan")] * 20, 60.0)
@given(
    st.lists(st.one_of(st.floats(0, 1e9), st.just(float("nan")), st.just(0.0)), min_size=1, max_size=90),
    st.sampled_from([15.0, 600.0, 3600.0, 21600.0, 7001.0]),
)
def test_no_history_makes_a_forecast_nan_infinite_negative_or_crossing(values: list[float], step_s: float) -> None:
    made = Series(0.0, step_s, np.array(values), "odd")
    if not made.n_observed:
        with pytest.raises(HistoryTooShort, match="none of its"):
            refresh(made, 5, settings=QUICK)
        return
    with np.errstate(all="ignore"):
        quantiles = refresh(made, 5, settings=QUICK).quantiles
    assert np.isfinite(quantiles).all()
    assert (quantiles >= 0).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_a_history_of_minutes_falls_back_to_persistence_with_wide_intervals() -> None:
    forecast = refresh(series(np.array([100.0, 104.0, 98.0]), step_s=60.0), 10)
    assert forecast.reason == "persistence"
    assert forecast.median == pytest.approx(np.full(10, 98.0))
    assert (forecast.quantile(0.99) > 200).all()
    assert (forecast.quantile(0.01) < 40).all()
    assert "3 observations" in forecast.message


def test_a_daily_load_is_forecast_and_its_intervals_are_narrow() -> None:
    values = daily(8, noise=0.03)
    forecast = refresh(series(values[: 7 * DAY]), DAY)
    assert np.mean(np.abs(forecast.median - values[7 * DAY :])) < 0.04 * values.mean()
    width = forecast.quantile(0.95) - forecast.quantile(0.05)
    assert np.median(width / forecast.median) < 0.3
    assert forecast.reason == "ensemble"
    assert "error" in forecast.message
    assert "residuals" in forecast.message


def test_ten_times_the_load_gives_ten_times_the_quantiles() -> None:
    values = daily(4)
    one, ten = (refresh(series(values * factor), 12, settings=QUICK).quantiles for factor in (1, 10))
    assert np.allclose(ten, 10 * one, rtol=1e-6)


def test_the_same_history_gives_the_same_forecast_in_another_process() -> None:
    history = series(with_gaps(daily(3), 0.05))
    here = refresh(history, 12, settings=QUICK)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(refresh, pickle.loads(pickle.dumps(history)), 12, LEVELS, QUICK).result()
    assert np.array_equal(here.quantiles, there.quantiles)
    assert here.message == there.message


def test_a_gap_at_the_end_keeps_the_times() -> None:
    values = daily(3)
    values[-20:] = np.nan
    forecast = refresh(series(values), 6, settings=QUICK)
    assert forecast.origin_s == 3 * 86_400
    assert forecast.median.min() > 0


@pytest.mark.parametrize(("gap_days", "after"), [(4.5, 600), (7.0, 200), (4.5, 1), (4.5, 2)])
def test_a_long_gap_leaves_a_forecast_however_little_came_after_it(gap_days: float, after: int) -> None:
    values = daily(14)
    values[-after - round(gap_days * DAY) : -after] = np.nan
    forecast = refresh(series(values), 6, settings=QUICK)
    assert np.isfinite(forecast.quantiles).all()
    assert forecast.median.min() > 0


def test_a_longer_history_carries_more_models() -> None:
    names = {days: {model.name for model in models_for(series(daily(days)), QUICK)} for days in (0.1, 0.3, 2, 4, 8)}
    assert names[0.1] == {"persistence"}
    assert "day before" in names[2]
    assert "Holt-Winters of the logarithm" in names[4]
    assert "week before" in names[8]


def test_no_steps_are_refused() -> None:
    with pytest.raises(BadSetting, match="0 steps"):
        refresh(series(daily(1)), 0)
