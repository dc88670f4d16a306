"""How many of the wanted workers a Tenant's quota leaves to one service: arithmetic over all services of the Tenant.

What already runs is kept, even over a quota that was lowered. What is left goes to the services in the order in which
they were made, so every reconcile, of whichever service and at whatever time, comes to the same shares. Workers that
only exist during a rollout (maxSurge) are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controllers.plans.findings import Finding
from controllers.plans.snapshot import Claim
from controllers.plans.tenancy import Demand, Tenant


@dataclass(frozen=True, slots=True)
class Grant:
    """`replicas` of the wanted that may exist, and what to say when they are fewer."""

    replicas: int
    finding: Finding | None = None
    by: str = ""
    """What leaves fewer: `Tenant 'acme': quota of 8 GPUs`."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One line of the quota."""

    field: str
    unit: str
    allowed: int
    amount: Callable[[Demand], int]


def plan_quota(tenant: Tenant | None, mine: Claim, others: Sequence[Claim]) -> Grant:
    """The part of `mine.wanted` that the quota allows; no Tenant or no quota allows all."""
    wanted = mine.wanted.replicas
    grants = [_under(limit, mine, others) for limit in _limits(tenant)]
    replicas = min([wanted, *(replicas for replicas, _ in grants)])
    if replicas == wanted or tenant is None:
        return Grant(wanted)
    limit = next(limit for granted, limit in grants if granted == replicas)
    by = f"Tenant '{tenant.name}': quota of {limit.allowed} {limit.unit}"
    return Grant(replicas, _finding(tenant, limit, mine, others, replicas), by)


def _limits(tenant: Tenant | None) -> list[_Limit]:
    quota = tenant.spec.quota if tenant else None
    if quota is None:
        return []
    lines: list[tuple[str, str, int | None, Callable[[Demand], int]]] = [
        ("replicas", "replicas", quota.replicas, lambda demand: demand.replicas),
        ("gpus", "GPUs", quota.gpus, lambda demand: demand.gpus),
        ("migSlices", "MIG slices", quota.mig_slices, lambda demand: demand.mig_slices),
        ("migGigabytes", "GB of MIG slices", quota.mig_gigabytes, lambda demand: demand.mig_gigabytes),
        (
            "sharedGigabytes",
            "GB of shared GPUs",
            quota.shared_gigabytes,
            lambda demand: demand.shared_gigabytes,
        ),
    ]
    return [_Limit(field, unit, allowed, amount) for field, unit, allowed, amount in lines if allowed is not None]


def _under(limit: _Limit, mine: Claim, others: Sequence[Claim]) -> tuple[int, _Limit]:
    wanted, amount = mine.wanted.replicas, limit.amount(mine.wanted)
    if amount == 0:
        return wanted, limit
    each = amount // wanted
    free = limit.allowed - limit.amount(mine.held) - sum(limit.amount(other.held) for other in others)
    for other in others:
        if _order(other) < _order(mine):
            free -= max(0, min(limit.amount(other.wanted) - limit.amount(other.held), free))
    return min(wanted, mine.held.replicas + max(0, free) // each), limit


def _order(claim: Claim) -> tuple[str, str, str]:
    return claim.created, claim.namespace, claim.name


def _finding(tenant: Tenant, limit: _Limit, mine: Claim, others: Sequence[Claim], granted: int) -> Finding:
    asked = sum(limit.amount(claim.wanted) for claim in (mine, *others))
    return Finding(
        "QuotaExceeded",
        f"Tenant '{tenant.name}' asks {asked} {limit.unit}; its quota is {limit.allowed}, which leaves "
        f"'{mine.name}' {granted} of {mine.wanted.replicas} workers. "
        f"Raise spec.quota.{limit.field} of the Tenant or lower the replicas of its services.",
    )
