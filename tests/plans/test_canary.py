"""Canaries: stories as golden transcripts under every order of controllers, and the promises under random edits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controllers.plans.canary.outputs import Answer, Asked, compare_outputs
from controllers.plans.canary.values import Hold
from crds.rollout import OutputCheck, Rollout, RolloutOutcome, RolloutPhase, RolloutStatus
from tests.plans.canary_world import Behaviour, Service, settled
from tests.plans.rollout_world import World

GOLDEN = Path(__file__).parent.parent / "golden"
CANARY = {"strategy": "canary", "steps": [{"weight": 10, "duration": "1m"}, {"weight": 50, "duration": "1m"}]}
BLUE_GREEN = {"strategy": "blueGreen"}


def service(*good: str, **rollout: object) -> Service:
    """Serving `a` with three workers."""
    it = Service(World(good or ("a", "b")), Rollout.model_validate(CANARY | rollout))
    for _ in range(6):
        it.look()
        it.kubernetes()
    assert it.status is not None
    assert (it.status.phase, it.status.stable) == (RolloutPhase.STABLE, "a")
    return it


def go_on(
    it: Service, *, until: RolloutPhase | None = None, ticks: int = 120, order: random.Random | None = None
) -> list[str]:
    """Looks, controllers and, whenever those rest, half a minute with 2,000 requests. What changed, as lines."""
    lines: list[str] = []
    for _ in range(ticks):
        before, told = it.traffic, len(it.told)
        it.look()
        lines += [f"  {one}" for one in it.told[told:]]
        if it.traffic != before:
            lines.append(f"  traffic: {', '.join(_share(one) for one in it.traffic) or 'all workers alike'}")
        names = list(it.world.revisions)
        if order:
            order.shuffle(names)
            names = names[: order.randint(0, len(names))]
        it.kubernetes(names)
        if settled(it.world):
            it.now_s += 30
            it.requests(2000)
        if until and it.status and it.status.phase is until and settled(it.world):
            break
    return lines


def _share(one: object) -> str:
    mirror = getattr(one, "mirror", None)
    return f"{getattr(one, 'revision', '')} {getattr(one, 'weight', '')}%" + (
        f" + copies of {mirror}%" if mirror else ""
    )


# --- stories ------------------------------------------------------------------------------------------------------

Story = Callable[[random.Random | None], list[str]]


def _try(it: Service, order: random.Random | None, title: str) -> list[str]:
    it.target = "b"
    return [title, *go_on(it, order=order)]


def good(order: random.Random | None) -> list[str]:
    return _try(service(), order, "a serves; b is as good")


def failing(order: random.Random | None) -> list[str]:
    it = service()
    it.behaviours["b"] = Behaviour(errors=0.04)
    return _try(it, order, "a serves; 4% of b's requests fail")


def collapsing(order: random.Random | None) -> list[str]:
    it = service()
    it.behaviours["b"] = Behaviour(errors=0.6)
    return _try(it, order, "a serves; most of b's requests fail")


def slow(order: random.Random | None) -> list[str]:
    it = service()
    it.behaviours["b"] = Behaviour(ttft=1.5)
    return _try(it, order, "a serves; b's first tokens take half as long again")


def wrong(order: random.Random | None) -> list[str]:
    it = service(outputs={"prompts": ["x", "y"]})
    it.behaviours["b"] = Behaviour(answers_right=False)
    return _try(it, order, "a serves; b answers nonsense")


def never_ready(order: random.Random | None) -> list[str]:
    return _try(service("a"), order, "a serves; b never becomes ready")


def reverted(order: random.Random | None) -> list[str]:
    it = service()
    it.target = "b"
    lines = ["a serves; b is tried, and the edit is taken back", *go_on(it, ticks=5)]
    it.target = "a"
    return [*lines, "the spec is a's again", *go_on(it, order=order)]


def paused(order: random.Random | None) -> list[str]:
    it = service(paused=True)
    lines = _try(it, order, "a serves; b is tried, paused")
    it.edit(paused=False)
    return [*lines, "paused: false", *go_on(it, order=order)]


def blue_green(order: random.Random | None) -> list[str]:
    return _try(service(**BLUE_GREEN, steps=None), order, "a serves; b is as good, and is switched to at once")


STORIES: dict[str, Story] = {
    "canary_good": good,
    "canary_failing": failing,
    "canary_collapsing": collapsing,
    "canary_slow": slow,
    "canary_wrong_answers": wrong,
    "canary_never_ready": never_ready,
    "canary_reverted": reverted,
    "canary_paused": paused,
    "canary_blue_green": blue_green,
}


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("name", sorted(STORIES))
def test_a_canary_is_the_same_story_whatever_the_order_of_controllers(name: str, seed: int | None) -> None:
    told = STORIES[name](None if seed is None else random.Random(seed))
    assert "\n".join(told) + "\n" == (GOLDEN / f"{name}.txt").read_text()


# --- a person's words ------------------------------------------------------------------------------------------------


def phase(it: Service) -> tuple[RolloutPhase, str | None]:
    assert it.status
    return it.status.phase, it.status.stable


def outcomes(it: Service) -> list[tuple[str, RolloutOutcome]]:
    """Newest first."""
    assert it.status
    return [(one.revision, one.outcome) for one in it.status.history or []]


def test_abort_names_a_revision_and_leaves_the_next_one_alone() -> None:
    it = service("a", "b", "c")
    it.target = "b"
    go_on(it, ticks=4)
    it.edit(abort="b")
    go_on(it)
    assert phase(it) == (RolloutPhase.ROLLED_BACK, "a")
    it.target = "c"
    go_on(it)
    assert phase(it) == (RolloutPhase.STABLE, "c")
    assert outcomes(it) == [("c", RolloutOutcome.PROMOTED), ("b", RolloutOutcome.ROLLED_BACK)]


def test_promote_goes_past_steps_tests_and_budget_even_for_a_revision_that_was_refused() -> None:
    it = service()
    it.behaviours["b"] = Behaviour(errors=0.5)
    it.target = "b"
    go_on(it)
    assert phase(it) == (RolloutPhase.ROLLED_BACK, "a")
    it.edit(promote="b")
    it.budget = "the error budget is spent"
    go_on(it)
    assert phase(it) == (RolloutPhase.STABLE, "b")


def test_a_refused_revision_stays_refused_until_the_spec_is_another() -> None:
    it = service("a", "b", "c")
    it.behaviours["b"] = Behaviour(errors=0.5)
    it.target = "b"
    go_on(it)
    told = len(it.told)
    go_on(it)
    assert len(it.told) == told
    it.target = "c"
    go_on(it)
    assert phase(it) == (RolloutPhase.STABLE, "c")


def test_a_spent_error_budget_holds_a_canary_before_its_first_worker() -> None:
    it = service()
    it.budget = "the error budget of SLA gold is spent: 130% in 28d"
    it.target = "b"
    go_on(it)
    assert it.status
    assert it.status.reason == "ErrorBudgetSpent"
    assert "b" not in it.world.revisions or not it.world.revisions["b"].replicas
    it.budget = None
    go_on(it)
    assert phase(it) == (RolloutPhase.STABLE, "b")


def test_an_alert_holds_a_canary_and_says_so_once() -> None:
    it = service()
    it.hold = Hold("HeldByAlert", "alert 'CheckoutBroken' fires")
    it.target = "b"
    for _ in range(20):
        it.look()
    assert it.status
    assert (it.status.reason, it.status.message) == ("HeldByAlert", "b waits: alert 'CheckoutBroken' fires.")
    assert len([one for one in it.told if "RolloutHeld" in one]) == 1
    it.hold = None
    go_on(it)
    assert phase(it) == (RolloutPhase.STABLE, "b")


def test_too_little_data_holds_for_as_long_as_it_takes() -> None:
    it = service()
    it.target = "b"
    for _ in range(200):
        it.look()
        it.kubernetes()
        it.now_s += 60
        it.requests(20)
    assert it.status
    assert (it.status.phase, it.status.step, it.status.reason) == (RolloutPhase.ANALYSING, 0, "TooLittleData")


def test_going_back_to_rolling_in_the_middle_ends_the_split_and_rolls() -> None:
    it = service()
    it.target = "b"
    go_on(it, ticks=4)
    assert it.traffic
    it.spec = Rollout()
    go_on(it)
    assert not it.traffic
    assert {name: one.replicas for name, one in it.world.revisions.items()} == {"a": 0, "b": 3}


def test_a_service_that_sleeps_in_the_middle_goes_on_when_it_wakes() -> None:
    it = service()
    it.target = "b"
    go_on(it, ticks=4)
    it.desired = 0
    go_on(it, ticks=10)
    assert it.world.asked() == 0
    it.desired = 3
    go_on(it, ticks=2)
    assert phase(it) == (RolloutPhase.ANALYSING, "a")
    go_on(it)
    assert phase(it) == (RolloutPhase.STABLE, "b")


def test_the_history_is_bounded_and_the_status_is_one_that_can_be_written() -> None:
    it = service(*"abcdefghijklmno")
    for name in "bcdefghijklmno":
        it.target = name
        it.edit(promote=name)
        go_on(it, until=RolloutPhase.STABLE)
        go_on(it, ticks=12)
    assert it.status
    assert len(it.status.history or []) == 10
    assert RolloutStatus.model_validate(it.status.dump()) == it.status


def test_a_restart_in_the_middle_forgets_no_evidence() -> None:
    it = service(paused=True)
    it.target = "b"
    it.edit(paused=False)
    go_on(it, ticks=6)
    it.look()
    assert it.status
    before = {one.metric: one.candidate for one in it.status.verdicts or []}
    assert before
    it.pair = None  # A new operator has measured nothing yet.
    it.look()
    assert {one.metric: one.candidate for one in it.status.verdicts or []} == before


def test_an_operator_that_takes_over_late_asks_a_revision_before_it_refuses_it() -> None:
    it = service(paused=True)
    it.target = "b"
    go_on(it, ticks=8)
    assert it.status
    assert it.status.reason == "Paused"
    it.now_s += 3600
    it.pair = None  # A new operator has asked nothing yet.
    it.look()
    assert (it.status.phase, it.status.reason) == (RolloutPhase.PREPARING, "WarmingUp")
    it.look()
    assert it.status.phase is RolloutPhase.PREPARING


def test_a_first_revision_that_never_had_a_worker_is_replaced_by_its_mending_edit_without_a_comparison() -> None:
    it = Service(World(("b",)), Rollout.model_validate(CANARY))
    for _ in range(6):
        it.look()
        it.kubernetes()
    assert it.status
    assert (it.status.stable, it.status.summary) == (None, "a starts")
    it.target = "b"
    go_on(it)
    assert phase(it) == (RolloutPhase.STABLE, "b")


def test_a_rollout_that_waits_for_something_else_than_time_is_not_looked_at_each_second() -> None:
    it = service(paused=True)
    it.target = "b"
    go_on(it, ticks=6)
    it.now_s += 3600
    held = it.look()
    assert held.status
    assert (held.status.phase, held.status.reason, held.look_again_s) == (RolloutPhase.PREPARING, "Paused", None)
    it.edit(paused=False)
    measuring = it.look()
    assert measuring.look_again_s == 60.0
    it.hold = Hold("HeldByAlert", "an alert holds it")
    it.now_s += 61
    held = it.look()
    assert held.status
    assert (held.status.phase, held.status.reason, held.look_again_s) == (RolloutPhase.ANALYSING, "HeldByAlert", None)


# --- properties ------------------------------------------------------------------------------------------------------

HAPPENING = (
    *("look", "look", "look", "lost_status", "lost_workers", "restart", "time", "requests", "scale"),
    *("edit", "pause", "abort", "promote", "strategy", "act", "act", "start", "blink", "kill", "drained"),
)
happenings = st.lists(
    st.tuples(
        st.sampled_from(HAPPENING),
        st.sampled_from("abcd"),
        st.integers(0, 5),
    ),
    max_size=60,
)


STABLE_BUT_BROKEN = [
    *(("edit", "c", 0), ("strategy", "a", 0), ("blink", "a", 0), ("look", "a", 0), ("blink", "a", 0), ("act", "c", 3)),
]
"""`c` was rolled to without a trial and crashes; `a` is the canary beside it and must get its places."""


@settings(max_examples=250, deadline=None)
@example(events=STABLE_BUT_BROKEN, good=set(), bad=set())
@given(events=happenings, good=st.sets(st.sampled_from("bcd")), bad=st.sets(st.sampled_from("bcd")))
def test_edits_reverts_crashes_and_deaths_in_the_middle_keep_every_promise(
    events: list[tuple[str, str, int]], good: set[str], bad: set[str]
) -> None:
    """The promises about workers and weights are checked at every look by the world itself."""
    it = service("a", *good)
    it.behaviours |= {name: Behaviour(errors=0.5) for name in bad}
    for what, name, number in events:
        match what:
            case "edit":
                it.target = name
            case "look":
                it.look()
            case "lost_status":
                it.look(status=False)
            case "lost_workers":
                it.look(workers=False)
            case "scale":
                it.desired = number
            case "time":
                it.now_s += 40 * number
            case "requests":
                it.requests(100 * number)
            case "pause":
                it.edit(paused=number > 2)
            case "abort" | "promote":
                it.edit(abort=None, promote=None)
                it.edit(**{what: name})
            case "strategy":
                it.edit(strategy=("rolling", "canary", "blueGreen")[number % 3], steps=None)
            case "restart":
                it.restart()
            case _ if name in it.world.revisions:
                getattr(it.world, what)(name)
    it.edit(**CANARY, paused=False, abort=None, promote=None)
    it.desired, it.target = 3, "a"
    go_on(it)
    assert {name: one.replicas for name, one in it.world.revisions.items() if one.replicas} in (
        {"a": 3},
        {it.status.stable if it.status else None: 3},
    )
    assert it.world.ready() == 3 or (it.status and it.status.stable not in {"a", *good})
    assert not it.traffic


# --- outputs ---------------------------------------------------------------------------------------------------------


def answer(text: str, logprob: float = -0.1) -> Answer:
    return Answer(tuple(text), (logprob,) * len(text))


def test_what_differs_between_two_askings_of_the_old_revision_is_noise() -> None:
    check = OutputCheck(prompts=["x"], max_drop=20)
    noisy = Asked(stable=answer("abcdefgh"), again=answer("abcdxxxx"), candidate=answer("abcdyyyy"))
    assert compare_outputs([noisy], check).ok
    broken = Asked(stable=answer("abcdefgh"), again=answer("abcdefgh"), candidate=answer("abyyyyyy"))
    found = compare_outputs([broken], check)
    assert not found.ok
    assert found.message.startswith("1 prompts: 75% of tokens differ, 0% are noise, 20% more are allowed")


def test_the_same_words_with_other_probabilities_differ_too() -> None:
    check = OutputCheck(prompts=["x"])
    asked = Asked(answer("abcd"), answer("abcd", -0.2), answer("abcd", -1.5))
    found = compare_outputs([asked], check)
    assert not found.ok
    assert "log probabilities 1.40 apart, 0.10 are noise, 0.5 more are allowed" in found.message


def test_an_answer_of_nothing_is_not_an_agreement() -> None:
    asked = Asked(answer("abcd"), answer("abcd"), answer(""))
    assert not compare_outputs([asked], OutputCheck(prompts=["x"])).ok
