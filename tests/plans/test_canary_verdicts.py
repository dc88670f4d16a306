"""Verdicts: what each of them needs, and that metrics nobody measured neither decide nor hold anything."""

from __future__ import annotations

from random import Random

from controllers.plans.canary.evidence import Evidence, MetricEvidence, buckets, learned, remembered
from controllers.plans.canary.samples import Sample
from controllers.plans.canary.verdicts import judge
from crds.rollout import Analysis, RolloutMetric, VerdictWord
from tests.plans.canary_world import Behaviour, sample

RULES = Analysis()


def after(candidate: Behaviour, batches: int = 4, *, streams: bool = True) -> Evidence:
    """Evidence of batches of 400 requests of each."""
    rng, evidence = Random(5), Evidence()
    for _ in range(batches):
        both = [sample(400, one, rng) for one in (Behaviour(), candidate)]
        if not streams:
            both = [Sample(one.requests, one.errors, length=one.length) for one in both]
        evidence = learned(evidence, *both, RULES)
    return evidence


def words(evidence: Evidence, rules: Analysis = RULES) -> dict[RolloutMetric, VerdictWord]:
    return {one.metric: one.verdict for one in judge(evidence, rules).verdicts}


def test_a_revision_like_the_old_one_is_no_worse_in_everything() -> None:
    assert set(words(after(Behaviour())).values()) == {VerdictWord.NO_WORSE}


def test_only_the_metric_that_is_worse_is_called_so() -> None:
    found = words(after(Behaviour(ttft=1.6)))
    assert [metric for metric, word in found.items() if word is VerdictWord.WORSE] == [RolloutMetric.TTFT]


def test_nothing_known_is_no_verdict() -> None:
    assert judge(Evidence(), RULES).verdicts == ()


def test_without_streams_there_is_no_verdict_on_first_tokens() -> None:
    found = words(after(Behaviour(), streams=False))
    assert found.keys() == {RolloutMetric.ERRORS, RolloutMetric.LENGTH}


def test_metrics_that_are_not_asked_for_have_no_say() -> None:
    rules = Analysis(metrics=[RolloutMetric.ERRORS])
    assert words(after(Behaviour(ttft=3.0)), rules) == {RolloutMetric.ERRORS: VerdictWord.NO_WORSE}


def test_a_metric_that_is_not_measured_yet_keeps_its_part_of_the_risk() -> None:
    """Evidence of 1 to 200: enough for one metric alone at 1%, and not enough for one of four."""
    only = Evidence({RolloutMetric.ERRORS: MetricEvidence((100, 0), (100, 5), worse=(5.3,), no_worse=(0.0,))})
    assert words(only)[RolloutMetric.ERRORS] is VerdictWord.UNDECIDED
    alone = Analysis(metrics=[RolloutMetric.ERRORS])
    assert words(only, alone)[RolloutMetric.ERRORS] is VerdictWord.WORSE


def test_a_handful_of_requests_is_too_little_data() -> None:
    rng = Random(6)
    few = learned(Evidence(), sample(12, Behaviour(), rng), sample(12, Behaviour(), rng), RULES)
    assert set(words(few).values()) == {VerdictWord.TOO_LITTLE_DATA}


def test_evidence_survives_being_written_into_a_status() -> None:
    evidence = after(Behaviour(errors=0.02))
    again = remembered(judge(evidence, RULES).verdicts)
    assert words(again) == words(evidence)
    assert again.requests == evidence.requests


def test_percents_are_whole_buckets_rounded_down() -> None:
    assert [buckets(one) for one in (0, 9, 10, 19, 20, 44)] == [0, 0, 1, 1, 2, 4]


def test_a_message_has_the_numbers_of_both_and_what_was_decided_at() -> None:
    found = {one.metric: one.message for one in judge(after(Behaviour(errors=0.1)), RULES).verdicts}
    said = found[RolloutMetric.ERRORS]
    assert said == "errors: new 11.1% of 1,600, old 0% of 1,600; worse: p <0.0001 of at most 0.01, Holm over 4"
