"""How many of the wanted workers a Tenant's quota leaves to one service: arithmetic over all services of the Tenant.

What already runs is kept, even over a quota that was lowered, except what was borrowed of a cohort and is wanted back:
that goes one worker of a service a decision, the lowest class first, then the youngest. What is left goes to the
services in the order in which they were made, so every reconcile, of whichever service and at whatever time, comes to
the same shares. Workers that only exist during a rollout (maxSurge) are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.borrowing import Member, allowed, standing
from controllers.plans.fair_share import Standing
from controllers.plans.findings import Finding
from controllers.plans.snapshot import Claim, Neighbour
from controllers.plans.tenancy import Demand, Tenant
from crds.reading import explained

RECLAIMED: Final = "QuotaReclaimed"


@dataclass(frozen=True, slots=True)
class Grant:
    """`replicas` of the wanted that may exist, and what to say when they are fewer."""

    replicas: int
    finding: Finding | None = None
    by: str = ""
    """What leaves fewer: `Tenant 'acme': quota of 8 GPUs`."""
    borrows: bool = False
    """The Tenant wants or has more than its own quota."""

    @property
    def reclaims(self) -> bool:
        """A worker goes because the cohort wants its quota back."""
        return self.finding is not None and self.finding.reason == RECLAIMED


@dataclass(frozen=True, slots=True)
class _Limit:
    """One line of the quota."""

    field: str
    unit: str
    allowed: int
    amount: Callable[[Demand], int]
    cohort: str | None = None
    """Where it may borrow."""
    nominal: int = 0
    """Of its own; `allowed` is what the cohort makes of it."""
    lately: str = ""
    """What it borrowed over time, where that counts for or against it now."""

    @property
    def text(self) -> str:
        """`quota of 8 GPUs`, and what is borrowed or lent."""
        words = f"quota of {self.nominal} {self.unit}"
        if self.cohort is None or self.allowed == self.nominal:
            return words
        if self.allowed > self.nominal:
            return f"{words}, borrows {self.allowed - self.nominal} {self.unit} of cohort '{self.cohort}'"
        return f"{words}, {self.nominal - self.allowed} {self.unit} still on loan to cohort '{self.cohort}'"


def plan_quota(tenant: Tenant | None, mine: Claim, others: Sequence[Claim], cohort: Sequence[Neighbour] = ()) -> Grant:
    """The part of `mine.wanted` that the quota allows; no Tenant or no quota allows all."""
    wanted = mine.wanted.replicas
    if tenant is not None and tenant.is_frozen:
        return _frozen(tenant, mine)
    grants = [_under(limit, mine, others) for limit in _shared(tenant, mine, others, cohort)]
    replicas = min([wanted, *(replicas for replicas, _ in grants)])
    borrows = any(limit.cohort and _sum(limit, (mine, *others)) > limit.nominal for _, limit in grants)
    if replicas == wanted or tenant is None:
        return Grant(wanted, borrows=borrows)
    limit = next(limit for granted, limit in grants if granted == replicas)
    by = f"Tenant '{tenant.name}': {limit.text}"
    return Grant(replicas, _finding(tenant, limit, mine, others, replicas), by, borrows)


def _frozen(tenant: Tenant, mine: Claim) -> Grant:
    """How much it may have is not known: as much as it has."""
    wanted, replicas = mine.wanted.replicas, min(mine.wanted.replicas, mine.held.replicas)
    if replicas == wanted:
        return Grant(wanted)
    by = f"Tenant '{tenant.name}', whose quota cannot be read"
    finding = Finding(
        "TenantNotUnderstood", f"{by}, leaves '{mine.name}' {replicas} of {wanted} workers. {explained(tenant.unread)}"
    )
    return Grant(replicas, finding, by)


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
    return [_Limit(field, unit, most, amount, nominal=most) for field, unit, most, amount in lines if most is not None]


def _shared(
    tenant: Tenant | None, mine: Claim, others: Sequence[Claim], cohort: Sequence[Neighbour]
) -> Iterator[_Limit]:
    """The lines of the quota, each as its cohort makes it now."""
    for limit in _limits(tenant):
        if tenant is None or tenant.spec.borrowing is None:
            yield limit
            continue
        members = [_member(tenant, limit, (mine, *others))]
        for one in cohort:
            theirs = next((line for line in _limits(one.tenant) if line.field == limit.field), None)
            members += [_member(one.tenant, theirs, one.claims)] if theirs else []
        lately = _lately(limit, tenant, standing(members).get(tenant.name))
        yield replace(limit, allowed=allowed(members)[tenant.name], cohort=tenant.spec.borrowing.cohort, lately=lately)


def _lately(limit: _Limit, tenant: Tenant, stands: Standing | None) -> str:
    if stands is None or stands.factor == 1:
        return ""
    return (
        f" Its weight {tenant.spec.weight} counts {tenant.spec.weight * stands.factor:.2g} now: lately it borrowed "
        f"{stands.used:.1f} {limit.unit} on average, and {stands.due:.1f} are its due."
    )


def _member(tenant: Tenant, limit: _Limit, claims: Sequence[Claim]) -> Member:
    borrowing = tenant.spec.borrowing
    most = borrowing.limit.dump() if borrowing and borrowing.limit else {}
    lending = borrowing.lending_limit.dump() if borrowing and borrowing.lending_limit else {}
    held = sum(limit.amount(one.held) for one in claims)
    return Member(
        name=tenant.name,
        nominal=limit.nominal,
        # What is kept for a while after the load fell is only taken where another wants it.
        wish=held if tenant.is_frozen else max(held, sum(limit.amount(one) for one in _wishes(claims))),
        held=held,
        weight=tenant.spec.weight,
        limit=most.get(limit.field),
        lending=lending.get(limit.field),
        each=min((limit.amount(one) // one.replicas for one in _wishes(claims) if limit.amount(one)), default=1),
        used=tenant.borrowed.get(limit.field, 0.0),
    )


def _wishes(claims: Iterable[Claim]) -> list[Demand]:
    return [one.wished or one.wanted for one in claims]


def borrowed_of(tenant: Tenant, claims: Sequence[Claim]) -> dict[str, int]:
    """What its services have over its quota, by each line that it has."""
    return {line.field: max(0, sum(line.amount(one.held) for one in claims) - line.nominal) for line in _limits(tenant)}


def _sum(limit: _Limit, claims: Iterable[Claim]) -> int:
    return sum(limit.amount(one.wanted) for one in claims)


def _under(limit: _Limit, mine: Claim, others: Sequence[Claim]) -> tuple[int, _Limit]:
    wanted, amount = mine.wanted.replicas, limit.amount(mine.wanted)
    if amount == 0:
        return wanted, limit
    each = amount // wanted
    if limit.cohort and _gives_back(limit, mine, others):
        return min(wanted, mine.held.replicas - 1), limit
    free = limit.allowed - limit.amount(mine.held) - sum(limit.amount(other.held) for other in others)
    for other in others:
        if _order(other) < _order(mine):
            free -= max(0, min(limit.amount(other.wanted) - limit.amount(other.held), free))
    return min(wanted, mine.held.replicas + max(0, free) // each), limit


def _gives_back(limit: _Limit, mine: Claim, others: Sequence[Claim]) -> bool:
    """Whether a worker of `mine` is among those that the Tenant has too many of."""
    over = sum(limit.amount(one.held) for one in (mine, *others)) - limit.allowed
    for one in sorted((mine, *others), key=lambda claim: (claim.priority.value, *_order(claim)), reverse=True):
        if over <= 0 or one is mine:
            break
        over -= limit.amount(one.held)
    return over > 0 and limit.amount(mine.held) > 0


def _order(claim: Claim) -> tuple[str, str, str]:
    return claim.created, claim.namespace, claim.name


def _finding(tenant: Tenant, limit: _Limit, mine: Claim, others: Sequence[Claim], granted: int) -> Finding:
    if granted < mine.held.replicas and limit.cohort:
        return _reclaimed(tenant, limit, mine, others, granted)
    asked = _sum(limit, (mine, *others))
    lent = limit.text.removeprefix(f"quota of {limit.nominal} {limit.unit}")
    return Finding(
        "QuotaExceeded",
        f"Tenant '{tenant.name}' asks {asked} {limit.unit}; its quota is {limit.nominal}{lent}, which leaves "
        f"'{mine.name}' {granted} of {mine.wanted.replicas} workers. "
        f"Raise spec.quota.{limit.field} of the Tenant or lower the replicas of its services.{limit.lately}",
    )


def _reclaimed(tenant: Tenant, limit: _Limit, mine: Claim, others: Sequence[Claim], granted: int) -> Finding:
    held = sum(limit.amount(claim.held) for claim in (mine, *others))
    lent = max(0, limit.allowed - limit.nominal)
    return Finding(
        RECLAIMED,
        f"Tenant '{tenant.name}' has {held} {limit.unit}; its quota is {limit.nominal}, and cohort '{limit.cohort}' "
        f"lends it {lent} now, so '{mine.name}' goes from {mine.held.replicas} to {granted} "
        f"workers.{limit.lately}",
        needs_person=False,
    )
