"""The page of a campaign: goals, misses, and each fault that did not go well."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.report import Report, Row, render
from e2e.chaos.outcomes import Lost, Outcome, Quiet
from e2e.chaos.report import anonymous, at, rows, words
from tests.e2e_chaos.test_outcomes import OUTCOME

GOOD = replace(OUTCOME, detected_s=0.5, moved_s=0.0, back_s=10.0, took=Lost(50, 0, 2, 0, 0), wrong=())
QUIET = Quiet("2026-11-26 14:55:00", 300.0, 5, Lost(7500, 0, 700, 0, 0), ())


def row(found: list[Row], workload: str, metric: str) -> Row:
    return next(one for one in found if (one.workload, one.metric) == (workload, metric))


def campaign(bad: int) -> list[Outcome]:
    good = [replace(GOOD, number=number) for number in range(bad, 100)]
    return good + [replace(GOOD, number=number, healed=False, back_s=None) for number in range(bad)]


def test_five_of_a_hundred_that_do_not_heal_meet_the_goal_and_six_miss_it() -> None:
    for bad, met in ((5, True), (6, False)):
        found = row(rows(campaign(bad), [QUIET]), "the campaign", "healed within 3 minutes")
        assert (found.ours, found.met) == (100.0 - bad, met)


def test_a_campaign_that_is_not_whole_misses_its_number_of_faults_and_kinds() -> None:
    found = rows(campaign(0), [QUIET])
    assert row(found, "the campaign", "faults injected").met is False
    assert row(found, "the campaign", "kinds").met is False


def test_without_a_quiet_period_its_goals_are_missed() -> None:
    assert row(rows(campaign(0), []), "quiet control period", "actions").met is False
    assert row(rows(campaign(0), [QUIET]), "quiet control period", "actions").met is True


def test_faults_without_a_time_are_not_within_the_goal() -> None:
    half = [GOOD, replace(GOOD, number=4, back_s=None, healed=False)]
    found = row(rows(half, []), "Workers that are lost or hurt", "fault → back within 20 s")
    assert found.ours == 50.0


def test_the_page_names_each_fault_that_did_not_go_well_without_pods_names() -> None:
    unlucky = replace(OUTCOME, number=9, wrong=("anna pod: anna-0123456789-7f9c-abcde restarted, 1 so far",))
    page = render(Report("m", "c", "d", tuple(rows([GOOD, unlucky], [QUIET]))), words([GOOD, unlucky], [QUIET]))
    assert (
        "Fault 9, process kill (anna): 2 lost: 503: none. false: anna pod: a worker of anna restarted, 1 so far."
        in page
    )
    assert "Fault 3" not in page
    assert "quiet control period" in page.lower()


def test_a_quantile_is_one_of_the_values() -> None:
    assert at([1.0, 2.0, 3.0], 0.95) == 3.0
    assert at([1.0], 0.95) == 1.0
    assert anonymous("bela-0123456789-6d4c8-xk2lp is lost") == "a worker of bela is lost"
