"""How a service's requests find a worker, and where they go when it has none: `spec.routing` and `spec.fallbacks`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from crds.fields import ObjectName, Part, Rule


class RoutingPolicy(StrEnum):
    """Which of the healthy workers gets a request."""

    ADAPTIVE = "adaptive"
    """The best score of utilisation, KV cache, queue and latency, with weights that move with the load."""
    PREFIX = "prefix"
    """The worker that holds the prompt's beginning in its cache, unless it has much more to do than others."""
    SESSION = "session"
    """The same worker for the same session, unless it has much more to do than others."""
    LEAST_CONNECTIONS = "leastConnections"
    RESPONSE_TIME = "responseTime"
    """The shortest expected time: latency times requests in flight."""
    ROUND_ROBIN = "roundRobin"


class Routing(Part):
    """How requests find a worker."""

    policy: Annotated[
        RoutingPolicy,
        Field(
            description="adaptive, prefix, session, leastConnections, responseTime or roundRobin. prefix and session "
            "do as adaptive does for requests without a prompt or session."
        ),
    ] = RoutingPolicy.ADAPTIVE
    prefer_zone: Annotated[
        bool, Field(description="Prefer workers of the gateway's own zone while they are not much busier than others.")
    ] = False
    load_bound: Annotated[
        int,
        Field(
            description="With prefix and session: a worker keeps getting its own requests until its load is above so "
            "many percent of the mean.",
            ge=100,
            le=1000,
        ),
    ] = 150
    other_revision: Annotated[
        bool,
        Field(
            description="While traffic is split: requests of a revision without a healthy worker go to another one "
            "instead of waiting."
        ),
    ] = True


class Fallback(Part):
    """What to do with requests that the service itself cannot take now."""

    rules: ClassVar = (
        Rule("has(self.service) || has(self.maxTokens)", "a fallback names a service, a maxTokens, or both"),
    )
    service: Annotated[
        ObjectName | None,
        Field(description="InferenceService in the same namespace that takes them; this one itself when left out."),
    ] = None
    max_tokens: Annotated[
        int | None, Field(description="Most tokens of an answer given this way.", ge=1, le=10_000_000)
    ] = None
