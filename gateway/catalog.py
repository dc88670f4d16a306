"""What the gateway knows of the fleet, frozen: tenants and their keys, services, and the endpoints of each.

A new view replaces the old one whenever something changed; unchanged parts are the same objects, so that readers can
compare by identity. Pure: no clock, no network. Never holds load or health, which are ours and not the cluster's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.admission.terms import Priority, Terms
from gateway.errors import AmbiguousModel, UnknownModel
from gateway.identity import Keyring
from gateway.routing.terms import RoutingTerms, TrafficShare

UNKNOWN_REVISION = "unknown"


class ServiceKey(NamedTuple):
    """Namespace and name of an InferenceService."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def log_fields(self, **more: str) -> dict[str, str]:
        """For the `extra` of a log line."""
        return {"namespace": self.namespace, "service": self.name, **more}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One worker's address, and what the cluster says of it."""

    address: str
    port: int
    pod: str
    revision: str = UNKNOWN_REVISION
    ready: bool = True
    terminating: bool = False
    zone: str | None = None

    @property
    def where(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Fallback:
    """Where requests go that the service itself cannot take."""

    service: ServiceKey
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One InferenceService as clients see it."""

    key: ServiceKey
    created_s: int = 0
    """Unix time."""
    ttft_target_s: float | None = None
    endpoints: tuple[Endpoint, ...] = ()
    may_sleep: bool = False
    """It may have no worker at all; a request then waits for one to start."""
    routing: RoutingTerms = field(default_factory=RoutingTerms)
    traffic: tuple[TrafficShare, ...] = ()
    """While revisions are compared; empty, and there is no split."""
    fallbacks: tuple[Fallback, ...] = ()
    priority: Priority | None = None
    """Class of its requests; None without an SLA."""
    worker_slots: int | None = None
    """Requests that one worker runs at the same time, as far as its spec tells."""
    tpot_target_s: float | None = None
    e2e_target_s: float | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    namespaces: frozenset[str]
    terms: Terms = field(default_factory=Terms)
    cache_domain: str | None = None
    """Tenants of the same one share cached prefixes; None shares with nobody."""
    cache_salt: bytes = field(default=b"", repr=False)
    """What stands for the domain, or for the Tenant alone (`gateway.sharing`). Workers refuse an empty one."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """One consistent view."""

    services: Mapping[ServiceKey, Service] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    keyring: Keyring = field(default_factory=Keyring)
    gateways: tuple[str, ...] = ()
    """Addresses of the pods that gateways run in, this one's among them."""


class CatalogSource(Protocol):
    """Where views come from: the API server's watches, a file, or a test."""

    async def run(self, publish: Callable[[Catalog], None]) -> None:
        """Publishes the first complete view, and every later one, until cancelled."""

    @property
    def age_s(self) -> float:
        """For how long nothing has been heard that confirms the view."""


def resolve(catalog: Catalog, tenant: Tenant, model: str) -> Service:
    """The service that `model` names for this tenant: `chat`, or `demo/chat`.

    Raises:
        UnknownModel: there is none in the tenant's namespaces; whether others have one is not said.
        AmbiguousModel: more than one of the tenant's namespaces has it.
    """
    namespace, slash, name = model.partition("/")
    if slash:
        places = [ServiceKey(namespace, name)] if namespace in tenant.namespaces else []
    else:
        places = [ServiceKey(one, model) for one in tenant.namespaces]
    found = [service for place in places if (service := catalog.services.get(place)) is not None]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownModel(
            f"The model '{model[:200]}' does not exist or you do not have access to it. "
            "GET /v1/models lists the models that your key may use.",
            param="model",
        )
    names = " or ".join(f"'{service.key}'" for service in sorted(found, key=lambda one: one.key))
    raise AmbiguousModel(
        f"The model '{model}' exists in more than one of your namespaces: ask for {names}.", param="model"
    )


def visible(catalog: Catalog, tenant: Tenant) -> list[tuple[str, Service]]:
    """Every service of the tenant under the shortest name that means it alone, in order of name."""
    own = sorted(
        (one for one in catalog.services.values() if one.key.namespace in tenant.namespaces), key=lambda one: one.key
    )
    seen: dict[str, int] = {}
    for service in own:
        seen[service.key.name] = seen.get(service.key.name, 0) + 1
    return [(one.key.name if seen[one.key.name] == 1 else str(one.key), one) for one in own]


def revision_of(service_name: str, pod_name: str) -> str:
    """The revision in the name of a worker pod, `<service>-<revision>-<replica set>-<random>`.

    Kubernetes shortens the middle of long names, but always keeps the beginning; a service's own name may hold dashes.
    """
    prefix = f"{service_name}-"
    if not pod_name.startswith(prefix):
        return UNKNOWN_REVISION
    revision, dash, _ = pod_name[len(prefix) :].partition("-")
    return revision if revision and dash else UNKNOWN_REVISION
