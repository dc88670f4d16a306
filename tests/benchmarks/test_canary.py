"""The benchmark of canaries: its peers on cases worked out by hand, and a small run that ends as it must."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.canary.__main__ import KINDS, OLD, Tally, rows, simulate
from benchmarks.canary.judges import Ours, Thresholds, ZTest
from benchmarks.canary.traffic import LOOKS, Look, Revision, look
from controllers.plans.canary.evidence import Evidence, learned
from controllers.plans.canary.samples import Sample
from crds.rollout import Analysis, RolloutMetric
from forecasting.comparison.evidence import mixture, weaker_half


def told(errors: tuple[float, float], mean_s: float) -> Look:
    """One run: `errors` as right and wrong, and times around a mean."""
    number = sum(errors)
    moments = {name: np.array([[number, number * mean_s, number * mean_s**2 * 1.5]]) for name in ("ttft", "tpot")}
    return Look(np.array([errors]), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), moments)


def test_three_failed_checks_in_a_row_roll_back_and_a_good_one_between_them_begins_anew() -> None:
    judge, good, bad = Thresholds(), told((99, 1), 1.0), told((95, 5), 1.0)
    words = [judge.look(good, one, at)[1][0] for at, one in enumerate((bad, bad, good, bad, bad, bad))]
    assert words == [False, False, False, False, False, True]


def test_a_z_test_at_the_end_says_nothing_before_it() -> None:
    judge = ZTest(repeated=False)
    for at in range(LOOKS - 1):
        promote, back = judge.look(told((990, 10), 1.0), told((50, 50), 1.0), at)
        assert not promote.any()
        assert not back.any()
    assert judge.look(told((990, 10), 1.0), told((50, 50), 1.0), LOOKS - 1)[1].all()


def test_a_bad_revision_is_rolled_back_and_no_good_one_is() -> None:
    for kind, new in (("bad", Revision(ttft=2.0)), ("good", OLD)):
        tally = simulate(np.random.default_rng(1), new, 20, {"ours": Ours(20, Analysis())})["ours"]
        assert tally.rolled_back == (20 if kind == "bad" else 0)


def test_requests_of_a_look_are_all_in_its_histograms() -> None:
    seen = look(np.random.default_rng(2), OLD, 3, 50)
    for counts in (seen.errors, seen.ttft, seen.tpot, seen.length):
        assert counts.sum(1).tolist() == [50, 50, 50]


def test_rows_name_a_false_rollback_of_equal_revisions_and_a_false_promote_of_all_others() -> None:
    tally = Tally(runs=200, promoted=150, rolled_back=2, looks=(5, 6))
    names = ("ours", "z-test at every look", "z-test once, at the end", "threshold checks")
    made = rows({kind: dict.fromkeys(names, tally) for kind in KINDS})
    first = {row.metric: row.ours for row in made[: len(KINDS)]}
    assert first["equal revisions: false rollback"] == 1.0
    assert first["TTFT +20%: false promote"] == 75.0


def test_many_runs_at_once_are_judged_as_the_operator_judges_one() -> None:
    rng, analysis, evidence = np.random.default_rng(3), Analysis(), Evidence()
    judge_many = Ours(1, analysis)
    for _ in range(3):
        stable, candidate = look(rng, OLD, 1, 900), look(rng, Revision(ttft=1.1), 1, 100)
        worse, fine = judge_many._evidence(stable, candidate, np.ones(1, dtype=bool))
        evidence = learned(evidence, sample(stable), sample(candidate), analysis)
        for at, metric in enumerate(RolloutMetric):
            found = evidence.metrics[metric]
            combine = weaker_half if metric is RolloutMetric.LENGTH else mixture
            assert mixture(np.array(found.worse)) == pytest.approx(worse[at, 0])
            assert combine(np.array(found.no_worse)) == pytest.approx(fine[at, 0])


def sample(one: Look) -> Sample:
    """The only run of a look, as the operator has it."""
    histograms = [tuple(int(count) for count in counts[0]) for counts in (one.ttft, one.tpot, one.length)]
    return Sample(int(one.errors.sum()), int(one.errors[0, 1]), *histograms)
