"""What a Tenant's quota and the GPU pools leave of the workers that a service may scale to. Pure.

What runs is never taken away by a limit, except what was borrowed and is wanted back. Only a pool of reserved nodes
bounds: to one of on-demand or spot nodes the cluster may add nodes when pods wait for them, so there the pods wait and
the limit is only told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controllers.plans.quota import plan_quota
from controllers.plans.snapshot import Claim, Neighbour, PoolShare
from controllers.plans.tenancy import Tenant
from crds.gpu_pool import CapacityClass


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `replicas` workers, and what makes it so: `Tenant 'acme': quota of 8 GPUs`."""

    replicas: int
    by: str
    reason: str
    bounds: bool = True
    """False: only told."""
    of_pool: bool = False


def limits(
    tenant: Tenant | None,
    most: Claim,
    others: Sequence[Claim],
    share: PoolShare | None,
    placed: int,
    cohort: Sequence[Neighbour] = (),
) -> tuple[Limit, ...]:
    """`most` claims what the spec allows at most; `placed` workers have a node already."""
    grant = plan_quota(tenant, most, others, cohort)
    found = [Limit(grant.replicas, grant.by, "QuotaExceeded")] if grant.by else []
    if share is not None:
        by = f"GPUPool '{share.pool}': room for {share.served} of {share.wanted} workers"
        found.append(Limit(max(share.served, placed), by, "PoolExhausted", bounds=share.fixed, of_pool=True))
    return tuple(found)


def lowest(found: Iterable[Limit]) -> Limit | None:
    """The one that counts."""
    return min(found, key=lambda one: one.replicas, default=None)


def share_of(service: str, pools: Iterable[Mapping[str, Any]]) -> PoolShare | None:
    """What the pools say of `namespace/name`; None while they have, or would cut, a slice for every worker."""
    for pool in pools:
        for one in (pool.get("status") or {}).get("unmet") or ():
            if one["service"] == service:
                fixed = pool["spec"].get("capacityClass") == CapacityClass.RESERVED.value
                return PoolShare(pool["metadata"]["name"], one["served"], one["wanted"], fixed)
    return None


def told_by(pool: Mapping[str, Any] | None) -> dict[str, tuple[int, int]]:
    """Workers served and wanted of each service that waits for slices of this pool."""
    status: Mapping[str, Any] = (pool or {}).get("status") or {}
    return {one["service"]: (one["served"], one["wanted"]) for one in status.get("unmet") or ()}
