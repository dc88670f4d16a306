"""The catalog from the API server: six informers, and one view made of them.

Publishes nothing before all have synced once, and goes on with what it holds while the server is away. Rebuilds only
the services that a change names; what is unchanged stays the same object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from crds.contract import (
    GATEWAY_PEERS_SERVICE,
    LABEL_SERVICE,
    LABEL_SERVICE_NAME,
    SECRET_KEYRING,
)
from gateway.catalog import Catalog, Service, ServiceKey
from gateway.identity import Keyring
from gateway.kept import (
    Level,
    ServiceSpec,
    keep_addresses,
    keep_keyring,
    keep_level,
    keep_service,
    keep_slice,
    keep_tenant,
    merge,
)
from gateway.sharing import Salter
from kube.api import Api
from kube.informer import Change, Informer
from kube.resources import ENDPOINT_SLICES, INFERENCE_SERVICES, SECRETS, SLAS, TENANTS

log = logging.getLogger(__name__)

SETTLE_S = 0.005
"""Changes that come together, as in a rolling change, become one view."""


class WatchSource:
    """A `CatalogSource`. Construct in the loop that runs it."""

    def __init__(self, client: Api, system_namespace: str) -> None:
        by_service = {"by_service": lambda one: (str(one.key),)}
        self._services = Informer(client, INFERENCE_SERVICES, keep_service, index={"by_sla": _sla_keys})
        self._slas = Informer(client, SLAS, keep_level)
        self._tenants = Informer(client, TENANTS, keep_tenant)
        self._slices = Informer(client, ENDPOINT_SLICES, keep_slice, label_selector=LABEL_SERVICE, index=by_service)
        self._keyring = Informer(
            client,
            SECRETS,
            keep_keyring,
            namespace=system_namespace,
            field_selector=f"metadata.name={SECRET_KEYRING}",
        )
        self._gateways = Informer(
            client,
            ENDPOINT_SLICES,
            keep_addresses,
            namespace=system_namespace,
            label_selector=f"{LABEL_SERVICE_NAME}={GATEWAY_PEERS_SERVICE}",
        )
        self._system_namespace = system_namespace
        self._changed = asyncio.Event()
        self._dirty: set[ServiceKey] = set()
        self._salter = Salter()
        self._listen()

    @property
    def age_s(self) -> float:
        return max(one.age_s for one in self._informers())

    async def run(self, publish: Callable[[Catalog], None]) -> None:
        async with asyncio.TaskGroup() as group:
            for informer in self._informers():
                group.create_task(informer.run(), name=f"watch {informer.resource.collection}")
            for informer in self._informers():
                await informer.synced.wait()
            await self._publish_for_ever(publish)

    async def _publish_for_ever(self, publish: Callable[[Catalog], None]) -> None:
        self._dirty.clear()
        services = {one.key: self._build(one) for one in self._services.items()}
        log.info("The catalog is complete: %d services, %d tenants.", len(services), len(self._tenants))
        while True:
            self._changed.clear()
            keyring = self._keyring.get(self._system_namespace, SECRET_KEYRING) or Keyring()
            tenants = self._salter.salted(self._tenants.items(), keyring.pepper)
            gateways = sorted({address for one in self._gateways.items() for address in one})
            publish(Catalog(services, tenants, keyring, tuple(gateways)))
            await self._changed.wait()
            await asyncio.sleep(SETTLE_S)
            services = self._rebuilt(services)

    def _rebuilt(self, services: dict[ServiceKey, Service]) -> dict[ServiceKey, Service]:
        dirty, self._dirty = self._dirty, set()
        if not dirty:
            return services
        services = dict(services)
        for key in dirty:
            spec = self._services.get(key.namespace, key.name)
            if spec is None:
                services.pop(key, None)
            else:
                services[key] = self._build(spec)
        return services

    def _build(self, spec: ServiceSpec) -> Service:
        level = self._slas.get(spec.key.namespace, spec.sla) if spec.sla else None
        slices = self._slices.by("by_service", str(spec.key))
        return Service(
            spec.key, spec.created_s, level.ttft_target_s if level else None,
            merge(one.endpoints for one in slices), may_sleep=spec.may_sleep,
            routing=spec.routing, traffic=spec.traffic, fallbacks=spec.fallbacks,
            priority=level.priority if level else None, worker_slots=spec.worker_slots,
            tpot_target_s=level.tpot_target_s if level else None, e2e_target_s=level.e2e_target_s if level else None,
        )  # fmt: skip

    # --- listening ----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._services.on_change(lambda change: self._mark(change.value.key))
        self._slices.on_change(lambda change: self._mark(change.value.key))
        self._slas.on_change(self._mark_users)
        self._tenants.on_change(lambda change: self._changed.set())
        self._keyring.on_change(lambda change: self._changed.set())
        self._gateways.on_change(lambda change: self._changed.set())

    def _mark(self, key: ServiceKey) -> None:
        self._dirty.add(key)
        self._changed.set()

    def _mark_users(self, change: Change[Level]) -> None:
        for service in self._services.by("by_sla", f"{change.namespace}/{change.name}"):
            self._mark(service.key)

    def _informers(self) -> tuple[Informer[Any], ...]:
        return (self._services, self._slas, self._tenants, self._slices, self._keyring, self._gateways)


def _sla_keys(spec: ServiceSpec) -> tuple[str, ...]:
    return (f"{spec.key.namespace}/{spec.sla}",) if spec.sla else ()
