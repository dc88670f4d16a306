"""The virtual token counter: shares by weight, no credit for absence, and a bound that time does not move."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker_image.engine.sequences import a_sequence
from worker_image.engine.batch import Batch, Sampled
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.prefix_cache import LeastRecentlyUsed
from worker_image.engine.scheduler.core import Limits, Outcome, Scheduler
from worker_image.engine.scheduler.fair import INPUT_PRICE, MOST_IDLE_ACCOUNTS, OUTPUT_PRICE, WeightedFair
from worker_image.engine.scheduler.settings import PolicyName, Scheduling

ROWS = 4
LONGEST = 24


def a_fair_scheduler() -> Scheduler:
    kv = KvBlocks(ROWS * LONGEST // 4, 4, b"secret", LeastRecentlyUsed())
    return Scheduler(Limits(ROWS, 64, 4, LONGEST), kv, Scheduling(PolicyName.FAIR))


def serve(scheduler: Scheduler, now: float) -> Batch | None:
    batch = scheduler.schedule(now)
    if batch is not None:
        scheduler.commit(batch, Sampled([1] * len(batch.sampling)), Outcome())
    return batch


def cost_of(batch: Batch) -> Counter[str]:
    """What each tenant got in a step, as the paper counts: prompts when they begin, tokens when they are made."""
    cost: Counter[str] = Counter()
    for sequence in batch.joined:
        cost[sequence.standing.tenant] += int(INPUT_PRICE * sequence.n_prompt)
    for sequence in batch.decodes:
        cost[sequence.standing.tenant] += int(OUTPUT_PRICE)
    return cost


LENGTHS = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(mine=LENGTHS, theirs=LENGTHS, n_steps=st.integers(20, 150), flood=st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_service_of_two_who_always_wait_differs_by_no_more_than_the_bound(
    mine: tuple[int, int], theirs: tuple[int, int], n_steps: int, flood: int
) -> None:
    """Theorem 4.4 of the paper: 2 · max(input price · longest prompt, output price · tokens in a full batch)."""
    scheduler, service = a_fair_scheduler(), Counter[str]()
    bound = 2 * max(INPUT_PRICE * max(mine[0], theirs[0]), OUTPUT_PRICE * ROWS * LONGEST)
    for step in range(n_steps):
        waiting = Counter(s.standing.tenant for s in scheduler.waiting)
        for tenant, lengths, most in (("a", mine, 1), ("b", theirs, flood)):
            for _ in range(ROWS + most - waiting[tenant]):
                scheduler.add(a_sequence(at=step, tenant=tenant, n_prompt=lengths[0], max_tokens=lengths[1]))
        batch = serve(scheduler, float(step))
        assert batch is not None
        service += cost_of(batch)
        assert abs(service["a"] - service["b"]) <= bound


def test_a_share_is_in_proportion_to_the_weight() -> None:
    scheduler, service = a_fair_scheduler(), Counter[str]()
    for step in range(600):
        waiting = Counter(s.standing.tenant for s in scheduler.waiting)
        for tenant, weight in (("a", 1.0), ("b", 3.0)):
            for _ in range(ROWS - waiting[tenant]):
                scheduler.add(a_sequence(at=step, tenant=tenant, weight=weight, max_tokens=6))
        batch = serve(scheduler, float(step))
        assert batch is not None
        service += cost_of(batch)
    assert service["b"] / service["a"] == pytest.approx(3.0, rel=0.05)


def test_a_tenant_that_was_away_comes_back_without_credit() -> None:
    policy = WeightedFair(20.0)
    busy = [a_sequence(tenant="busy") for _ in range(4)]
    for sequence in busy:
        policy.add(sequence)
    for sequence in busy[:3]:
        policy.remove(sequence)
        policy.admitted(sequence)
    for _ in range(100):
        policy.decoded(tuple(busy[:3]))
    policy.add(a_sequence(tenant="away"))
    assert policy.service("away") == policy.service("busy") == 3 * 4 + 100 * 3 * OUTPUT_PRICE


def test_one_that_comes_to_an_empty_queue_is_lifted_to_who_left_last() -> None:
    policy = WeightedFair(20.0)
    last = a_sequence(tenant="last", n_prompt=50)
    policy.add(last)
    policy.remove(last)
    policy.admitted(last)
    policy.add(a_sequence(tenant="new"))
    assert policy.service("new") == 50


def test_a_request_that_gave_way_is_charged_for_its_prompt_once_and_not_lifted() -> None:
    scheduler = a_fair_scheduler()
    low = [a_sequence(priority=3, tenant="t", max_tokens=20) for _ in range(ROWS)]
    for sequence in low:
        scheduler.add(sequence)
    for _ in range(3):
        serve(scheduler, 0.0)
    high = a_sequence(priority=0, tenant="t", max_tokens=2)
    scheduler.add(high)
    while not high.ended:
        serve(scheduler, 0.1)
    assert sum(scheduler.n_preemptions) == scheduler.n_preemptions[3] == 1
    while scheduler.has_work:
        serve(scheduler, 0.2)
    policy = scheduler.waiting
    assert isinstance(policy, WeightedFair)
    decoded = ROWS * 19 + 1
    # The one that gave way computed a token again as the last of its prompt, not as a decode.
    assert policy.service("t") == (ROWS + 1) * 4 * INPUT_PRICE + (decoded - 1) * OUTPUT_PRICE


def test_tenants_that_are_gone_are_forgotten() -> None:
    policy = WeightedFair(20.0)
    for i in range(3 * MOST_IDLE_ACCOUNTS):
        sequence = a_sequence(tenant=f"t{i}")
        policy.add(sequence)
        policy.remove(sequence)
        policy.admitted(sequence)
        policy.forget(sequence)
    assert len(policy._accounts) <= MOST_IDLE_ACCOUNTS + 1
