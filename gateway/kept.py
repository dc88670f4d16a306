"""What the gateway keeps of each object of the API server: the few fields that a catalog is made of. Pure.

Reads what the server has admitted, so it judges nothing; what is not listed here is never held. What was admitted under
other rules than this release's is read by its parts (`crds.reading`): one such object keeps no gateway from the others.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from crds import tenant as api
from crds.contract import (
    KEYRING_HASHES,
    KEYRING_PEPPER,
    LABEL_SERVICE,
    WORKER_HTTP_PORT,
    WORKER_SLOTS_CPU,
    WORKER_SLOTS_GPU,
)
from crds.fields import seconds
from crds.reading import listed, understood, unread_of
from crds.routing import Fallback as ApiFallback
from crds.routing import Routing
from crds.scaling import Scaling, ScalingPolicy
from gateway.admission.terms import Priority, Terms, terms_of
from gateway.catalog import Endpoint, Fallback, ServiceKey, Tenant, revision_of
from gateway.identity import Keyring, keyring_of
from gateway.routing.terms import RoutingTerms, TrafficShare
from gateway.wishes import fallbacks_of, routing_terms
from kube.resources import Object

log = logging.getLogger(__name__)


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


def _read(obj: Object) -> Object:
    """As much of it as can be read; the operator tells people of the rest, in the object's own conditions."""
    read = understood(obj)
    unread = (*unread_of(read), *unread_of(read, "status"))
    if unread:
        meta = obj["metadata"]
        log.warning("%s '%s' is read in part: %s", obj["kind"], meta["name"], listed(unread))
    return read


def keep_service(obj: Object) -> ServiceSpec:
    obj = _read(obj)
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
    obj = _read(obj)
    targets = obj["spec"].get("targets") or {}
    ttft_s, tpot_s, e2e_s = (seconds(targets[one]) if one in targets else None for one in ("ttft", "tpot", "e2e"))
    return Level(Priority[obj["spec"]["priority"]], ttft_s, tpot_s, e2e_s)


def keep_tenant(obj: Object) -> Tenant:
    """With every namespace that it lists: several Tenants may use a service, whoever owns its namespace."""
    spec = _read(obj)["spec"]
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
