"""Which Tenant owns a namespace, and how much its services ask for. Shared by everyone who has to know.

A namespace has one owner: the Tenant created first; between Tenants of the same second, the first by name. So a later
Tenant can never take a namespace away, and every process comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from crds.fields import quantity
from crds.inference_service import InferenceServiceSpec
from crds.reading import Unread, concerns, unread_of
from crds.scaling import ScalingPolicy
from crds.tenant import Quota, TenantSpec

_LINES: Final = ("replicas", "gpus", "migSlices", "migGigabytes", "sharedGigabytes")
"""Of a quota: what is counted over all namespaces together."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A Tenant as plans see it."""

    name: str
    uid: str
    created: str
    """metadata.creationTimestamp: RFC 3339 in UTC, so it sorts as text."""
    generation: int
    spec: TenantSpec
    borrowed: Mapping[str, float] = field(default_factory=dict)
    """On average lately, by line of the quota, as its status says it of the cohort that it is in."""
    unread: tuple[Unread, ...] = ()
    """What of its spec this release cannot read."""

    @property
    def is_frozen(self) -> bool:
        """Its quota is not known: its services keep what they have, and get no more."""
        return concerns(self.unread, "quota", "borrowing")

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Tenant:
        """From the object as JSON."""
        meta = obj["metadata"]
        return cls(
            name=meta["name"],
            uid=meta.get("uid", ""),
            created=meta.get("creationTimestamp", ""),
            generation=meta.get("generation", 0),
            spec=_spec_of(obj),
            borrowed=_borrowed(obj),
            unread=unread_of(obj),
        )


def _spec_of(obj: Mapping[str, Any]) -> TenantSpec:
    """Of one that was read by its parts: all namespaces that it lists, and its quota as it was last published."""
    unread, said = unread_of(obj), obj["spec"]
    if not unread:
        return TenantSpec.model_validate(said)
    spec = TenantSpec.model_validate({**said, "namespaces": ["any"]})
    named = spec.model_copy(update={"namespaces": list(said["namespaces"])})
    return _with_published_quota(named, unread, obj.get("status") or {})


def _with_published_quota(spec: TenantSpec, unread: tuple[Unread, ...], status: Mapping[str, Any]) -> TenantSpec:
    """A status says `2/8` of each line of a quota that had one."""
    lost = [one.path[2:3] for one in unread if one.path[1:2] in ((), ("quota",))]
    if not lost:
        return spec
    lines = [line for line in _LINES if () in lost or (line,) in lost]
    told = {line: int(most) for line in lines if (most := str(status.get(line, "")).partition("/")[2]).isdecimal()}
    quota = (spec.quota.dump() if spec.quota else {}) | told
    return spec.model_copy(update={"quota": Quota.model_validate(quota) if quota else None})


def _borrowed(obj: Mapping[str, Any]) -> dict[str, float]:
    """Nothing where it changed its cohort since."""
    told = (obj.get("status") or {}).get("fairShare") or {}
    cohort = (obj["spec"].get("borrowing") or {}).get("cohort")
    if told.get("cohort") != cohort:
        return {}
    return {line: float(quantity(amount)) for line, amount in (told.get("average") or {}).items()}


def owner_of(namespace: str, tenants: Iterable[Tenant]) -> Tenant | None:
    """The Tenant that owns `namespace`: of those that list it the oldest, then the first by name."""
    claims = [tenant for tenant in tenants if namespace in tenant.spec.namespaces]
    return min(claims, key=lambda tenant: (tenant.created, tenant.name), default=None)


@dataclass(frozen=True, slots=True)
class Demand:
    """What InferenceServices ask for, in the units of a Tenant's quota."""

    services: int = 0
    replicas: int = 0
    gpus: int = 0
    mig_slices: int = 0
    mig_gigabytes: int = 0
    shared_gigabytes: int = 0

    def __add__(self, other: Demand) -> Demand:
        return Demand(
            self.services + other.services,
            self.replicas + other.replicas,
            self.gpus + other.gpus,
            self.mig_slices + other.mig_slices,
            self.mig_gigabytes + other.mig_gigabytes,
            self.shared_gigabytes + other.shared_gigabytes,
        )


def demand_of(spec: InferenceServiceSpec, desired_replicas: int | None) -> Demand:
    """What one service asks for. `desired_replicas` is its status' own count: it decides only where `scaling` does."""
    replicas = _replicas(spec, desired_replicas)
    on = spec.accelerator
    return Demand(
        services=1,
        replicas=replicas,
        gpus=replicas * on.gpu.count if on.gpu else 0,
        mig_slices=replicas if on.mig else 0,
        mig_gigabytes=replicas * on.mig.gigabytes if on.mig else 0,
        shared_gigabytes=replicas * on.shared.gigabytes if on.shared else 0,
    )


def _replicas(spec: InferenceServiceSpec, desired_replicas: int | None) -> int:
    if spec.scaling is None or spec.scaling.policy is ScalingPolicy.ADVISORY:
        return 1 if spec.replicas is None else spec.replicas
    if desired_replicas is None:
        return max(1, spec.scaling.min)
    return min(max(desired_replicas, spec.scaling.fewest), spec.scaling.max)
