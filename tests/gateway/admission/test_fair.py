"""The order of the queue: classes, age, shares of tokens, due times; and who is refused when it is long."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.fair import COUNTERS_KEPT, Ask, FairQueue
from gateway.admission.pace import Pace, Patience, expired, surplus, too_late
from gateway.admission.terms import FIRST_TOKEN_S, Priority

P0, P1, P2, P3 = Priority


def ask(
    tenant: str = "acme",
    priority: Priority = P1,
    *,
    tokens: float = 100,
    weight: float = 1.0,
    came_s: float = 0.0,
    deadline_s: float = 600.0,
) -> Ask:
    return Ask(tenant, weight, priority, tokens, came_s, came_s + deadline_s, size=10)


def served(queue: FairQueue, now_s: float = 0.0) -> list[Ask]:
    out = []
    while (one := queue.pop(now_s)) is not None:
        out.append(one)
    return out


def test_a_higher_class_goes_first() -> None:
    queue = FairQueue()
    for priority in (P3, P1, P0, P2):
        queue.push(ask(priority=priority))
    assert [one.priority for one in served(queue)] == [P0, P1, P2, P3]


def test_inside_a_tenant_the_earliest_due_goes_first() -> None:
    queue = FairQueue()
    late, soon = ask(came_s=5.0), ask(came_s=1.0)
    queue.push(late)
    queue.push(soon)
    assert served(queue, 5.0) == [soon, late]


def test_best_effort_that_has_waited_long_enough_goes_before_a_fresh_p0() -> None:
    queue = FairQueue()
    old = ask(priority=P3, came_s=0.0)
    queue.push(old)
    now_s = 3.5 * FIRST_TOKEN_S[P3]
    queue.push(ask(priority=P0, came_s=now_s))
    assert queue.pop(now_s) is old


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([P1, P2, P3]))
def test_nothing_starves_under_an_endless_flood_of_p0(seed: int, victim_class: Priority) -> None:
    rng = random.Random(seed)
    queue = FairQueue()
    victim = ask("victim", victim_class)
    queue.push(victim)
    now_s, bound_s = 0.0, (victim_class + 1.0) * FIRST_TOKEN_S[victim_class] + 1.0
    while victim.waits and now_s < 10 * bound_s:
        now_s += 0.1
        queue.push(ask("flood", P0, came_s=now_s - rng.uniform(0, 0.1)))
        queue.pop(now_s)
    assert now_s <= bound_s


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=2, max_size=6),
)
def test_tenants_that_always_wait_get_tokens_by_weight_within_two_requests(seed: int, weights: list[float]) -> None:
    rng = random.Random(seed)
    queue, largest, got = FairQueue(), 1000.0, Counter[int]()
    for number, weight in enumerate(weights):
        for _ in range(3):
            queue.push(ask(str(number), tokens=rng.uniform(1, largest), weight=weight))
    for _ in range(500):
        one = queue.pop(0.0)
        assert one is not None
        number = int(one.tenant)
        got[number] += one.tokens  # type: ignore[assignment]
        queue.push(ask(one.tenant, tokens=rng.uniform(1, largest), weight=weights[number]))
        served_each = [got[each] / weight for each, weight in enumerate(weights)]
        assert max(served_each) - min(served_each) <= 2 * largest / min(weights)


def test_who_comes_back_has_saved_nothing_up() -> None:
    queue = FairQueue()
    for _ in range(100):
        queue.meter(P1).pass_by("busy", 1.0, 100.0)
    for tenant in ("idle", "busy"):
        for _ in range(20):
            queue.push(ask(tenant))
    first = Counter(one.tenant for one in served(queue)[:20])
    assert abs(first["idle"] - first["busy"]) <= 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Priority)), st.booleans()), max_size=60))
def test_everything_pushed_leaves_once_and_the_counts_end_at_zero(steps: list[tuple[str, Priority, bool]]) -> None:
    queue, pushed, out = FairQueue(), [], []
    for tenant, priority, leaves in steps:
        one = ask(tenant, priority)
        queue.push(one)
        pushed.append(one)
        if leaves:
            queue.discard(one)
            queue.discard(one)
            out.append(one)
    out += served(queue)
    assert sorted(map(id, out)) == sorted(map(id, pushed))
    assert (len(queue), queue.bytes, [queue.waiting(one) for one in Priority]) == (0, 0, [0, 0, 0, 0])


# --- refusing ---------------------------------------------------------------------------------------------------------

PROMISED = Patience(P1, target_s=0.8, most_s=60.0)


def filled(count: int, tenant: str = "flood", priority: Priority = P1) -> FairQueue:
    queue = FairQueue()
    for _ in range(count):
        queue.push(ask(tenant, priority))
    return queue


def test_a_request_that_would_miss_its_target_is_refused_with_the_arithmetic() -> None:
    refusal = too_late(filled(20), Pace(0.5), PROMISED, 4, ask("flood", P1))
    assert refusal is not None
    assert "would wait 2.6 s, and P1 may wait 0.8 s" in refusal.message
    assert refusal.retry_after_s == 2


def test_a_tenants_flood_is_refused_and_another_tenant_is_not() -> None:
    queue = filled(20)
    assert too_late(queue, Pace(0.5), PROMISED, 4, ask("other", P1)) is None


def test_a_request_that_would_be_late_for_its_own_deadline_is_refused() -> None:
    free = Patience(None, None, most_s=60.0)
    refusal = too_late(filled(20), Pace(0.5), free, 4, ask("flood", P1, deadline_s=2.0))
    assert refusal is not None
    assert "may wait 2 s" in refusal.message
    queue = filled(0)
    queue.push(ask(deadline_s=2.0))
    assert len(expired(queue, free, 2.0)) == 1


def test_nothing_is_refused_before_anything_was_measured() -> None:
    assert too_late(filled(500), Pace(), PROMISED, 4, ask("flood", P1)) is None


def test_without_an_sla_a_request_may_wait_as_long_as_the_setting_says() -> None:
    free = Patience(None, None, most_s=60.0)
    assert too_late(filled(20), Pace(0.5), free, 4, ask("flood", P2)) is None
    assert too_late(filled(600, priority=P2), Pace(0.5), free, 4, ask("flood", P2)) is not None


def test_the_lowest_class_is_shed_first_and_its_newest_first() -> None:
    queue = filled(10, priority=P1)
    oldest = ask(priority=P2, came_s=0.0)
    queue.push(oldest)
    newer = [ask(priority=P2, came_s=1.0) for _ in range(200)]
    for one in newer:
        queue.push(one)
    gone = surplus(queue, Pace(0.5), PROMISED, 4)
    assert gone
    assert set(gone) <= set(newer)
    assert gone[0] is newer[-1]
    assert queue.waiting(P1) == 10
    assert oldest.waits


def test_a_request_that_has_waited_twice_what_it_may_is_shed() -> None:
    queue = filled(1)
    assert expired(queue, PROMISED, 1.6) == []
    assert len(expired(queue, PROMISED, 1.7)) == 1
    assert len(queue) == 0


@pytest.mark.parametrize(("priority", "allowed_s"), [(P0, 0.1), (P1, 0.8), (P2, 10.0), (P3, 60.0)])
def test_a_class_may_wait_as_long_as_it_is_due_within(priority: Priority, allowed_s: float) -> None:
    assert PROMISED.allowed_s(priority) == allowed_s


def test_in_a_full_queue_a_flood_gives_way_to_a_tenant_with_less_for_its_weight() -> None:
    queue = filled(3)
    newest = ask("flood")
    queue.push(newest)
    assert queue.gives_way("other", 1.0, P1) is newest
    assert queue.gives_way("flood", 1.0, P1) is None
    assert queue.gives_way("light", 0.25, P1) is None, "one of its requests is as much as four of theirs"
    assert queue.gives_way("other", 1.0, P2) is None, "nobody gives way to a lower class"
    queue.discard(newest)
    for _ in range(2):
        queue.push(ask("other"))
    assert queue.gives_way("other", 1.0, P1) is None, "it would have as much"


def test_what_must_go_is_of_the_tenant_with_the_most_however_new_the_others_are() -> None:
    queue = filled(200)
    late = ask("other", came_s=1.0)
    queue.push(late)
    gone = surplus(queue, Pace(0.5), PROMISED, 4)
    assert gone
    assert late not in gone


def test_who_waits_keeps_its_counter_however_many_tenants_there_are() -> None:
    queue = FairQueue()
    for number in range(COUNTERS_KEPT):
        queue.meter(P1).pass_by(f"passing-{number}", 1.0, 100.0)
    both = [ask("one"), ask("other")]
    for one in both:
        queue.push(one)
    assert served(queue) == both


def test_requests_that_have_left_stand_before_nobody() -> None:
    queue = filled(1)
    left = [ask("flood") for _ in range(10)]
    for one in left:
        queue.push(one)
    for one in left:
        queue.discard(one)
    others = filled(1)
    for waiting in (queue, others):
        for _ in range(20):
            waiting.push(ask("other"))
    assert queue.ahead("flood", 1.0, P1) == others.ahead("flood", 1.0, P1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=80))
def test_the_newest_is_the_last_that_came_of_the_tenant_with_most(steps: list[tuple[str, int]]) -> None:
    queue, waiting = FairQueue(), list[Ask]()
    for tenant, leaves in steps:
        waiting.append(ask(tenant))
        queue.push(waiting[-1])
        if leaves < len(waiting):
            queue.discard(waiting.pop(leaves))
        newest = queue.newest(P1)
        if not waiting:
            assert newest is None
            continue
        counts = Counter(one.tenant for one in waiting)
        assert newest is not None
        assert counts[newest.tenant] == max(counts.values())
        assert newest is [one for one in waiting if one.tenant == newest.tenant][-1]


def test_who_was_served_is_forgotten_though_its_tenant_always_waits() -> None:
    queue = FairQueue()
    queue.push(ask())
    for number in range(1000):
        queue.push(ask(came_s=float(number)))
        queue.pop(float(number))
    row = queue._classes[P1]
    assert len(queue) == 1
    assert max(len(row.arrivals), len(row.tenants["acme"]), len(row.newest_of["acme"])) < 20
