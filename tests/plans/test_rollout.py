"""Rollout: the two promises under random edits, reverts and deaths; transcripts that read as stories."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.rollout import Beside, RevisionState, RolloutLimits, plan_rollout
from tests.plans.rollout_world import World, run_until_quiet, step

GOLDEN = Path(__file__).parent.parent / "golden"
LIMITS = RolloutLimits(desired=3, max_surge=1, max_unavailable=0, history_limit=3)


def serving(name: str, ready: int, created: str = "2026-01-01T00:00:00Z") -> RevisionState:
    return RevisionState(name, replicas=ready, ready=ready, pods=ready, created=created)


def test_the_first_revision_gets_all_its_workers_at_once() -> None:
    plan = plan_rollout("a", [], LIMITS)
    assert plan.replicas == {"a": 3}


def test_a_new_revision_starts_with_the_surge_and_takes_nothing_away() -> None:
    plan = plan_rollout("b", [serving("a", 3)], LIMITS)
    assert plan.replicas == {"a": 3, "b": 1}


def test_an_old_worker_goes_only_after_a_new_one_is_ready() -> None:
    loading = RevisionState("b", replicas=1, ready=0, pods=1)
    assert plan_rollout("b", [serving("a", 3), loading], LIMITS).moves == ()
    assert plan_rollout("b", [serving("a", 3), serving("b", 1)], LIMITS).replicas == {"a": 2, "b": 1}


def test_without_surge_an_old_worker_goes_first() -> None:
    limits = RolloutLimits(desired=3, max_surge=0, max_unavailable=1, history_limit=3)
    assert plan_rollout("b", [serving("a", 3)], limits).replicas == {"a": 2, "b": 0}
    assert plan_rollout("b", [serving("a", 2)], limits).replicas == {"a": 2, "b": 1}


def test_a_broken_new_revision_leaves_the_old_one_serving() -> None:
    broken = RevisionState("b", replicas=1, ready=0, pods=1, broken=1)
    plan = plan_rollout("b", [serving("a", 3), broken], LIMITS)
    assert plan.is_empty
    assert plan.message == "3 old stay until 1 new are ready: 3 ready ≥ 3 minimum"


def test_a_revert_takes_the_old_deployment_up_again_and_drops_what_is_not_ready_first() -> None:
    between = RevisionState("b", replicas=2, ready=1, pods=2, created="2026-01-02T00:00:00Z")
    plan = plan_rollout("a", [serving("a", 2), between], LIMITS)
    assert plan.replicas["b"] == 1


def test_a_revision_in_between_that_never_served_goes_before_the_one_that_serves() -> None:
    between = RevisionState("b", replicas=1, ready=0, pods=1, created="2026-01-02T00:00:00Z")
    plan = plan_rollout("c", [serving("a", 3), between], LIMITS)
    assert plan.replicas == {"a": 3, "b": 0, "c": 0}


def test_old_workers_that_all_blink_at_once_are_not_dropped() -> None:
    blinking = RevisionState("a", replicas=3, ready=0, pods=3)
    plan = plan_rollout("b", [blinking], LIMITS)
    assert plan.replicas == {"a": 3, "b": 1}
    loading = RevisionState("b", replicas=1, ready=0, pods=1)
    assert plan_rollout("b", [blinking, loading], LIMITS).is_empty


def test_a_broken_old_worker_that_holds_the_only_gpu_makes_room_for_the_fix() -> None:
    limits = RolloutLimits(desired=1, max_surge=0, max_unavailable=1, history_limit=3)
    broken = RevisionState("a", replicas=1, ready=0, pods=1, broken=1)
    assert plan_rollout("b", [broken], limits).replicas["a"] == 0


def test_nothing_is_taken_away_before_kubernetes_has_seen_the_last_number() -> None:
    unseen = RevisionState("a", replicas=3, ready=3, pods=3, settled=False)
    assert plan_rollout("b", [unseen, serving("b", 1)], LIMITS).moves == ()


def test_workers_that_were_about_to_go_are_kept_at_once_when_they_are_wanted_again() -> None:
    going = RevisionState("a", replicas=0, ready=0, pods=2, settled=False)
    limits = RolloutLimits(desired=2, max_surge=1, max_unavailable=0, history_limit=0)
    assert plan_rollout("a", [going], limits).replicas == {"a": 2}


def test_the_wanted_number_rises_during_a_broken_rollout_and_the_serving_revision_grows() -> None:
    limits = RolloutLimits(desired=5, max_surge=1, max_unavailable=0, history_limit=3)
    broken = RevisionState("b", replicas=1, ready=0, pods=1, broken=1)
    assert plan_rollout("b", [serving("a", 3), broken], limits).replicas == {"a": 5, "b": 1}


def test_a_finished_rollout_never_brings_an_old_revision_back() -> None:
    finished = RevisionState("b", replicas=3, ready=2, pods=3)
    assert plan_rollout("b", [serving("a", 0), finished], LIMITS).is_empty


def test_scaling_to_zero_takes_every_revision() -> None:
    limits = RolloutLimits(desired=0, max_surge=1, max_unavailable=0, history_limit=3)
    assert plan_rollout("b", [serving("a", 2), serving("b", 1)], limits).replicas == {"a": 0, "b": 0}


def test_no_new_worker_starts_while_growing_is_not_allowed() -> None:
    plan = plan_rollout("b", [serving("a", 3)], LIMITS, may_grow=False)
    assert plan.is_empty


def test_fewer_wanted_workers_are_honoured_while_growing_is_not_allowed() -> None:
    limits = RolloutLimits(desired=1, max_surge=1, max_unavailable=0, history_limit=3)
    assert plan_rollout("a", [serving("a", 3)], limits, may_grow=False).replicas == {"a": 1}


def test_idle_revisions_beyond_the_history_limit_are_removed_oldest_first() -> None:
    idle = [serving(name, 0, f"2026-01-0{day}T00:00:00Z") for day, name in enumerate("abcd", start=1)]
    limits = RolloutLimits(desired=1, max_surge=1, max_unavailable=0, history_limit=2)
    assert plan_rollout("e", [*idle, serving("e", 1)], limits).remove == ("b", "a")


def test_a_revision_whose_workers_still_drain_is_not_removed() -> None:
    draining = RevisionState("a", replicas=0, ready=0, pods=0, leaving=1)
    limits = RolloutLimits(desired=1, max_surge=1, max_unavailable=0, history_limit=0)
    assert plan_rollout("b", [draining, serving("b", 1)], limits).remove == ()


# --- properties --------------------------------------------------------------------------------------------------

limits_drawn = st.builds(
    RolloutLimits,
    desired=st.integers(0, 6),
    max_surge=st.integers(0, 3),
    max_unavailable=st.integers(0, 3),
    history_limit=st.integers(0, 2),
).filter(lambda limits: limits.max_surge + limits.max_unavailable >= 1)
happenings = st.lists(
    st.tuples(
        st.sampled_from(["edit", "look", "look", "act", "act", "start", "start", "blink", "kill", "drained", "scale"]),
        st.sampled_from("abcd"),
        st.integers(0, 6),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(limits=limits_drawn, events=happenings, good=st.sets(st.sampled_from("abcd")), last=st.sampled_from("abcd"))
def test_the_promises_hold_at_every_step_and_the_end_is_all_new(
    limits: RolloutLimits, events: list[tuple[str, str, int]], good: set[str], last: str
) -> None:
    world, target = World(good | {last}), "a"
    for what, revision, number in events:
        match what:
            case "edit":
                target = revision
            case "look":
                step(world, target, limits)
            case "scale":
                limits = RolloutLimits(number, limits.max_surge, limits.max_unavailable, limits.history_limit)
            case _ if revision in world.revisions:
                getattr(world, what)(revision)
    run_until_quiet(world, last, limits)
    asked = {name: revision.replicas for name, revision in world.revisions.items() if revision.replicas}
    assert asked == ({last: limits.desired} if limits.desired else {})
    assert len(world.revisions) <= limits.history_limit + 1


@settings(max_examples=200, deadline=None)
@given(limits=limits_drawn, workers=st.integers(0, 6))
def test_a_revision_that_never_works_never_costs_a_promised_worker(limits: RolloutLimits, workers: int) -> None:
    world = World(good={"a"})
    run_until_quiet(world, "a", limits)
    run_until_quiet(world, "b", limits)
    assert world.ready() >= limits.minimum_ready
    run_until_quiet(world, "a", limits)
    assert world.revisions["a"].replicas == world.ready() == limits.desired


@settings(max_examples=400, deadline=None)
@given(
    limits=limits_drawn,
    events=happenings,
    good=st.sets(st.sampled_from("abcd")),
    share=st.integers(0, 6),
)
def test_the_promises_hold_while_a_revision_is_tried_beside_another(
    limits: RolloutLimits, events: list[tuple[str, str, int]], good: set[str], share: int
) -> None:
    world, target, beside = World(good | {"a"}), "a", None
    for what, revision, number in events:
        match what:
            case "edit" if revision == target:
                beside = None
            case "edit" if number < 4:
                beside = Beside(revision, min(share, limits.desired))
            case "edit":
                target, beside = revision, None
            case "look":
                step(world, target, limits, beside)
            case "scale":
                limits = RolloutLimits(number, limits.max_surge, limits.max_unavailable, limits.history_limit)
                beside = Beside(beside.name, min(share, number)) if beside else None
            case _ if revision in world.revisions:
                getattr(world, what)(revision)
    run_until_quiet(world, "a", limits)
    tried = Beside("b", min(share, limits.desired))
    run_until_quiet(world, "a", limits, tried)
    assert world.revisions["a"].replicas + tried.replicas >= limits.desired
    assert world.asked() <= limits.most
    if "b" in good:
        assert world.revisions["b"].replicas == tried.replicas
    run_until_quiet(world, "a", limits)
    assert {name: one.replicas for name, one in world.revisions.items() if one.replicas} == (
        {"a": limits.desired} if limits.desired else {}
    )


def test_a_tried_revision_takes_the_surge_first_and_then_the_place_of_others() -> None:
    assert plan_rollout("a", [serving("a", 3)], LIMITS, beside=Beside("b", 2)).replicas == {"a": 3, "b": 1}
    after = plan_rollout("a", [serving("a", 3), serving("b", 1)], LIMITS, beside=Beside("b", 2))
    assert after.replicas == {"a": 2, "b": 1}
    assert plan_rollout("a", [serving("a", 2), serving("b", 1)], LIMITS, beside=Beside("b", 2)).replicas["b"] == 2


# --- transcripts --------------------------------------------------------------------------------------------------


Edits = list[tuple[str, RolloutLimits]]


def transcript(edits: Edits, good: list[str]) -> str:
    world, lines = World(good), []
    for target, limits in edits:
        lines.append(
            f"wanted: {limits.desired} of '{target}', "
            f"maxSurge {limits.max_surge}, maxUnavailable {limits.max_unavailable}"
        )
        lines += [f"  {plan.message}" for plan in run_until_quiet(world, target, limits) if plan.moves]
        lines.append(f"  {plan_rollout(target, world.states(), limits).message}")
    return "\n".join(lines) + "\n"


STORIES: dict[str, tuple[Edits, list[str]]] = {
    "rollout_surge": ([("old", LIMITS), ("new", LIMITS)], ["old", "new"]),
    "rollout_no_surge": (
        [("old", RolloutLimits(3, 0, 1, 3)), ("new", RolloutLimits(3, 0, 1, 3))],
        ["old", "new"],
    ),
    "rollout_broken_and_reverted": ([("old", LIMITS), ("bad", LIMITS), ("fix", LIMITS)], ["old", "fix"]),
    "rollout_broken_and_scaled": (
        [("old", LIMITS), ("bad", LIMITS), ("bad", RolloutLimits(5, 1, 0, 3)), ("old", RolloutLimits(2, 1, 0, 3))],
        ["old"],
    ),
}


@pytest.mark.parametrize("name", sorted(STORIES))
def test_the_story_of_a_rollout_is_as_told(name: str) -> None:
    edits, good = STORIES[name]
    assert transcript(edits, good) == (GOLDEN / f"{name}.txt").read_text()
