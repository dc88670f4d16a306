"""Everybody's turn comes, whatever keeps arriving: the worst request against a flood of the best, with one place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker_image.engine.sequences import a_sequence
from worker_image.engine.batch import Sampled
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.prefix_cache import LeastRecentlyUsed
from worker_image.engine.scheduler.core import Limits, Outcome, Scheduler
from worker_image.engine.scheduler.settings import Batching, Packing, PolicyName, Scheduling

AGEING_S = 5.0
STEP_S = 0.1
ALLOWANCE_S = 4 * AGEING_S
"""Who comes later than this after a request comes after it: the largest allowance of any policy."""
MOST_S = 2 * ALLOWANCE_S + 1.0
"""Until all have been served who came earlier: each brings two steps of work and one comes in each step."""


def a_scheduler(scheduling: Scheduling, *, rows: int = 1) -> Scheduler:
    return Scheduler(Limits(rows, 64, 4, 32), KvBlocks(8 * rows, 4, b"secret", LeastRecentlyUsed()), scheduling)


def end_of_the_victim_s(scheduler: Scheduler, rival: dict[str, object]) -> float | None:
    """Every step a rival arrives, each with two steps of work: twice as much as there is room for."""
    victim = a_sequence(priority=3, tenant="quiet", n_prompt=6, max_tokens=3, ttft_target_s=ALLOWANCE_S)
    scheduler.add(victim)
    now, outcome = 0.0, Outcome()
    while now < MOST_S:
        scheduler.add(a_sequence(at=now, n_prompt=4, max_tokens=2, **rival))  # type: ignore[arg-type]
        batch = scheduler.schedule(now)
        if batch is not None:
            scheduler.commit(batch, Sampled([1] * len(batch.sampling)), outcome)
        scheduler.check()
        now += STEP_S
        if victim.ended:
            return now
    return None


@pytest.mark.parametrize("policy", PolicyName)
@pytest.mark.parametrize("batching", Batching)
def test_the_worst_request_is_served_amid_a_flood_of_the_best(policy: PolicyName, batching: Batching) -> None:
    scheduler = a_scheduler(Scheduling(policy, batching, ageing_s=AGEING_S))
    end_s = end_of_the_victim_s(scheduler, {"priority": 0, "tenant": "flood"})
    assert end_s is not None


@given(
    policy=st.sampled_from(PolicyName), packing=st.sampled_from(Packing), priority=st.integers(0, 3),
    tenant=st.sampled_from(["quiet", "flood"]), ttft_target_s=st.sampled_from([0.001, None, 1.0]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_nobody_starves_whatever_the_rivals_are(
    policy: PolicyName, packing: Packing, priority: int, tenant: str, ttft_target_s: float | None
) -> None:
    scheduler = a_scheduler(Scheduling(policy, packing=packing, ageing_s=AGEING_S), rows=2)
    rival = {"priority": priority, "tenant": tenant, "ttft_target_s": ttft_target_s}
    assert end_of_the_victim_s(scheduler, rival) is not None


def test_without_ageing_the_better_class_would_always_come_first() -> None:
    """The counter-example: the flood above does starve the worst request where ageing takes for ever."""
    scheduler = a_scheduler(Scheduling(PolicyName.PRIORITY, ageing_s=1e9))
    assert end_of_the_victim_s(scheduler, {"priority": 0}) is None
