"""Who comes first under which policy, and who gives way to whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_image.engine.sequences import a_sequence
from worker_image.engine.scheduler.fair import WeightedFair
from worker_image.engine.scheduler.fcfs import FirstComeFirstServed
from worker_image.engine.scheduler.policies import make_policy
from worker_image.engine.scheduler.policy import Policy
from worker_image.engine.scheduler.ranked import EarliestDeadline, Feedback, Priority
from worker_image.engine.scheduler.settings import PolicyName, Scheduling
from worker_image.engine.sequence import Sequence
from worker_image.engine.standing import Standing

LATER = 1e6


def turns(policy: Policy, sequences: list[Sequence], now: float = 0.0) -> list[int]:
    """Indexes of `sequences` in the order in which they would be admitted."""
    for sequence in sequences:
        policy.add(sequence)
    order = []
    while (head := policy.head(now)) is not None:
        policy.remove(head)
        order.append(sequences.index(head))
    return order


def test_first_come_first_served_looks_at_nothing_but_the_order() -> None:
    sequences = [a_sequence(at=i, priority=3 - i) for i in range(4)]
    assert turns(FirstComeFirstServed(), sequences) == [0, 1, 2, 3]


def test_better_classes_come_first_and_age_lets_others_pass() -> None:
    at = {"old P3": (0.0, 3), "P0": (50.0, 0), "P1": (50.0, 1), "P0 later": (61.0, 0)}
    sequences = [a_sequence(at=when, priority=priority) for when, priority in at.values()]
    # 60 s of waiting are three classes.
    assert turns(Priority(ageing_s=20.0), sequences) == [1, 0, 3, 2]


def test_the_earliest_deadline_is_the_targets_the_requests_own_or_the_end() -> None:
    sequences = [
        a_sequence(priority=2),
        a_sequence(priority=3, ttft_target_s=3.0),
        a_sequence(priority=2, deadline_s=5.0),
        a_sequence(priority=1),
    ]
    assert turns(EarliestDeadline(20.0), sequences) == [3, 1, 2, 0]


def test_one_that_is_late_goes_behind_those_that_can_be_in_time() -> None:
    late, in_time = a_sequence(at=0.0, priority=1), a_sequence(at=1.5, priority=1)
    assert turns(EarliestDeadline(20.0), [late, in_time], now=1.2) == [1, 0]
    # Not for ever: those that are due after its last rank come after it.
    late, much_later = a_sequence(at=0.0, priority=1), a_sequence(at=79.5, priority=1)
    assert turns(EarliestDeadline(20.0), [late, much_later], now=79.6) == [0, 1]


def test_feedback_puts_short_work_first_and_what_was_served_back() -> None:
    sequences = [a_sequence(n_prompt=8000), a_sequence(n_generated=300), a_sequence(n_generated=70), a_sequence()]
    policy = Feedback(20.0)
    assert [policy.level(each) for each in sequences] == [2, 2, 1, 0]
    assert turns(policy, sequences) == [3, 2, 0, 1]


@pytest.mark.parametrize("policy", [Priority(20.0), EarliestDeadline(20.0), make_policy(Scheduling(PolicyName.FAIR))])
def test_a_better_class_displaces_a_lower_one_until_that_has_aged(policy: Policy) -> None:
    running = a_sequence(priority=3)
    newcomer, much_later = a_sequence(at=1.0, priority=0), a_sequence(at=LATER, priority=0)
    for each in (running, newcomer, much_later):
        policy.add(each)
    assert policy.displaces(newcomer, running)
    assert not policy.displaces(much_later, running)
    assert not policy.displaces(running, newcomer)
    assert not policy.displaces(a_sequence(at=0.0, priority=3), running)


def test_a_deadline_that_was_met_protects_nobody() -> None:
    running, newcomer = a_sequence(priority=3, n_generated=1), a_sequence(at=LATER, priority=0)
    assert EarliestDeadline(20.0).displaces(newcomer, running)


def test_a_tenant_takes_places_of_its_own_work_only() -> None:
    policy = WeightedFair(20.0)
    waiting = a_sequence(priority=0, tenant="a")
    assert policy.displaces(waiting, a_sequence(priority=3, tenant="a"))
    assert not policy.displaces(waiting, a_sequence(priority=3, tenant="b"))


def test_feedback_displaces_who_was_served_more() -> None:
    policy = Feedback(20.0)
    assert policy.displaces(a_sequence(), a_sequence(n_generated=100))
    assert not policy.displaces(a_sequence(), a_sequence(n_generated=10))


STANDINGS = st.builds(
    Standing, priority=st.integers(0, 3), tenant=st.sampled_from("ab"),
    deadline_s=st.none() | st.floats(0.1, 100), ttft_target_s=st.none() | st.floats(0.1, 100),
)  # fmt: skip
SEQUENCES = st.builds(
    a_sequence, at=st.floats(0, 200), priority=st.integers(0, 3), tenant=st.sampled_from("ab"),
    n_generated=st.integers(0, 600), deadline_s=st.none() | st.floats(0.1, 100),
)  # fmt: skip


@given(name=st.sampled_from(PolicyName), a=SEQUENCES, b=SEQUENCES)
def test_nobody_displaces_one_that_would_displace_it(name: PolicyName, a: Sequence, b: Sequence) -> None:
    policy = make_policy(Scheduling(name))
    policy.add(a)
    policy.add(b)
    assert not (policy.displaces(a, b) and policy.displaces(b, a))


@given(name=st.sampled_from(PolicyName), sequences=st.lists(SEQUENCES, max_size=12), data=st.data())
def test_a_policy_holds_exactly_those_who_wait(
    name: PolicyName, sequences: list[Sequence], data: st.DataObject
) -> None:
    policy, waiting, running = make_policy(Scheduling(name)), set[Sequence](), set[Sequence]()
    for sequence in sequences:
        policy.add(sequence)
        waiting.add(sequence)
        if data.draw(st.booleans()):
            head = policy.head(300.0)
            assert head in waiting
            policy.remove(head)
            waiting.remove(head)
            running.add(head)
        elif running and data.draw(st.booleans()):
            back = running.pop()
            policy.take_back(back)
            waiting.add(back)
        assert set(policy) == set(policy.first(100)) == waiting
        assert len(policy) == len(waiting)
        assert (policy.oldest() in waiting) if waiting else policy.oldest() is None
