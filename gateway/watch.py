"""The catalog from the API server: six informers, and one view made of them.

Publishes nothing before all have synced once, and goes on with what it holds while the server is away. Rebuilds only
the services that a change names; what is unchanged stays the same object.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from crds import tenant as api
from crds.contract import (
    GATEWAY_PEERS_SERVICE,
    KEYRING_HASHES,
    KEYRING_PEPPER,
    LABEL_SERVICE,
    LABEL_SERVICE_NAME,
    SECRET_KEYRING,
    WORKER_HTTP_PORT,
    WORKER_SLOTS_CPU,
    WORKER_SLOTS_GPU,
)
from crds.fields import seconds
from crds.routing import Fallback as ApiFallback
from crds.routing import Routing
from crds.scaling import Scaling, ScalingPolicy
from gateway.admission.terms import Priority, Terms, terms_of
from gateway.catalog import Catalog, Endpoint, Fallback, Service, ServiceKey, Tenant, revision_of
from gateway.identity import Keyring, keyring_of
from gateway.routing.terms import RoutingTerms, TrafficShare
from gateway.sharing import Salter
from gateway.wishes import fallbacks_of, routing_terms
from kube.api import Api
from kube.informer import Change, Informer
from kube.resources import ENDPOINT_SLICES, INFERENCE_SERVICES, SECRETS, SLAS, TENANTS, Object

log = logging.getLogger(__name__)

SETTLE_S = 0.005
"""Changes that come together, as in a rolling change, become one view."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    key: ServiceKey
    created_s: int
    sla: str | None
    may_sleep: bool = False
    routing: RoutingTerms = field(default_factory=RoutingTerms)
    traffic: tuple[TrafficShare, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    worker_slots: int | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """What an SLA asks of the gateway."""

    priority: Priority
    ttft_target_s: float | None
    tpot_target_s: float | None = None
    e2e_target_s: float | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice of a service; a service may have several."""

    key: ServiceKey
    endpoints: tuple[Endpoint, ...]


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


# --- what is kept of each object: pure ------------------------------------------------------------------------------


def keep_service(obj: Object) -> ServiceSpec:
    meta = obj["metadata"]
    created = datetime.fromisoformat(meta["creationTimestamp"])
    key = ServiceKey(meta["namespace"], meta["name"])
    spec = obj["spec"]
    return ServiceSpec(
        key, int(created.timestamp()), spec.get("sla"), _may_sleep(spec),
        routing=routing_terms(Routing.model_validate(spec.get("routing") or {})),
        traffic=_traffic(obj.get("status") or {}),
        fallbacks=fallbacks_of(key, [ApiFallback.model_validate(one) for one in spec.get("fallbacks") or ()]),
        worker_slots=_worker_slots(spec),
    )  # fmt: skip


def _traffic(status: dict[str, Any]) -> tuple[TrafficShare, ...]:
    shares = status.get("traffic") or ()
    return tuple(TrafficShare(one["revision"], one["weight"], one.get("mirror") or 0) for one in shares)


def _worker_slots(spec: dict[str, Any]) -> int:
    """As its spec says, else as workers do without being told."""
    on_cpu = "cpu" in (spec.get("accelerator") or {})
    own: int | None = (spec.get("engine") or {}).get("maxNumSeqs")
    return own or (WORKER_SLOTS_CPU if on_cpu else WORKER_SLOTS_GPU)


def _may_sleep(spec: dict[str, Any]) -> bool:
    """Its limits allow no worker at all, now or in a window of its schedule."""
    given = spec.get("scaling")
    if given is None:
        return False
    scaling = Scaling.model_validate(given)
    return scaling.policy is not ScalingPolicy.ADVISORY and scaling.fewest == 0


def keep_level(obj: Object) -> Level:
    targets = obj["spec"].get("targets") or {}
    ttft_s, tpot_s, e2e_s = (seconds(targets[one]) if one in targets else None for one in ("ttft", "tpot", "e2e"))
    return Level(Priority[obj["spec"]["priority"]], ttft_s, tpot_s, e2e_s)


def keep_tenant(obj: Object) -> Tenant:
    """With every namespace that it lists: several Tenants may use a service, whoever owns its namespace."""
    spec = obj["spec"]
    namespaces = frozenset(spec.get("namespaces") or ())
    return Tenant(obj["metadata"]["name"], namespaces, _terms(spec), spec.get("cacheDomain"))


def _terms(spec: dict[str, Any]) -> Terms:
    limits, prices = spec.get("limits"), spec.get("prices")
    return terms_of(
        api.Limits.model_validate(limits) if limits else None,
        float(spec.get("weight", 1)),
        spec.get("maxPriority", "P0"),
        api.Prices.model_validate(prices) if prices else None,
    )


def keep_keyring(obj: Object) -> Keyring:
    data = obj.get("data") or {}
    pepper = base64.b64decode(data[KEYRING_PEPPER])
    return keyring_of(pepper, orjson.loads(base64.b64decode(data[KEYRING_HASHES])))


def keep_slice(obj: Object) -> Slice:
    meta = obj["metadata"]
    key = ServiceKey(meta["namespace"], meta["labels"][LABEL_SERVICE])
    port = _port(obj.get("ports") or [])
    return Slice(key, tuple(_endpoint(key, one, port) for one in obj.get("endpoints") or () if one.get("addresses")))


def keep_addresses(obj: Object) -> tuple[str, ...]:
    """Of every pod, ready or not: one that is not may still hold open requests."""
    return tuple(one["addresses"][0] for one in obj.get("endpoints") or () if one.get("addresses"))


def _port(ports: list[dict[str, Any]]) -> int:
    """The port called `http` where there is one, else the first."""
    named = [one for one in ports if one.get("name") == "http"] or ports
    return int(named[0].get("port") or WORKER_HTTP_PORT) if named else WORKER_HTTP_PORT


def _endpoint(key: ServiceKey, one: dict[str, Any], port: int) -> Endpoint:
    conditions = one.get("conditions") or {}
    pod = (one.get("targetRef") or {}).get("name") or one["addresses"][0]
    # The API says that an absent `ready` means ready, and an absent `terminating` means that it is not.
    return Endpoint(
        address=one["addresses"][0],
        port=port,
        pod=pod,
        revision=revision_of(key.name, pod),
        ready=conditions.get("ready") is not False,
        terminating=conditions.get("terminating") is True,
        zone=one.get("zone"),
    )


def merge(slices: Iterable[tuple[Endpoint, ...]]) -> tuple[Endpoint, ...]:
    """The endpoints of all slices of a service, each once: while one moves between slices, both may show it."""
    found: dict[tuple[str, int], Endpoint] = {}
    for endpoints in slices:
        for one in endpoints:
            other = found.get((one.address, one.port))
            if other is None or (one.ready and not other.ready):
                found[one.address, one.port] = one
    return tuple(sorted(found.values(), key=lambda one: (one.pod, one.address, one.port)))
