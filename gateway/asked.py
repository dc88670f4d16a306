"""One request of a client as it was read, and what bounds it. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.catalog import Tenant
from gateway.http1.messages import Request
from gateway.requests import Wanted

if TYPE_CHECKING:
    from gateway.tracing import Trace


@dataclass(frozen=True, slots=True)
class RequestLimits:
    in_flight: int = 10_000
    deadline_s: float = 600.0
    wait_s: float = 10.0
    """For an endpoint of a service that has none ready."""
    cold_wait_s: float = 300.0
    """The same for a service that may sleep at no worker at all: a new one takes minutes."""


@dataclass(slots=True)
class Asked:
    """One request of a client, whoever will answer it. Not frozen, since one is made for every request."""

    request: Request
    path: bytes
    tenant: Tenant
    wanted: Wanted
    request_id: bytes
    started_s: float
    deadline_s: float
    trace: Trace | None = None
    """Its spans, where it is sampled."""
