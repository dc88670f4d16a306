"""The catalog from a file, for a laptop or a benchmark: no Kubernetes, no watch, no key hashing by an operator.

    tenants:
      - name: acme
        namespaces: [demo]
        keys: [sk-local]
        limits: {requestsPerMinute: 600, tokensPerMinute: 200000, concurrency: 64}
    services:
      - namespace: demo
        name: chat
        priority: P1
        ttft: 1s
        routing: {policy: prefix}
        fallbacks: [{service: chat-small}]
        workerSlots: 32
        endpoints: ["127.0.0.1:8000"]

Read once. Never used in a cluster, where the file would hold keys in the clear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crds import routing as api
from crds import tenant
from crds.fields import Duration, camel, seconds
from crds.sla import Priority as Class
from gateway.admission.terms import Priority, terms_of
from gateway.catalog import Catalog, Endpoint, Service, ServiceKey, Tenant
from gateway.errors import SettingsError
from gateway.identity import Keyring
from gateway.sharing import Salter
from gateway.wishes import fallbacks_of, routing_terms


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535
    if not colon or not host or not is_port:
        raise ValueError(f"'{text}' is not host:port")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=camel, populate_by_name=True)


class _Limits(tenant.Limits):
    model_config = ConfigDict(extra="forbid")


class _Prices(tenant.Prices):
    model_config = ConfigDict(extra="forbid")


class _Routing(api.Routing):
    model_config = ConfigDict(extra="forbid")


class _Fallback(api.Fallback):
    model_config = ConfigDict(extra="forbid")


class _Tenant(_Part):
    name: str
    namespaces: list[str]
    keys: list[str]
    limits: _Limits | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_priority: Class = Class.P0
    prices: _Prices | None = None
    cache_domain: str | None = None


class _Service(_Part):
    namespace: str
    name: str
    priority: Class | None = None
    ttft: Duration | None = None
    worker_slots: Annotated[int | None, Field(gt=0, le=1_000_000)] = None
    revision: str = "static"
    routing: _Routing = _Routing()
    fallbacks: list[_Fallback] = []
    endpoints: list[Annotated[str, AfterValidator(_address)]]


class _File(_Part):
    tenants: list[_Tenant]
    services: list[_Service]


class StaticSource:
    """Publishes one view, and confirms it for ever."""

    age_s = 0.0

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def run(self, publish: Callable[[Catalog], None]) -> None:
        publish(self._catalog)
        await asyncio.Event().wait()


def load(path: Path) -> Catalog:
    """The catalog in a file.

    Raises:
        SettingsError: the file cannot be read, or says something else than a catalog.
    """
    try:
        file = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from error
    services = {service.key: service for service in map(_service, file.services)}
    keyring = _keyring(file.tenants)
    return Catalog(services, Salter().salted(map(_tenant, file.tenants), keyring.pepper), keyring)


def _tenant(one: _Tenant) -> Tenant:
    terms = terms_of(one.limits, one.weight, one.max_priority, one.prices)
    return Tenant(one.name, frozenset(one.namespaces), terms, one.cache_domain)


def _service(one: _Service) -> Service:
    endpoints = []
    for number, text in enumerate(one.endpoints):
        host, _, port = text.rpartition(":")
        endpoints.append(Endpoint(host.strip("[]"), int(port), f"{one.name}-{number}", one.revision))
    target_s = seconds(one.ttft) if one.ttft else None
    key = ServiceKey(one.namespace, one.name)
    return Service(
        key,
        0,
        target_s,
        tuple(endpoints),
        routing=routing_terms(one.routing),
        fallbacks=fallbacks_of(key, one.fallbacks),
        priority=Priority[one.priority] if one.priority else None,
        worker_slots=one.worker_slots,
    )


def _keyring(tenants: list[_Tenant]) -> Keyring:
    # Of the keys, not of chance: all processes that read the file shall make the same salts.
    pepper = sha256("\0".join(sorted(key for one in tenants for key in one.keys)).encode()).digest()
    empty = Keyring(pepper)
    return Keyring(pepper, {empty.digest(key.encode()): one.name for one in tenants for key in one.keys})
