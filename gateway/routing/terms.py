"""What a service says of its routing, as the gateway keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Policy(Enum):
    """As `spec.routing.policy` spells them."""

    ADAPTIVE = "adaptive"
    PREFIX = "prefix"
    SESSION = "session"
    LEAST_CONNECTIONS = "leastConnections"
    RESPONSE_TIME = "responseTime"
    ROUND_ROBIN = "roundRobin"


KEYED = frozenset({Policy.PREFIX, Policy.SESSION})
"""Those that keep requests of the same key together."""


@dataclass(frozen=True, slots=True)
class RoutingTerms:
    policy: Policy = Policy.ADAPTIVE
    prefer_zone: bool = False
    load_bound: float = 1.5
    """Over the mean load, for the policies that keep to one endpoint."""
    other_revision: bool = True


@dataclass(frozen=True, slots=True)
class TrafficShare:
    """One revision's part while traffic is split, in percent."""

    revision: str
    weight: int
    mirror: int = 0
