"""The node agent's planner: what is removed, evicted, fetched, held back and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.plans.model_cache import (
    Action,
    Budget,
    Copy,
    Evict,
    Fetch,
    Hold,
    ModelRef,
    Refuse,
    Remove,
    Wait,
    Wanted,
    plan,
)

MB = 10**6


def ref(name: str) -> ModelRef:
    return ModelRef("demo", name)


def test_a_copy_that_no_model_asks_for_is_removed_at_once() -> None:
    (action,) = plan([Copy(ref("a"), MB, 0.0)], [], set(), Budget(10 * MB))
    assert action == Remove(ref("a"), "No Model asks for a copy of 'demo/a' on this node.")


def test_a_copy_in_use_stays_even_if_its_model_is_gone() -> None:
    assert plan([Copy(ref("a"), MB, 0.0)], [], {ref("a")}, Budget(10 * MB)) == []


def test_a_copy_of_other_weights_is_replaced_unless_a_pod_reads_it() -> None:
    old = Copy(ref("a"), MB, 0.0, current=False)
    assert [type(one) for one in plan([old], [Wanted(ref("a"), MB)], set(), Budget(10 * MB))] == [Remove, Fetch]
    assert [type(one) for one in plan([old], [Wanted(ref("a"), MB)], {ref("a")}, Budget(10 * MB))] == [Wait]


def test_the_least_recently_used_copy_makes_room() -> None:
    copies = [Copy(ref("old"), 4 * MB, 1.0), Copy(ref("new"), 4 * MB, 2.0)]
    wanted = [Wanted(ref("old")), Wanted(ref("new")), Wanted(ref("c"), 5 * MB)]
    actions = plan(copies, wanted, set(), Budget(10 * MB))
    assert actions == [Evict(ref("old"), "4 MB made room for 'demo/c' (5 MB)."), Fetch(ref("c"))]


def test_an_evicted_model_waits_while_there_is_no_room() -> None:
    (action,) = plan(
        [Copy(ref("b"), 6 * MB, 5.0)],
        [Wanted(ref("b")), Wanted(ref("a"), 6 * MB, evicted=True)],
        set(),
        Budget(10 * MB),
    )
    assert action == Hold(
        ref("a"), "Evicted to make room; comes back when a worker on this node needs it or 6 MB is free."
    )


def test_an_evicted_model_comes_back_for_a_pod_and_when_there_is_room() -> None:
    away = Wanted(ref("a"), 6 * MB, evicted=True)
    idle = Copy(ref("b"), 6 * MB, 5.0)
    assert [type(one) for one in plan([idle], [Wanted(ref("b")), away], {ref("a")}, Budget(10 * MB))] == [Evict, Fetch]
    assert plan([], [away], set(), Budget(10 * MB)) == [Fetch(ref("a"))]


@pytest.mark.parametrize("begun", [{"started": True}, {"partial_bytes": 2 * MB}])
def test_what_an_evicted_model_has_fetched_again_is_not_given_up_for_one_of_unknown_size(begun: dict[str, Any]) -> None:
    away = Wanted(ref("a"), 6 * MB, evicted=True)
    assert [type(one) for one in plan([], [away, Wanted(ref("b"))], set(), Budget(10 * MB))] == [Fetch, Hold]
    assert set(plan([], [replace(away, **begun), Wanted(ref("b"))], set(), Budget(10 * MB))) == {
        Fetch(ref("a")),
        Fetch(ref("b")),
    }
    large = Wanted(ref("b"), 6 * MB, started=True)
    assert [type(one) for one in plan([], [replace(away, partial_bytes=MB), large], set(), Budget(10 * MB))] == [
        Fetch,
        Hold,
    ]


def test_no_room_is_refused_with_sizes_and_users() -> None:
    copies = [Copy(ref("busy"), 8 * MB, 0.0)]
    (action,) = plan(copies, [Wanted(ref("busy")), Wanted(ref("a"), 5 * MB)], {ref("busy")}, Budget(10 * MB))
    assert isinstance(action, Refuse)
    assert action.message == (
        "Model 'demo/a' needs 5 MB; 2 MB of the cache's 10 MB are free, and workers on this node use demo/busy."
        " Raise the cache size, or keep the Model off this node by spec.nodeSelector."
    )


def test_a_model_larger_than_the_cache_evicts_nothing() -> None:
    (action,) = plan([Copy(ref("b"), MB, 0.0)], [Wanted(ref("b")), Wanted(ref("a"), 11 * MB)], set(), Budget(10 * MB))
    assert isinstance(action, Refuse)
    assert "has 11 MB; the whole cache of this node may have 10 MB" in action.message


def test_what_there_is_of_a_download_of_unknown_size_takes_room() -> None:
    endless = Wanted(ref("endless"), partial_bytes=8 * MB, started=True)
    small = Wanted(ref("small"), 3 * MB)
    fetch, refused = plan([], [endless, small], set(), Budget(10 * MB))
    assert fetch == Fetch(ref("endless"))
    assert isinstance(refused, Refuse)
    assert "needs 3 MB; 2 MB of the cache's 10 MB are free" in refused.message


def test_a_download_of_unknown_size_makes_room_for_what_a_pod_waits_for() -> None:
    endless = Wanted(ref("endless"), partial_bytes=8 * MB, started=True)
    fetch, refused = plan([], [endless, Wanted(ref("small"), 3 * MB)], {ref("small")}, Budget(10 * MB))
    assert fetch == Fetch(ref("small"))
    assert isinstance(refused, Refuse)
    assert refused.message.startswith("Model 'demo/endless' needs 8 MB or more; 7 MB of the cache's 10 MB are free.")


def test_a_disk_that_others_have_filled_is_told_and_takes_no_copy_that_is_in_use() -> None:
    budget = Budget(5 * MB, disk_keeps_free_bytes=20 * MB)
    copies = [Copy(ref("busy"), 4 * MB, 0.0), Copy(ref("idle"), 3 * MB, 0.0)]
    wanted = [Wanted(ref("busy")), Wanted(ref("idle")), Wanted(ref("a"), 2 * MB), Wanted(ref("b"), 9 * MB)]
    evicted, *refused = plan(copies, wanted, {ref("busy")}, budget)
    assert evicted == Evict(ref("idle"), "The cache may have 5 MB (its disk keeps 20 MB free) in all.")
    remedy = "Free the disk, lower modelCache.keepFreePercent, or keep the Model off this node by spec.nodeSelector."
    assert [one.message for one in refused if isinstance(one, Refuse)] == [
        "Model 'demo/a' needs 2 MB; 1 MB of the cache's 5 MB (its disk keeps 20 MB free) are free, and workers on this"
        f" node use demo/busy. {remedy}",
        f"Model 'demo/b' has 9 MB; the whole cache of this node may have 5 MB (its disk keeps 20 MB free). {remedy}",
    ]


def test_what_a_pod_waits_for_comes_before_what_nobody_needs() -> None:
    wanted = [Wanted(ref("a"), 6 * MB), Wanted(ref("b"), 6 * MB)]
    actions = plan([], wanted, {ref("b")}, Budget(10 * MB))
    assert [type(one) for one in actions] == [Fetch, Refuse]
    assert actions[0].model == ref("b")


refs = st.sampled_from([ref(name) for name in "abcdef"])
sizes = st.integers(0, 12)


@st.composite
def nodes(draw: st.DrawFn) -> tuple[list[Copy], list[Wanted], set[ModelRef], Budget]:
    copies = [
        Copy(model, draw(sizes), draw(st.floats(0, 9)), draw(st.booleans()))
        for model in draw(st.lists(refs, unique=True))
    ]
    wanted = [
        Wanted(model, draw(st.none() | sizes), draw(sizes), draw(st.booleans()), draw(st.booleans()))
        for model in draw(st.lists(refs, unique=True))
    ]
    return copies, wanted, draw(st.sets(refs)), Budget(draw(st.integers(0, 20)))


def done(copies: list[Copy], wanted: list[Wanted], actions: list[Action]) -> tuple[list[Copy], list[Wanted]]:
    """The node after the actions: deleted copies are gone, evicted ones remembered, fetches of known size finished."""
    gone = {one.model for one in actions if isinstance(one, Remove | Evict)}
    evicted = {one.model for one in actions if isinstance(one, Evict)}
    fetched = {one.model for one in actions if isinstance(one, Fetch)}
    totals = {one.model: one.total_bytes for one in wanted}
    sizes_before = {copy.model: copy.size_bytes for copy in copies}
    kept = [copy for copy in copies if copy.model not in gone and copy.model not in fetched]
    made = [Copy(model, size, 10.0) for model in fetched for size in [totals[model]] if size is not None]
    dropped = {one.model for one in actions if isinstance(one, Hold | Wait | Refuse)}
    after = [
        Wanted(one.model, sizes_before[one.model], evicted=True)
        if one.model in evicted
        else replace(one, partial_bytes=0 if one.model in dropped else one.partial_bytes)
        for one in wanted
    ]
    return kept + made, after


@given(nodes())
def test_a_copy_in_use_is_never_touched(node: tuple[list[Copy], list[Wanted], set[ModelRef], Budget]) -> None:
    copies, wanted, used, budget = node
    touched = {one.model for one in plan(copies, wanted, used, budget) if isinstance(one, Remove | Evict)}
    assert not touched & used


@given(nodes())
def test_after_the_plan_only_copies_in_use_can_exceed_the_budget(
    node: tuple[list[Copy], list[Wanted], set[ModelRef], Budget],
) -> None:
    copies, wanted, used, budget = node
    after, _ = done(copies, wanted, plan(copies, wanted, used, budget))
    in_use = sum(copy.size_bytes for copy in after if copy.model in used)
    assert sum(copy.size_bytes for copy in after) <= max(budget.size_bytes, in_use)


@given(nodes())
def test_repeating_the_plan_comes_to_rest_and_evicts_each_model_at_most_once(
    node: tuple[list[Copy], list[Wanted], set[ModelRef], Budget],
) -> None:
    copies, wanted, used, budget = node
    evicted: list[ModelRef] = []
    for _ in range(2 * len(wanted) + len(copies) + 2):
        actions = plan(copies, wanted, used, budget)
        evicted += [one.model for one in actions if isinstance(one, Evict)]
        copies, wanted = done(copies, wanted, actions)
        if not any(isinstance(one, Remove | Evict) for one in actions) and actions == plan(
            copies, wanted, used, budget
        ):
            break
    else:
        raise AssertionError("The plan does not come to rest.")
    assert len(evicted) == len(set(evicted))


@given(nodes())
def test_each_missing_model_gets_exactly_one_answer(
    node: tuple[list[Copy], list[Wanted], set[ModelRef], Budget],
) -> None:
    copies, wanted, used, budget = node
    answers = [one.model for one in plan(copies, wanted, used, budget) if isinstance(one, Fetch | Hold | Wait | Refuse)]
    assert len(answers) == len(set(answers))
    present = {copy.model for copy in copies if copy.current}
    assert {one.model for one in wanted} - present <= set(answers)
