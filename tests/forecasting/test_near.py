"""The next minutes: as far up as loads rose before, never below what is expected, told while the present is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from forecasting import near
from forecasting.growth import Growth
from forecasting.near import Present, is_due, learned, present_of, settled_s, sharpened
from forecasting.policy import LoadForecast
from forecasting.series import Array
from forecasting.standing import SAID_LEVELS, Forecasted

NOW_S = 1_800_000_030.0
LEAD_S = 300.0
AHEAD = 13
"""Minutes: of the lead time, of what is beyond, and of a present as old as may be."""


def doubling(minutes: int = AHEAD) -> Growth:
    """Every quantile but the median doubles at once."""
    return Growth(np.tile([1.0] + [2.0] * (len(SAID_LEVELS) - 1), (minutes, 1)), 0.0)


def said(expected: float, upper: float) -> Forecasted:
    """A forecast in two steps of ten minutes: half of what is expected, then all of it."""
    rows = tuple((half * expected, *(half * upper for _ in SAID_LEVELS[1:])) for half in (0.5, 1.0))
    forecast = LoadForecast(NOW_S - 300.0, 600.0, SAID_LEVELS, rows, plausible_max=1000.0)
    return Forecasted(forecast, True, "Calibrated", "")


def present(requests_per_s: float, age_s: float = 30.0) -> Present:
    return Present(NOW_S - age_s, requests_per_s, 10.0)


def values_of(forecasted: Forecasted) -> tuple[tuple[float, ...], ...]:
    assert forecasted.forecast
    return forecasted.forecast.values


def minutes(n: int = 2880) -> Array:
    """Requests of each minute: a daily wave, with a jump by half every few hours."""
    at = np.arange(n)
    wave = 600 * (1.2 + np.sin(2 * np.pi * at / 1440))
    return np.asarray(np.where(at % 200 < 15, 1.5 * wave, wave))


def test_the_next_minutes_are_as_far_above_the_peak_as_loads_rose_before() -> None:
    told = sharpened(said(40.0, 80.0), doubling(), present(6.0), LEAD_S, NOW_S)
    assert values_of(told)[0] == (60.0, *[120.0] * 6)
    assert told.forecast
    assert (told.forecast.issued_s, told.forecast.step_s) == (NOW_S - 30.0, 60.0)
    assert len(told.forecast.values) == AHEAD


def test_a_rise_that_is_expected_but_has_not_begun_stands_under_every_quantile() -> None:
    told = sharpened(said(500.0, 800.0), doubling(), present(6.0), LEAD_S, NOW_S)
    before, after = values_of(told)[0], values_of(told)[-1]
    assert before == (250.0,) * 7, "half of it until the next step begins"
    assert after == (500.0,) * 7


def test_growth_goes_no_further_than_what_is_believed() -> None:
    most = 1000.0 + 1 / 3
    one = said(40.0, 80.0)
    assert one.forecast
    one = replace(one, forecast=replace(one.forecast, plausible_max=most))
    assert max(map(max, values_of(sharpened(one, doubling(), present(90.0), LEAD_S, NOW_S)))) == most


def test_growth_that_does_not_reach_the_end_of_the_lead_time_says_nothing() -> None:
    one = said(40.0, 80.0)
    assert sharpened(one, doubling(), present(6.0), 900.0, NOW_S) is one


def test_what_begins_from_idleness_is_no_measure_of_a_load_that_runs() -> None:
    bursts = np.where(np.arange(2880) % 60 < 12, 600.0, 0.0)
    growth = learned(bursts, LEAD_S)
    assert growth
    assert growth.ratios.max() < 1.2, "in a burst it never rose"
    one, idle = said(40.0, 80.0), replace(present(6.0), requests_per_s=0.1)
    assert sharpened(one, growth, idle, LEAD_S, NOW_S) is one


@pytest.mark.parametrize("age_s", [near.STALE_S + 1.0, -1.0])
def test_without_a_fresh_present_the_forecast_says_what_it_said(age_s: float) -> None:
    one = said(40.0, 80.0)
    assert sharpened(one, doubling(), present(6.0, age_s), LEAD_S, NOW_S) is one
    assert sharpened(one, None, present(6.0), LEAD_S, NOW_S) is one
    assert sharpened(one, doubling(), None, LEAD_S, NOW_S) is one


def test_a_forecast_that_has_lost_its_say_has_none_about_the_next_minutes() -> None:
    one = said(40.0, 80.0)
    assert one.forecast
    lost = replace(one, forecast=replace(one.forecast, calibrated=False), trusted=False)
    told = sharpened(lost, doubling(), present(6.0), LEAD_S, NOW_S)
    assert told.forecast
    assert not told.forecast.calibrated
    nothing = Forecasted(None, False, "NoHistory", "")
    assert sharpened(nothing, doubling(), present(6.0), LEAD_S, NOW_S) is nothing


@pytest.mark.parametrize("wild", [float("nan"), float("inf"), -1.0])
def test_a_broken_forecast_is_left_for_the_policy_to_refuse(wild: float) -> None:
    one = said(wild, 80.0)
    assert sharpened(one, doubling(), present(6.0), LEAD_S, NOW_S) is one


def test_it_is_learned_as_far_ahead_as_decisions_look() -> None:
    growth = learned(minutes(), LEAD_S)
    assert growth
    assert growth.ratios.shape == (AHEAD, len(SAID_LEVELS))
    assert (np.diff(growth.ratios, axis=1) >= 0).all()
    assert growth.ratios[-1, -1] == pytest.approx(1.5, abs=0.1)


def test_of_an_hour_nothing_is_learned() -> None:
    assert learned(minutes(60), LEAD_S) is None
    assert learned(np.full(2880, np.nan), LEAD_S) is None


def test_it_is_learned_anew_after_an_hour_and_for_a_longer_lead_time() -> None:
    growth = learned(minutes(), LEAD_S)
    assert is_due(None, -math.inf, LEAD_S, NOW_S)
    assert not is_due(None, NOW_S - 599.0, LEAD_S, NOW_S), "two days of minutes are much to ask for"
    assert is_due(None, NOW_S - 600.0, LEAD_S, NOW_S)
    assert not is_due(growth, NOW_S - 3599.0, LEAD_S, NOW_S)
    assert is_due(growth, NOW_S - 3600.0, LEAD_S, NOW_S)
    assert is_due(growth, NOW_S - 1.0, 900.0, NOW_S)
    assert is_due(growth, NOW_S + 60.0, LEAD_S, NOW_S), "the clock was set back"


def test_the_present_is_the_highest_of_the_last_five_minutes() -> None:
    counted = np.array([9000.0, 60.0, np.nan, 120.0, 60.0, 60.0])
    assert present_of(counted, NOW_S, 10.0) == Present(NOW_S, 2.0, 10.0)
    assert present_of(np.full(6, np.nan), NOW_S, 10.0) is None


def test_the_present_is_as_old_as_the_newest_minute_that_was_counted() -> None:
    counted = np.array([60.0, 120.0, 60.0, np.nan, np.nan])
    assert present_of(counted, NOW_S, 10.0) == Present(NOW_S - 120.0, 2.0, 10.0)


def test_a_minute_is_known_when_its_last_scrape_is() -> None:
    assert settled_s(120.0 + near.SETTLED_S) == 120.0
    assert settled_s(119.0 + near.SETTLED_S) == 60.0
