"""The drift of answers: what a baseline is, what is found how soon, and what is not."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.plans.quality import (
    BOUND,
    MOST_A_WINDOW,
    REVISIONS_KEPT,
    SLACK,
    Measure,
    Moments,
    Policy,
    Watched,
    after,
    deviations,
    drifts,
    plain,
    watched_in,
)
from controllers.plans.quality_status import quality_conditions
from crds.conditions import QUALITY_DRIFT, Condition, ConditionStatus

POLICY = Policy(baseline_windows=40)
STEADY = {Measure.LENGTH: 200.0, Measure.REFUSALS: 0.02, Measure.REPETITION: 0.05}


def windows(rng: random.Random, n: int, **moved: float) -> Iterable[dict[Measure, float]]:
    """Means that vary by a tenth, of measures that were moved by so many tenths."""
    for _ in range(n):
        yield {
            measure: value * (1 + 0.1 * (rng.gauss(0, 1) + moved.get(measure.value, 0.0)))
            for measure, value in STEADY.items()
        }


def seen(watched: Watched, revision: str, of: Iterable[dict[Measure, float]], policy: Policy = POLICY) -> Watched:
    for window in of:
        watched = after(watched, revision, window, policy)
    return watched


def until_found(watched: Watched, revision: str, of: Iterable[dict[Measure, float]]) -> int | None:
    for number, window in enumerate(of, 1):
        watched = after(watched, revision, window, POLICY)
        if any(drifts(watched)):
            return number
    return None


def baseline(rng: random.Random, revision: str = "a") -> Watched:
    return seen(Watched(), revision, windows(rng, POLICY.baseline_windows))


def test_the_first_windows_are_the_baseline_and_nothing_is_compared_before() -> None:
    rng = random.Random(1)
    begun = seen(Watched(), "a", windows(rng, POLICY.baseline_windows - 1))
    assert begun.origin is None
    assert begun.revisions["a"].scores == {}
    whole = seen(begun, "a", windows(rng, 1))
    assert whole.origin == "a"
    assert {one.n for one in whole.baseline.values()} == {POLICY.baseline_windows}
    assert whole.baseline[Measure.LENGTH].mean == pytest.approx(200.0, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_answers_that_stay_as_they_are_are_no_drift_in_ten_days(seed: int) -> None:
    rng = random.Random(seed)
    assert until_found(baseline(rng), "a", windows(rng, 960)) is None


@pytest.mark.parametrize("measure", STEADY)
@pytest.mark.parametrize("moved", [4.0, -4.0])
def test_a_change_of_four_standard_deviations_is_found_within_ten_windows(measure: Measure, moved: float) -> None:
    if STEADY[measure] * 0.1 < 0.01:
        moved *= 0.01 / (STEADY[measure] * 0.1)  # Less than a hundredth of all answers is nothing to tell anybody.
    rng = random.Random(3)
    found = until_found(baseline(rng), "a", windows(rng, 50, **{measure.value: moved}))
    assert found is not None
    assert 3 <= found <= 10


def test_one_odd_window_is_no_drift() -> None:
    rng = random.Random(4)
    odd = [{measure: 50 * value for measure, value in STEADY.items()}]
    watched = seen(baseline(rng), "a", odd)
    assert not list(drifts(watched))
    assert watched.revisions["a"].scores[Measure.LENGTH].up == pytest.approx(MOST_A_WINDOW - SLACK)


def test_a_new_revision_is_held_against_the_one_before_until_it_has_its_own() -> None:
    rng = random.Random(5)
    watched = seen(baseline(rng), "b", windows(rng, 10, length=6.0))
    (found,) = drifts(watched)
    assert (found.revision, found.measure, found.above, found.reason) == ("b", Measure.LENGTH, True, "AnswersLonger")
    watched = seen(watched, "b", windows(rng, POLICY.baseline_windows - 10, length=6.0))
    assert watched.origin == "b"
    assert not list(drifts(watched)), "now that is how its answers are"
    assert until_found(watched, "b", windows(rng, 200, length=6.0)) is None


def test_a_drift_that_is_over_ends_and_does_not_come_and_go_in_between() -> None:
    rng = random.Random(6)
    watched = seen(baseline(rng), "a", windows(rng, 10, refusals=20.0))
    assert [one.reason for one in drifts(watched)] == ["MoreRefusals"]
    told = []
    for window in windows(rng, 40):
        watched = after(watched, "a", window, POLICY)
        told.append(any(drifts(watched)))
    assert told == sorted(told, reverse=True), "it ended once"
    assert told[0]
    assert not told[-1]


def test_the_message_is_arithmetic_and_the_condition_has_all_of_it() -> None:
    flat = {Measure.LENGTH: Moments(40, 200.0, 39 * 400.0), Measure.REFUSALS: Moments(40, 0.02, 0.0)}
    watched = Watched("a", flat)
    for _ in range(3):
        watched = after(watched, "b", {Measure.LENGTH: 400.0, Measure.REFUSALS: 0.5}, POLICY)
    found = tuple(drifts(watched))
    assert found[0].message == (
        "Answers are longer: 400 tokens in the last window of revision b, 200 tokens ± 20 tokens in the 40 windows of "
        "the baseline (revision a); score 9.0, drift from 8 until 4."
    )
    assert "50.0% in the last window of revision b, 2.0% ± 1.0%" in found[1].message
    (condition,) = quality_conditions(found, None)
    assert (condition.type, condition.reason) == (QUALITY_DRIFT, "AnswersLonger")
    assert found[0].message in condition.message
    assert found[1].message in condition.message
    stands = Condition(
        type=QUALITY_DRIFT,
        status=ConditionStatus.TRUE,
        last_transition_time="2026-01-01T06:00:00Z",
        reason=condition.reason,
        message=condition.message,
    )
    assert quality_conditions(None, [stands]) == [condition], "an operator that has just begun does not know yet"
    assert quality_conditions(None, None) == quality_conditions((), [stands]) == []


def test_a_measure_that_most_windows_lack_has_no_baseline() -> None:
    rng = random.Random(7)
    watched = Watched()
    for number, window in enumerate(windows(rng, POLICY.baseline_windows)):
        more = {Measure.SURPRISE: 1.0} if number < 5 else {}
        watched = after(watched, "a", {**window, **more}, POLICY)
    assert set(watched.baseline) == set(STEADY)
    watched = after(watched, "a", {Measure.SURPRISE: 9.0}, POLICY)
    assert Measure.SURPRISE not in watched.revisions["a"].scores


def test_a_new_baseline_leaves_no_scores_against_the_old_one() -> None:
    rng = random.Random(10)
    watched = baseline(rng)
    watched = replace(watched, baseline={**watched.baseline, Measure.SURPRISE: Moments(40, 1.0, 0.1)})
    for _ in range(5):
        watched = after(watched, "a", {Measure.SURPRISE: 9.0}, POLICY)
    assert [one.measure for one in drifts(watched)] == [Measure.SURPRISE]
    watched = seen(watched, "b", windows(rng, POLICY.baseline_windows))
    assert watched.origin == "b"
    assert not list(drifts(watched))


def test_few_revisions_are_remembered() -> None:
    rng = random.Random(8)
    watched = Watched()
    for number in range(50):
        watched = seen(watched, f"r{number}", windows(rng, 2))
    assert list(watched.revisions) == [f"r{number}" for number in range(50 - REVISIONS_KEPT, 50)]


@given(st.floats(-1e6, 1e6), st.integers(2, 200), st.floats(0, 1e6), st.floats(-1e7, 1e7), st.sampled_from(Measure))
def test_a_window_counts_for_a_bounded_number_and_to_the_right_side(
    mean: float, n: int, squares: float, value: float, measure: Measure
) -> None:
    found = deviations(Moments(n, mean, squares), measure, value)
    assert -MOST_A_WINDOW <= found <= MOST_A_WINDOW
    assert found * (value - mean) >= 0


def test_what_is_known_survives_as_json() -> None:
    rng = random.Random(9)
    watched = seen(baseline(rng), "b", windows(rng, 10, length=9.0))
    again = watched_in(json.loads(json.dumps(plain(watched))))
    assert again == watched
    assert list(drifts(again)) == list(drifts(watched))
    rest = list(windows(rng, 30))
    assert seen(again, "b", rest) == seen(watched, "b", rest)
    assert max(one.score for one in drifts(again)) > BOUND
    assert watched_in(plain(replace(watched, origin=None))).origin is None


# --- windows that resemble the one before -----------------------------------------------------------------------------
def alike(rng: random.Random, n: int, r: float, moved: float = 0.0) -> Iterable[dict[Measure, float]]:
    """Lengths that vary by a tenth and of which so much follows from the window before."""
    value = rng.gauss(0, 1)
    for _ in range(n):
        yield {Measure.LENGTH: 200.0 * (1 + 0.1 * (value + moved))}
        value = r * value + (1 - r * r) ** 0.5 * rng.gauss(0, 1)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.8])
def test_a_baseline_knows_how_alike_its_windows_are_and_what_it_is_worth(r: float) -> None:
    rng, found = random.Random(11), Moments()
    for window in alike(rng, 4000, r):
        found = found.with_(window[Measure.LENGTH])
    assert found.alike == pytest.approx(r, abs=0.05)
    assert found.effective == pytest.approx(4000 * (1 - r) / (1 + r), rel=0.25)
    assert found.deviation(Measure.LENGTH) == pytest.approx(20.0, rel=0.1)


def test_windows_that_are_alike_tell_no_drift_where_a_blind_test_does() -> None:
    policy, told, blindly = Policy(), 0, 0
    for seed in range(12):
        rng = random.Random(seed)
        watched = seen(Watched(), "a", alike(rng, policy.baseline_windows, 0.8), policy)
        one = watched.baseline[Measure.LENGTH]
        blind = replace(watched, baseline={Measure.LENGTH: Moments(one.n, one.mean, one.squares)})
        later = list(alike(rng, 1000, 0.8))
        told += until_found(watched, "a", later) is not None
        blindly += until_found(blind, "a", later) is not None
    assert told == 0
    assert blindly >= 3


@pytest.mark.parametrize("r", [0.3, 0.5])
@pytest.mark.parametrize("moved", [6.0, -6.0])
def test_a_large_change_is_found_all_the_same(r: float, moved: float) -> None:
    rng, policy = random.Random(2), Policy()
    watched = seen(Watched(), "a", alike(rng, policy.baseline_windows, r), policy)
    found = until_found(watched, "a", alike(rng, 50, r, moved))
    assert found is not None
    assert found <= 12


def test_a_baseline_of_an_earlier_release_is_one_of_independent_windows() -> None:
    said = {"origin": "a", "baseline": {"length": [96, 200.0, 95 * 400.0]}, "revisions": []}
    one = watched_in(said).baseline[Measure.LENGTH]
    assert one.alike == pytest.approx(0.0, abs=0.02)
    assert one.deviation(Measure.LENGTH) == pytest.approx(20.0, rel=0.01)
    with pytest.raises((TypeError, ValueError)):
        watched_in(said | {"baseline": {"length": [96]}})
