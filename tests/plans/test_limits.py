"""What Tenant and pools leave of a service that scales: the bound, its words, and that nothing is lost of the wish."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.limits import Limit, limits, lowest, share_of, told_by
from controllers.plans.scaling import ScalingPlan, Signals, plan_scaling
from controllers.plans.service import ServicePlan
from controllers.plans.snapshot import Load, PoolShare, Revision, Snapshot
from crds.conditions import SCALING_LIMITED
from crds.gpu_pool import CapacityClass
from forecasting.policy import Direction, Memory
from tests.gen import EARLY, claim, plan, service_spec, snapshot, target_of, tenant, with_workers, workers

SPEC = service_spec(scaling={"min": 1, "max": 10, "targetConcurrency": 8})
RESERVED = PoolShare("h100", served=3, wanted=6, fixed=True)
QUOTA = Limit(4, "Tenant 'acme': quota of 8 GPUs", "QuotaExceeded")
SETTLED = Memory(since_s=0.0)


def decide(current: int | None, requests: int, limit: Limit | None, **scaling: Any) -> ScalingPlan:
    """`requests` over `current` workers."""
    spec = service_spec(scaling={"min": 1, "max": 10, "targetConcurrency": 8} | scaling)
    number = current or 1
    loads = [Load(requests // number + (at < requests % number), age_s=1.0) for at in range(number)]
    return plan_scaling(spec, current, Signals(loads, limit=limit), SETTLED, 0.0)


def busy(seen: Snapshot, requests: int, desired: int) -> Snapshot:
    """With `desired` ready workers, which hold so many requests together."""
    revision = target_of(seen)
    seen = with_workers(seen, Revision(revision, desired, EARLY), workers=workers(revision, desired))
    placed = tuple(dataclasses.replace(one, node="n1") for one in seen.workers)
    loads = {one.name: Load(requests // desired, age_s=1.0) for one in placed}
    status = seen.status.model_copy(update={"desired_replicas": desired})
    return dataclasses.replace(seen, workers=placed, loads=loads, status=status)


def limited(made: ServicePlan) -> tuple[str, str] | None:
    return next(((one.reason, one.message) for one in made.conditions if one.type == SCALING_LIMITED), None)


def scaling(made: ServicePlan) -> dict[str, Any]:
    assert made.status
    found: dict[str, Any] = made.status["scaling"]
    return found


# --- the decision -----------------------------------------------------------------------------------------------------


def test_a_wish_above_the_limit_ends_at_it_and_the_arithmetic_says_whose_it_is() -> None:
    made = decide(3, 40, QUOTA)
    assert (made.replicas, made.wished, made.direction) == (4, 5, Direction.UP)
    assert made.message == (
        "3 → 5 replicas: 40 running + 0 waiting ÷ 8 each; at most 4 are allowed (Tenant 'acme': quota of 8 GPUs)"
    )


def test_at_the_limit_nothing_moves_whatever_the_load() -> None:
    made = decide(4, 80, QUOTA)
    assert (made.replicas, made.direction) == (4, Direction.HOLD)
    assert made.wished > 4


def test_a_limit_that_is_only_told_bounds_nothing() -> None:
    told = dataclasses.replace(QUOTA, bounds=False)
    assert decide(2, 30, told) == decide(2, 30, None)


def test_a_limit_under_the_minimum_is_kept_and_the_minimum_stays_wished() -> None:
    one = Limit(1, "Tenant 'acme': quota of 1 replicas", "QuotaExceeded")
    first = decide(None, 0, one, min=3)
    again = decide(1, 0, one, min=3)
    assert (first.replicas, again.replicas, again.direction, again.wished) == (1, 1, Direction.HOLD, 3)


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 200), st.integers(0, 12))
def test_no_decision_passes_its_limit_and_the_wish_is_what_it_would_be_without(
    current: int, requests: int, most: int
) -> None:
    made = decide(current, requests, Limit(most, "GPUPool 'h100': room for some", "PoolExhausted", of_pool=True))
    assert made.replicas <= most
    assert made.wished == decide(current, requests, None).replicas


# --- the limits -------------------------------------------------------------------------------------------------------


def test_the_lowest_of_quota_and_pool_counts_and_what_has_a_node_is_kept() -> None:
    quota = tenant(quota={"replicas": 8})
    found = limits(quota, claim("chat", wanted=10, held=2), [claim("other", wanted=3, held=3)], RESERVED, placed=4)
    assert [(one.replicas, one.by) for one in found] == [
        (5, "Tenant 'acme': quota of 8 replicas"),
        (4, "GPUPool 'h100': room for 3 of 6 workers"),
    ]
    assert lowest(found) == found[1]
    assert limits(tenant(), claim("chat", wanted=10), [], None, placed=0) == ()


def test_what_a_pool_is_short_of_is_read_from_its_status() -> None:
    def pool(name: str, **spec: Any) -> dict[str, Any]:
        unmet = [{"service": "demo/chat", "profile": "gpu", "wanted": 6, "served": 3}]
        return {"metadata": {"name": name}, "spec": spec, "status": {"unmet": unmet}}

    bare = {"metadata": {"name": "a"}, "spec": {}}
    assert share_of("demo/chat", [bare, pool("h100", capacityClass=CapacityClass.RESERVED.value)]) == RESERVED
    assert share_of("demo/chat", [pool("h100")]) == dataclasses.replace(RESERVED, fixed=False)
    assert share_of("demo/other", [bare, pool("h100")]) is None
    assert share_of("/".join(("demo", "chat")), [pool("h100")]) is not None, "names are compared, not objects"


def test_who_waits_for_slices_of_a_pool_is_read_from_its_status() -> None:
    unmet = [{"service": "demo/chat", "served": 1, "wanted": 3}, {"service": "demo/big", "served": 0, "wanted": 2}]
    assert told_by({"status": {"unmet": unmet}}) == {"demo/chat": (1, 3), "demo/big": (0, 2)}
    assert told_by({"status": None}) == told_by({}) == told_by(None) == {}


# --- the service ------------------------------------------------------------------------------------------------------


def test_a_reserved_pool_bounds_the_workers_and_is_still_asked_for_all_of_them() -> None:
    made = plan(busy(snapshot(spec=SPEC, pool_share=RESERVED), requests=48, desired=3))
    assert made.status
    assert made.status["desiredReplicas"] == 3
    assert scaling(made)["wantedReplicas"] == scaling(made)["advisedReplicas"] == 6
    assert limited(made) == (
        "PoolExhausted",
        "GPUPool 'h100': room for 3 of 6 workers, so no more than 3 are started. Add nodes to the pool, choose a"
        " smaller slice, or lower what services of a higher class take.",
    )
    assert not made.moved, "nothing moves, so nothing is told again and again"


def test_workers_wait_for_nodes_of_a_pool_that_may_grow() -> None:
    share = dataclasses.replace(RESERVED, fixed=False)
    made = plan(busy(snapshot(spec=SPEC, pool_share=share), requests=48, desired=3))
    assert made.status
    assert made.status["desiredReplicas"] == 6
    condition = limited(made)
    assert condition
    assert condition[1].startswith("GPUPool 'h100': room for 3 of 6 workers, so the others wait for new nodes.")


def test_a_quota_bounds_the_workers_and_what_pools_are_asked_for() -> None:
    seen = snapshot(spec=SPEC, tenant=tenant(quota={"replicas": 4}))
    made = plan(busy(seen, requests=48, desired=3))
    assert made.status
    assert made.status["desiredReplicas"] == 4
    assert scaling(made)["advisedReplicas"] == 6
    assert "wantedReplicas" not in scaling(made), "pools are not asked for more"
    assert limited(made) == (
        "QuotaExceeded",
        "Tenant 'acme': quota of 4 replicas, so no more than 4 are started. Raise the quota of the Tenant, or lower"
        " spec.scaling.max or what its other services take.",
    )
    assert made.over_quota


def test_a_limit_that_is_not_reached_is_not_spoken_of() -> None:
    seen = snapshot(spec=SPEC, tenant=tenant(quota={"replicas": 4}))
    assert limited(plan(busy(seen, requests=8, desired=3))) is None
