"""What counts as broken, for each kind of rule; numbers that are missing decide nothing."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.plans.alerting.readings import TIERS, Budget, readings, tiers_of
from crds.alert_policy import BurnRate, Metric
from tests.plans.alerting.build import BUDGET, counts, facts, rule


def only(asked, known):  # type: ignore[no-untyped-def]
    (found,) = readings(asked, known)
    return found


def test_a_threshold_is_about_the_mean_of_its_window_and_says_the_numbers() -> None:
    asked = rule(threshold={"above": "2", "over": "5m"})
    found = only(asked, facts(fine=counts([0.0] * 10 + [180.0] * 5)))
    assert (found.broken, found.message) == (True, "requests of chat over 5m: 3 > 2")
    assert only(asked, facts(fine=counts([180.0] * 10 + [60.0] * 5))).broken is False


def test_a_share_of_failures_counts_requests_not_minutes() -> None:
    asked = rule(metric="failures", threshold={"above": "0.05"})
    quiet_minutes_fail = counts([1, 1, 1, 1, 1000], failed=[1, 1, 1, 1, 0])
    assert only(asked, facts(fine=quiet_minutes_fail)).broken is False
    assert only(asked, facts(fine=counts([100] * 5, failed=0.06))).broken is True
    assert only(asked, facts(fine=counts([0] * 5))).broken is False


@pytest.mark.parametrize("known", [None, counts([np.nan] * 5), counts([np.nan, np.nan, np.nan, 9e9, 9e9]), counts([])])
def test_too_little_history_is_neither_broken_nor_well(known) -> None:  # type: ignore[no-untyped-def]
    for asked in (
        rule(threshold={"above": "1"}),
        rule(metric="failures", threshold={"above": "0.1"}),
        rule(trend={"above": "1"}),
        rule(anomaly={"sigmas": "3"}),
        rule(anomaly={"falseAlarms": 12}),
        rule(metric=None, burnRate={}),
    ):
        assert {one.broken for one in readings(asked, facts(fine=known, coarse=known, budget=BUDGET))} == {None}


def test_a_window_longer_than_what_is_held_is_cut_to_that() -> None:
    """Of a policy that was stored before its schema refused it; 14 million gaps were made of one at each look."""
    fortnight = counts([600.0] * 2016, step_s=600)
    above = only(rule(threshold={"above": "0.5", "over": "99999d"}), facts(coarse=fortnight))
    assert (above.broken, above.message) == (True, "requests of chat over 14d: 1 > 0.5")
    rising = counts([600.0 + at for at in range(2016)], step_s=600)
    assert only(rule(trend={"above": "5", "over": "99999d", "within": "30d"}), facts(coarse=rising)).broken is True
    failures = rule(metric="failures", threshold={"above": "0", "over": "30d"})
    young = counts([600.0] * 1000, step_s=600)
    assert only(rule(threshold={"above": "0.5", "over": "99999d"}), facts(coarse=young)).broken is None
    assert only(failures, facts(coarse=fortnight)).broken is False


def test_gauges_are_read_as_they_are_now() -> None:
    asked = rule(metric="workersMissing", threshold={"above": "0"})
    assert only(asked, facts(gauges={Metric.WORKERS_MISSING: 1.0})).broken is True
    assert only(asked, facts()).broken is None


def test_the_windows_are_those_of_the_workbook_for_thirty_days() -> None:
    rates = [(tier.long_s / 3600, tier.short_s / 60, round(tier.rate(BUDGET), 3)) for tier in TIERS]
    assert rates == [(1, 5, 14.4), (6, 30, 6.0), (24, 120, 3.0), (72, 360, 1.0)]


def test_a_window_that_cannot_fire_is_left_out() -> None:
    assert len(tiers_of(BurnRate(), BUDGET)) == 4
    assert len(tiers_of(BurnRate(slow=False), BUDGET)) == 2
    assert [tier.long_s for tier in tiers_of(BurnRate(), Budget(0.001, 86_400.0, ""))] == [3600.0, 21600.0]
    # With an availability of 90 %, 14.4 times too fast would be 144 % of the requests.
    assert tiers_of(BurnRate(), Budget(0.1, BUDGET.window_s, ""))[0].long_s == 21600.0


def test_a_burn_rate_needs_both_windows() -> None:
    asked = rule(metric=None, burnRate={"slow": False})
    steady = counts([100] * 360, failed=0.02)
    over = counts([100] * 360, failed=[0.1] * 354 + [0.0] * 6)
    begun = counts([100] * 360, failed=[0.0] * 355 + [0.1] * 5)
    assert [one.broken for one in readings(asked, facts(fine=steady, budget=BUDGET))] == [True, True]
    # Over for six minutes: the short window of the first pair knows, that of the second not yet.
    assert [one.broken for one in readings(asked, facts(fine=over, budget=BUDGET))] == [False, True]
    assert [one.broken for one in readings(asked, facts(fine=begun, budget=BUDGET))] == [False, False]
    assert next(readings(asked, facts(fine=steady, budget=BUDGET))).message == (
        "chat burns its error budget (99.9% over 30d) 20.0 times too fast over 1h and 20.0 times over 5m;"
        " the limit is 14.4"
    )
    assert list(readings(asked, facts(fine=steady))) == []


def test_a_trend_says_when_the_bound_is_reached() -> None:
    asked = rule(trend={"above": "4", "over": "1h", "within": "1h"})
    rising = counts([60 * (1 + at / 60) for at in range(60)])
    found = only(asked, facts(fine=rising))
    assert found.broken is False
    assert found.message == "requests of chat is 1.983 and changes by +1 an hour: it comes to 4 in 2h1m; 1h is too soon"
    assert only(rule(trend={"above": "4", "within": "3h"}), facts(fine=rising)).broken is True
    falling = counts([60 * (3 - at / 60) for at in range(60)])
    assert only(rule(trend={"below": "1", "within": "2h"}), facts(fine=falling)).broken is True
    assert only(asked, facts(fine=falling)).broken is False


def test_noise_without_a_way_is_no_trend_however_steep_it_looks() -> None:
    noise = counts(60 * np.random.default_rng(1).uniform(0, 8, 60))
    assert only(rule(trend={"above": "9", "within": "4h"}), facts(fine=noise)).broken is False


def test_sigmas_are_counted_from_the_day_before() -> None:
    day = list(np.random.default_rng(2).normal(600, 30, 144))
    asked = rule(anomaly={"sigmas": "4", "direction": "above"})
    assert only(asked, facts(coarse=counts([*day, 800.0], step_s=600))).broken is True
    assert only(asked, facts(coarse=counts([*day, 400.0], step_s=600))).broken is False
    assert only(asked, facts(coarse=counts([*day, 650.0], step_s=600))).broken is False


def test_a_calibrated_anomaly_is_as_rare_as_was_asked() -> None:
    asked = rule(anomaly={"falseAlarms": 52, "direction": "below"})
    # 52 in a year of 52,560 steps: once in about a thousand.
    assert only(asked, facts(improbability={Metric.REQUESTS: (-3.0, 3.1)})).broken is True
    assert only(asked, facts(improbability={Metric.REQUESTS: (-3.0, 2.9)})).broken is False
    assert only(asked, facts(improbability={Metric.REQUESTS: (3.0, 3.1)})).broken is False
