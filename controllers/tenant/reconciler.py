"""Observe one Tenant, plan its children and status, apply. The keyring is `controllers.tenant.keyring`'s."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controllers.announce import announce
from controllers.apply import Applier, merge_conditions
from controllers.plans.mig.chosen import spec_of
from controllers.plans.tenancy import Demand, Tenant, demand_of
from controllers.plans.tenant import Holding, assess, children, holding_of, stray
from controllers.runtime.interface import Key, Outcome
from controllers.tenant.reading import Keys, Tenants
from kube.events import Recorder
from kube.informer import Informer
from kube.resources import TENANTS, Object, resource_of


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
    ) -> None:
        self._tenants, self._keys = tenants, keys
        self._namespaces, self._services = namespaces, services
        self._children: Mapping[str, Informer[Object]] = {"ResourceQuota": quotas, "NetworkPolicy": policies}
        self._applier, self._recorder = applier, recorder

    async def reconcile(self, key: Key) -> Outcome:
        obj = self._tenants.get(key.name)
        if obj is None:
            # Owner references take the children away; the keyring is computed from the Tenants that are left.
            self._applier.forget(key.kind, None, key.name)
            return Outcome()
        tenant = Tenant.of(obj)
        holding = holding_of(tenant, self._tenants.all(), set(self._namespaces.items()))
        if not obj["metadata"].get("deletionTimestamp"):
            await self._children_of(tenant, holding)
        await self._status(obj, tenant, holding)
        return Outcome()

    async def _children_of(self, tenant: Tenant, holding: Holding) -> None:
        wanted = children(tenant, holding.owned)
        for one in wanted:
            meta = one["metadata"]
            await self._applier.ensure(one, self._children[one["kind"]].get(meta["namespace"], meta["name"]))
        observed = [one for informer in self._children.values() for one in informer.by("by_tenant", tenant.name)]
        for left in stray(wanted, observed, tenant.name):
            await self._applier.delete(resource_of(left), left)

    async def _status(self, obj: Object, tenant: Tenant, holding: Holding) -> None:
        # The pepper changes neither how many keys there are nor what is wrong with them.
        ring = self._keys.ring(b"")
        hashes = ring.hashes.get(tenant.name, ())
        result = assess(tenant, holding, ring.problems.get(tenant.name, ()), len(hashes), self._demand(holding))
        observed: dict[str, Any] = obj.get("status") or {}
        conditions = merge_conditions(
            observed.get("conditions"), result.conditions, now=datetime.now(UTC), generation=tenant.generation
        )
        await self._applier.status(TENANTS, obj, {**result.fields, "conditions": conditions}, observed)
        announce(self._recorder, obj, observed.get("conditions"), result.conditions)

    def _demand(self, holding: Holding) -> Demand:
        services = [one for namespace in holding.owned for one in self._services.by("by_namespace", namespace)]
        return sum((_demand(one) for one in services), Demand())


def _demand(service: Object) -> Demand:
    return demand_of(spec_of(service), (service.get("status") or {}).get("desiredReplicas"))
