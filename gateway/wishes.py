"""What a service's spec says of its routing, as the gateway keeps it. Pure; shared by all sources of the catalog."""

from __future__ import annotations

from collections.abc import Iterable

from crds.routing import Fallback as ApiFallback
from crds.routing import Routing
from gateway.catalog import Fallback, ServiceKey
from gateway.routing.terms import Policy, RoutingTerms


def routing_terms(routing: Routing) -> RoutingTerms:
    policy = Policy(routing.policy.value)
    return RoutingTerms(policy, routing.prefer_zone, routing.load_bound / 100.0, routing.other_revision)


def fallbacks_of(key: ServiceKey, fallbacks: Iterable[ApiFallback]) -> tuple[Fallback, ...]:
    """In their order; one without a name is the service itself, with a shorter limit."""
    return tuple(Fallback(ServiceKey(key.namespace, one.service or key.name), one.max_tokens) for one in fallbacks)
