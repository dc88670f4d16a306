"""What is done about a diagnosis: in whose turn, how much at a time, and what happens when it does not help."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.healing.plan import plan_healing
from controllers.plans.healing.symptoms import FRESH_S
from controllers.plans.healing.values import NodeFacts, Objections
from controllers.plans.snapshot import Worker
from controllers.plans.times import rfc3339
from crds.healing import ACTIONS_MOST, HealthStatus, Outcome, Remedy
from tests.plans.healing.patients import (
    LONG_AGO,
    NOW_S,
    Ward,
    by_all,
    crashing,
    lost,
    nodes,
    seen,
    slow,
    well,
)

GOLDEN = Path(__file__).parents[2] / "golden"
A, B, C = well("a"), well("b", "node-2"), well("c", "node-2")
GONE = NodeFacts("node-1", ready=False, said="Kubelet stopped posting node status.", since=LONG_AGO)


def outcomes(ward: Ward) -> list[tuple[Remedy, Outcome]]:
    actions = (ward.view.health or HealthStatus()).actions or []
    return [(one.remedy, one.outcome) for one in actions]


def next_of(ward: Ward) -> str:
    findings = (ward.view.health or HealthStatus()).findings or []
    return findings[0].next if findings else ""


# --- turns ------------------------------------------------------------------------------------------------------------


def test_the_kubelet_goes_first_and_the_operator_only_when_that_did_not_come() -> None:
    ward = Ward(seen(A, B, C, objections=by_all(a=lost(for_s=3.0))), 3)
    assert ward.look().restarts == ()
    assert next_of(ward).startswith("First Gateways have moved its requests to others; the kubelet restarts it")
    ward.wait(30)
    ward.hears(by_all(a=lost(for_s=33.0)))
    (restart,) = ward.look().restarts
    assert (restart.pod, restart.uid, restart.grace_s) == ("a", "uid-a", 5)


def test_a_worker_that_still_answers_drains_before_it_goes_and_only_while_all_others_stand() -> None:
    unready = replace(C, ready=False, ready_since=None, unready_since=rfc3339(NOW_S - 5))
    ward = Ward(seen(A, B, unready, objections=by_all(a=slow())), 3)
    assert ward.look().restarts == ()
    assert "not all other workers are ready" in next_of(ward)
    ward.view = replace(ward.view, workers=(A, B, C))
    (restart,) = ward.look().restarts
    assert (restart.pod, restart.grace_s) == ("a", None)


def test_what_helped_is_said_and_what_was_found_is_gone() -> None:
    ward = Ward(seen(A, B, C, objections=by_all(a=lost())), 3)
    ward.look()
    assert outcomes(ward) == [(Remedy.RESTART_WORKER, Outcome.PENDING)]
    ward.hears(by_all())
    ward.wait(10)
    ward.look()
    assert outcomes(ward) == [(Remedy.RESTART_WORKER, Outcome.PENDING)], "too early to say"
    ward.wait(10)
    plan = ward.look()
    assert outcomes(ward) == [(Remedy.RESTART_WORKER, Outcome.HELPED)]
    assert [one.outcome for one in plan.counted] == ["Helped"]
    assert plan.worst is None
    assert ward.deleted == ["a"]


def test_a_successor_that_shows_the_same_says_that_it_did_not_help_and_each_further_try_waits_longer() -> None:
    ward = Ward(seen(A, B, C, objections=by_all(a=slow())), 3)
    tried_at_s: list[float] = []
    for _ in range(1000):
        if any(restart for restart in ward.look().restarts):
            tried_at_s.append(ward.now_s)
        ward.slow(*(one.name for one in ward.view.workers if one.node == "node-1"))
        ward.wait(2)
    gaps = [round(after - before, -1) for before, after in itertools.pairwise(tried_at_s)]
    assert gaps == [30, 60, 120, 240, 480, 960]
    assert {outcome for _, outcome in outcomes(ward)} == {Outcome.NOT_HELPED}


@pytest.mark.parametrize(
    ("ill", "remedy"),
    [
        (crashing("a"), Remedy.RESTART_WORKER),
        (crashing("a", ended_code=None, restarts=0, waiting_reason="CreateContainerError"), Remedy.RESTART_WORKER),
        (crashing("a", ended_code=137, ended_reason="OOMKilled"), None),
    ],
)
def test_a_worker_that_does_not_get_up_while_its_siblings_stand_gets_a_new_pod_after_a_minute(
    ill: Worker, remedy: Remedy | None
) -> None:
    young = replace(ill, created=rfc3339(NOW_S), unready_since=rfc3339(NOW_S))
    ward = Ward(seen(young, B, C), 3)
    assert ward.look().restarts == ()
    ward.wait(61)
    ward.look()
    assert [one for one, _ in outcomes(ward)] == ([remedy] if remedy else [])


def test_a_remedy_that_was_recorded_and_never_done_is_done_by_the_next_leader() -> None:
    for heard, grace_s in ((by_all(a=lost()), 5), (by_all(a=slow()), None)):
        ward = Ward(seen(A, B, C, objections=heard), 3)
        ward.look(replace_pods=False)
        assert outcomes(ward) == [(Remedy.RESTART_WORKER, Outcome.PENDING)]
        assert ward.look(replace_pods=False).restarts == (), "the first delete may be on its way"
        ward.wait(6)
        plan = ward.look(replace_pods=False)
        assert [(one.pod, one.grace_s) for one in plan.restarts] == [("a", grace_s)]
        assert len(outcomes(ward)) == 1, "and it is not recorded twice"


def test_workers_of_a_node_that_is_gone_are_moved_one_after_the_other() -> None:
    workers = [well(f"w{i}", "node-1" if i < 3 else "node-2") for i in range(8)]
    ward = Ward(seen(*workers, nodes=nodes(GONE, NodeFacts("node-2"))), 8)
    moved: list[str] = []
    for _ in range(40):
        for restart in ward.look(replace_pods=False).restarts:
            if restart.pod not in moved:
                moved.append(restart.pod)
                left = [one for one in ward.view.workers if one.name != restart.pod]
                young = well(f"{restart.pod}-next", "node-2", created=rfc3339(ward.now_s))
                ward.view = replace(ward.view, workers=(*left, young))
        ward.wait(5)
    assert moved == ["w0", "w1", "w2"]
    assert outcomes(ward) == [(Remedy.MOVE_WORKER, Outcome.HELPED)] * 3


# --- going back -------------------------------------------------------------------------------------------------------


def rolled_back() -> Ward:
    ward = Ward(seen(well("old-1", revision="old"), crashing("a"), health=HealthStatus(last_good="old")), 1)
    plan = ward.look()
    assert plan.serve == "old"
    return ward


def test_a_new_revision_that_can_only_crash_gives_way_to_the_last_that_stood() -> None:
    ward = rolled_back()
    assert outcomes(ward) == [(Remedy.ROLL_BACK, Outcome.PENDING)]
    ward.view = replace(ward.view, workers=(well("old-1", revision="old"),))
    ward.wait(20)
    plan = ward.look()
    assert outcomes(ward) == [(Remedy.ROLL_BACK, Outcome.HELPED)]
    assert plan.worst is not None
    assert plan.worst.next == "Revision old serves instead of new."
    ward.wait(100_000)
    assert ward.look().serve == "old", "until somebody edits the spec"


def test_a_rollback_is_recorded_once_while_the_last_workers_of_the_refused_revision_still_crash() -> None:
    ward = rolled_back()
    for _ in range(3):
        ward.wait(1)
        assert ward.look().serve == "old"
    assert outcomes(ward) == [(Remedy.ROLL_BACK, Outcome.PENDING)]
    assert next_of(ward) == "Revision old serves instead of new."


def test_an_edit_ends_a_rollback_and_everything_is_as_the_spec_says_again() -> None:
    ward = rolled_back()
    before = seen(well("old-1", revision="old"), crashing("a"), health=HealthStatus(last_good="old"))
    ward.wanted = "newer"
    ward.view = replace(ward.view, workers=(well("old-1", revision="old"),))
    plan = ward.look()
    assert plan.serve is None
    assert plan.refused is None
    assert outcomes(ward) == [(Remedy.ROLL_BACK, Outcome.UNDONE)]
    assert plan.memory.last_good == (before.health or HealthStatus()).last_good


def test_a_rollback_to_a_revision_that_does_not_come_up_either_is_undone() -> None:
    ward = rolled_back()
    ward.view = replace(ward.view, workers=(crashing("old-1", revision="old"),))
    ward.wait(299)
    assert ward.look().serve == "old"
    ward.wait(2)
    assert ward.look().serve is None
    assert outcomes(ward) == [(Remedy.ROLL_BACK, Outcome.UNDONE)]
    assert any("RemedyUndone" in line for line in ward.lines)


def test_what_the_spec_asks_for_need_not_be_known_for_a_rollback_to_stand() -> None:
    ward = rolled_back()
    ward.wanted = None
    assert ward.look().serve == "old"


@pytest.mark.parametrize(
    "rollout",
    [{"strategy": "canary"}, {"strategy": "blueGreen"}, {"rollbackTo": "older"}],
)
def test_canaries_and_persons_decide_for_themselves_about_going_back(rollout: dict[str, Any]) -> None:
    view = seen(
        well("old-1", revision="old"),
        crashing("a"),
        health=HealthStatus(last_good="old"),
        spec_fields={"rollout": rollout},
    )
    ward = Ward(view, 1)
    assert ward.look().serve is None
    assert next_of(ward).startswith("Left to others: the rollout")


def test_without_an_earlier_revision_a_person_has_to_correct_the_spec() -> None:
    ward = Ward(seen(crashing("a"), health=HealthStatus(last_good="gone")), 1)
    assert ward.look().serve is None
    assert "No earlier revision is kept (gone stood last)" in next_of(ward)


def test_a_revision_is_good_when_all_of_its_workers_have_stood_for_a_minute_and_the_first_one_at_once() -> None:
    def young(for_s: float) -> Worker:
        return well("a", ready_since=rfc3339(NOW_S - for_s))

    old = HealthStatus(last_good="old")
    for view, desired, good in (
        (seen(young(59), B, health=old), 2, "old"),
        (seen(young(60), B, health=old), 2, "new"),
        (seen(young(60), B, health=old), 3, "old"),
        (seen(A, crashing("b"), health=old), 2, "old"),
        (seen(young(1), B, health=None), 2, "new"),
        (seen(young(1), health=None), 2, None),
        (seen(health=None), 0, None),
    ):
        assert Ward(view, desired).look().memory.last_good == good


# --- a person's word --------------------------------------------------------------------------------------------------


def test_advise_only_says_what_it_would_do() -> None:
    ward = Ward(seen(A, B, C, objections=by_all(a=lost()), healing={"mode": "advise"}), 3)
    assert ward.look().restarts == ()
    assert next_of(ward) == "Advised only (spec.healing.mode is advise): RestartWorker."


def test_off_neither_looks_nor_remembers() -> None:
    view = seen(A, B, C, objections=by_all(a=lost()), healing={"mode": "off"})
    assert plan_healing(view, "new", 3, NOW_S) is None


# --- promises ---------------------------------------------------------------------------------------------------------

reasons = st.sampled_from(["hung", "silent", "refused", "slow"])
happenings = st.lists(st.tuples(st.integers(0, 19), reasons, st.integers(1, 40)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    events=happenings,
    size=st.integers(1, 20),
    share=st.sampled_from(["0%", "10%", "25%", "99%"]),
    starts=st.booleans(),
)
def test_never_more_than_the_budget_at_a_time_and_never_more_remembered_than_fits(
    events: list[tuple[int, str, int]], size: int, share: str, starts: bool
) -> None:
    workers = [well(f"w{i}", f"node-{i % 5}") for i in range(size)]
    ward = Ward(seen(*workers, healing={"maxUnavailable": share}), size, starts=starts)
    budget = max(1, math.ceil(float(share[:-1]) / 100 * size))
    for which, reason, seconds in events:
        ill = ward.view.workers[which % len(ward.view.workers)]
        ward.hears(by_all(**{ill.name: slow() if reason == "slow" else lost(reason)}))
        ward.look()
        pending = [outcome for _, outcome in outcomes(ward) if outcome is Outcome.PENDING]
        assert len(pending) <= budget
        assert len(outcomes(ward)) <= ACTIONS_MOST
        ward.wait(seconds)


@settings(max_examples=200, deadline=None)
@given(
    ill=st.lists(st.integers(0, 5), max_size=6),
    reason=reasons,
    age_s=st.floats(FRESH_S + 0.001, 1e6),
    looks=st.integers(1, 5),
)
def test_nothing_is_done_on_what_was_said_too_long_ago(ill: list[int], reason: str, age_s: float, looks: int) -> None:
    workers = [well(f"w{i}", f"node-{i}") for i in range(6)]
    said = {f"w{i}": slow() if reason == "slow" else lost(reason) for i in ill}
    ward = Ward(seen(*workers, objections=replace(by_all(**said), age_s=age_s)), 6)
    for _ in range(looks):
        plan = ward.look()
        assert (plan.restarts, plan.serve, plan.worst, plan.told) == ((), None, None, ())
        ward.wait(60)


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(0, 8),
    waits=st.lists(st.floats(0, 7200), max_size=20),
    blinks=st.lists(st.integers(0, 7), max_size=20),
)
def test_a_quiet_time_has_no_actions_and_after_a_minute_nothing_to_write(
    size: int, waits: list[float], blinks: list[int]
) -> None:
    """Losses that pass within a second or two, and an ejection or two, are everyday life."""
    workers = [well(f"w{i}", f"node-{i % 2}") for i in range(size)]
    ward = Ward(seen(*workers), size)
    first = ward.look().memory
    for wait_s, which in zip(waits, blinks, strict=False):
        blink = f"w{which}"
        ward.hears(by_all(**{blink: lost(for_s=1.0)}) if which % 2 else by_all(**{blink: slow(times=2)}))
        plan = ward.look()
        assert (plan.restarts, plan.serve, plan.worst, plan.told, plan.counted) == ((), None, None, (), ())
        assert plan.memory == first
        ward.wait(wait_s)


@given(age_s=st.floats(0, FRESH_S), times=st.integers(0, 2))
def test_planning_again_right_after_gives_the_same_memory(age_s: float, times: int) -> None:
    view = seen(A, B, C, objections=Objections(by_all(a=lost(for_s=10.0), b=slow(times)).by_gateway, age_s))
    ward = Ward(view, 3)
    first = ward.look().memory
    assert ward.look().memory == first
    assert ward.look().told == ()


# --- the story --------------------------------------------------------------------------------------------------------


def test_a_slow_worker_reads_as_a_story() -> None:
    """A worker is slow twice on node-1, and stands on its third start."""
    ward = Ward(seen(A, B, C), 3)
    ill: list[str] = ["a"]
    for _ in range(120):
        ward.slow(*ill)
        before = {one.name for one in ward.view.workers}
        ward.look()
        made = {one.name for one in ward.view.workers} - before
        if made and len(ward.deleted) < 2:
            ill += made
        ward.wait(2)
    text = "\n".join([*ward.lines, *(f"{one[0].value}: {one[1].value}" for one in outcomes(ward))]) + "\n"
    assert text == (GOLDEN / "healing_slow_worker.txt").read_text()
