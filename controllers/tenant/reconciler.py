"""Observe one Tenant, plan its children and status, apply. The keyring is `controllers.tenant.keyring`'s."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from controllers.announce import write_misread, write_verdict
from controllers.apply import Applier
from controllers.plans.claims import claim_of
from controllers.plans.fair_share import half_life_s, is_due, published, until_due
from controllers.plans.keyring import Problem
from controllers.plans.mig.chosen import spec_of
from controllers.plans.quota import borrowed_of
from controllers.plans.tenancy import Demand, Tenant, demand_of
from controllers.plans.tenant import Holding, Manifest, assess, children, holding_of, stray
from controllers.plans.times import unix_s
from controllers.refusals import Refusals
from controllers.runtime.interface import Key, Outcome
from controllers.tenant.reading import Keys, Tenants
from controllers.tenant.usage import Meters
from kube.errors import AnswerError
from kube.events import Recorder
from kube.informer import Informer
from kube.resources import TENANTS, Object, resource_of


def _wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Refused:
    """One child, and what its Tenant's status says of it; None while it may still pass."""

    error: AnswerError
    told: str | None


class TenantReconciler:
    """Needs `services` with the index `by_namespace`; `quotas` and `policies`, those we wrote, with `by_tenant`."""

    kind = TENANTS.kind

    def __init__(
        self,
        tenants: Tenants,
        keys: Keys,
        namespaces: Informer[str],
        services: Informer[Object],
        quotas: Informer[Object],
        policies: Informer[Object],
        applier: Applier,
        recorder: Recorder,
        *,
        wall_clock: Callable[[], datetime] = _wall_clock,
    ) -> None:
        self._tenants, self._keys = tenants, keys
        self._namespaces, self._services = namespaces, services
        self._children: Mapping[str, Informer[Object]] = {"ResourceQuota": quotas, "NetworkPolicy": policies}
        self._applier, self._recorder = applier, recorder
        self._wall_clock = wall_clock
        self._meters = Meters()
        self._refusals: dict[str, Refusals] = {}
        """By Tenant."""

    async def reconcile(self, key: Key) -> Outcome:
        obj = self._tenants.get(key.name)
        if obj is None:
            # Owner references take the children away; the keyring is computed from the Tenants that are left.
            self._applier.forget(key.kind, None, key.name)
            self._meters.keep({one.uid for one in self._tenants.all()})
            self._refusals.pop(key.name, None)
            return Outcome()
        tenant = Tenant.of(obj)
        holding = holding_of(tenant, self._tenants.all(), set(self._namespaces.items()))
        refused = [] if obj["metadata"].get("deletionTimestamp") else await self._children_of(tenant, holding)
        problems = [Problem("ChildRefused", one.told) for one in refused if one.told]
        holding = replace(holding, problems=[*holding.problems, *problems])
        outcome = await self._status(obj, tenant, holding, self._wall_clock())
        if refused:
            raise refused[0].error
        return outcome

    async def _children_of(self, tenant: Tenant, holding: Holding) -> list[_Refused]:
        """What is refused in one namespace stops nothing in another."""
        wanted = children(tenant, holding.owned)
        tried = [await self._tried(tenant, one, self._ensure(one)) for one in wanted]
        if not tenant.unread:  # Else what stands may be of a part that cannot be read.
            observed = [one for informer in self._children.values() for one in informer.by("by_tenant", tenant.name)]
            for left in stray(wanted, observed, tenant.name):
                tried.append(await self._tried(tenant, left, self._applier.delete(resource_of(left), left)))
        return [one for one in tried if one is not None]

    async def _ensure(self, wanted: Manifest) -> None:
        meta = wanted["metadata"]
        await self._applier.ensure(wanted, self._children[wanted["kind"]].get(meta["namespace"], meta["name"]))

    async def _tried(self, tenant: Tenant, child: Mapping[str, Any], write: Awaitable[object]) -> _Refused | None:
        refusals, namespace = self._refusals.setdefault(tenant.name, Refusals()), child["metadata"]["namespace"]
        place = child["kind"], namespace
        try:
            await write
        except AnswerError as error:
            refusals.hear(place, error, self._wall_clock(), generation=tenant.generation)
            told = refusals.told(place)
            return _Refused(error, told and f"Namespace '{namespace}': {told}")
        refusals.forget(place)
        return None

    async def _status(self, obj: Object, tenant: Tenant, holding: Holding, now: datetime) -> Outcome:
        if tenant.unread:
            await write_misread(
                self._applier, self._recorder, TENANTS, obj, tenant.unread, observed=obj.get("status") or {}, now=now
            )
            return Outcome()
        # The pepper changes neither how many keys there are nor what is wrong with them.
        ring = self._keys.ring(b"")
        hashes = ring.hashes.get(tenant.name, ())
        services = [one for namespace in holding.owned for one in self._services.by("by_namespace", namespace)]
        demand = sum((_demand(one) for one in services), Demand())
        result = assess(tenant, holding, ring.problems.get(tenant.name, ()), len(hashes), demand)
        observed: dict[str, Any] = obj.get("status") or {}
        share, look_again_s = self._fair_share(tenant, services, observed.get("fairShare") or {}, now.timestamp())
        if await write_verdict(
            self._applier, self._recorder, TENANTS, obj, {**result.fields, **share}, result.conditions,
            observed=observed, now=now,
        ):  # fmt: skip
            self._meters.publish(tenant.uid, share.get("fairShare", {}))
        return Outcome(look_again_s)

    def _fair_share(
        self, tenant: Tenant, services: Sequence[Object], told: Mapping[str, Any], now_s: float
    ) -> tuple[dict[str, Any], float | None]:
        """What it borrowed lately, as it is to be published now or was before; and when to look again."""
        everyone = self._tenants.all()
        half_life = half_life_s(tenant, everyone)
        borrowed = {} if half_life is None else borrowed_of(tenant, [claim_of(one) for one in services])
        if half_life is None or tenant.spec.borrowing is None or not borrowed:
            self._meters.forget(tenant.uid)
            return {}, None
        usage = self._meters.read(tenant, told, borrowed, now_s, half_life)
        told = self._meters.newest(tenant.uid, told)
        is_told = told.get("cohort") == tenant.spec.borrowing.cohort
        if not is_told or is_due(unix_s(told["sampledAt"]), now_s, half_life):
            told = published(tenant, usage, borrowed, half_life, everyone)
        return {"fairShare": told}, until_due(now_s, half_life)


def _demand(service: Object) -> Demand:
    return demand_of(spec_of(service), (service.get("status") or {}).get("desiredReplicas"))
