"""One service as it is now: which of its endpoints may be chosen, and who waits for one.

Applies the pure modules of `routing` to what `endpoints` holds against each. Survives a new catalog view: an endpoint
that is still there keeps its load and its health. Never sends anything.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gateway.backend import Backend
from gateway.catalog import Endpoint, Service
from gateway.demand import Demand
from gateway.endpoints import Endpoints
from gateway.errors import NoEndpoint
from gateway.health import passive
from gateway.health.load import Load
from gateway.health.score import score
from gateway.hedging import FirstTokens
from gateway.retries import RetryBudget
from gateway.revision_metrics import Revisions
from gateway.routing.keys import NO_KEYS, Keys
from gateway.routing.picker import Picker
from gateway.routing.selection import Selection, select
from gateway.routing.split import revision_for

if TYPE_CHECKING:
    from gateway.fleet import Fleet

RETRY_AFTER_S = 5
RETRY_AFTER_COLD_S = 15
"""Told to clients of a service that may sleep: a worker is being started."""


class ServiceState(Endpoints):
    """One service: `pick` an endpoint, say how it went, or wait for one."""

    def __init__(self, service: Service, fleet: Fleet) -> None:
        super().__init__(service, fleet)
        self.budget = RetryBudget(fleet.retry_policy)
        self.first_tokens = FirstTokens()
        self.in_flight = 0
        self.open_streams = 0
        self.demand = Demand(fleet.now_s())
        self.gone = False
        self._selection = Selection((), "NoneReady", "no endpoints")
        self.picker = Picker(fleet.zone)
        self.revisions = Revisions(fleet.metrics.revisions, service.key)

    def pick(
        self, tried: Collection[Backend], now_s: float, keys: Keys = NO_KEYS, revision: bytes | None = None
    ) -> Backend | None:
        """An endpoint for a request, one that it has not tried where there is one; of `revision`, where traffic is
        split, unless that has none and the service takes another."""
        if now_s >= self._valid_until_s:
            self._select(now_s)
        picker = self.picker
        if revision is not None and not picker.has(revision) and self.service.routing.other_revision:
            revision = None
        return picker.pick(tried, now_s, keys, revision)

    def pick_of(self, revision: bytes, tried: Collection[Backend], now_s: float) -> Backend | None:
        """An endpoint of this revision and no other, for a stream that goes on; untried where there is one."""
        if now_s >= self._valid_until_s:
            self._select(now_s)
        return self.picker.pick(tried, now_s, NO_KEYS, revision)

    def revision_for(self, keys: Keys, draw: float) -> bytes | None:
        """The revision that a request belongs to while traffic is split. `draw`, in [0, 1), stands for a request that
        has neither session nor prompt."""
        traffic = self.service.traffic
        if not traffic:
            return None
        sticky = keys.sticky
        chosen = revision_for(int(draw * (1 << 63)) if sticky is None else sticky, traffic)
        return None if chosen is None else chosen.encode()

    @property
    def is_split(self) -> bool:
        """Revisions are being compared."""
        return len(self.service.traffic) > 1

    def is_healthy(self, now_s: float) -> bool:
        """There is an endpoint that nothing is said against."""
        if now_s >= self._valid_until_s:
            self._select(now_s)
        return self._selection.healthy

    def worker_slots(self, now_s: float) -> int | None:
        """Requests that its usable workers run at the same time, and a few that each has at hand; None without any."""
        if now_s >= self._valid_until_s:
            self._select(now_s)
        each = [one.slots or self.service.worker_slots for one in self.picker.members]
        known = [slots for slots in each if slots is not None]
        # Of a worker that does not tell nothing is known, so there is nothing to hold its requests back by.
        return sum(slots + -(-slots // 8) for slots in known) if known and len(known) == len(each) else None

    async def wait(self, timeout_s: float) -> None:
        """Returns when an endpoint may have become usable, or the service is gone.

        Raises:
            NoEndpoint: neither happened in time, or too many wait already.
        """
        await self.demand.wait(timeout_s, self._no_endpoint)

    def reported(self, backend: Backend, load: Load) -> None:
        self.picker.reported()
        super().reported(backend, load)

    def has_other(self, backend: Backend) -> bool:
        now_s = self._fleet.now_s()
        if now_s >= self._valid_until_s:
            self._select(now_s)
        return self._selection.healthy and any(one is not backend for one in self.picker.members)

    @property
    def slots(self) -> int | None:
        """Requests that the endpoints which may be chosen run at the same time; None where none of them says."""
        now_s = self._fleet.now_s()
        if now_s >= self._valid_until_s:
            self._select(now_s)
        told = [one.slots for one in self.picker.members if one.slots is not None]
        return sum(told) if told else None

    def update(self, service: Service) -> None:
        """Takes over a new view of the service."""
        known = {_identity(one.endpoint): one for one in self.backends}
        kept = []
        for endpoint in service.endpoints:
            backend = known.pop(_identity(endpoint), None)
            if backend is None:
                backend = self._fleet.backend(endpoint, self)
            backend.endpoint = endpoint
            kept.append(backend)
        for backend in known.values():
            backend.close()
        self.service = service
        self.revisions.keep({one.revision.encode() for one in service.traffic} if self.is_split else set())
        self.backends = kept
        self._valid_until_s = 0.0
        self.wake_if_possible(self._fleet.now_s())

    def retire(self) -> None:
        self.gone = True
        for backend in self.backends:
            backend.close()
        self.backends = []
        self._valid_until_s = 0.0
        self.metrics.forget()
        self.revisions.keep(set())
        self.demand.wake()

    def wake_if_possible(self, now_s: float) -> None:
        """Ends the waits when there is an endpoint; also asked now and then, since time alone can bring one back."""
        if self.demand.waiting:
            if now_s >= self._valid_until_s:
                self._select(now_s)
            if self.picker.members:
                self.demand.wake()

    def _select(self, now_s: float) -> None:
        fleet = self._fleet
        policy = fleet.health_policy
        self._selection = select([self._candidate(one, now_s) for one in self.backends])
        members = [self.backends[index] for index in self._selection.usable]
        for one in members:
            # Where the ejected ones serve because all are, they are equals.
            scored = score(one.health, one.loss, one.suspect, one.error_share, now_s, policy)
            one.share = (scored or 1.0) * one.cooled
        self.picker.renew(members, self.service.routing)
        changes = (passive.next_change_s(one.health, now_s, policy) for one in self.backends)
        self._valid_until_s = min(changes, default=float("inf"))

    def _no_endpoint(self) -> NoEndpoint:
        return NoEndpoint(
            f"The model '{self.service.key}' has no worker that is ready ({self._selection.message}). Try again soon.",
            retry_after_s=RETRY_AFTER_COLD_S if self.service.may_sleep else RETRY_AFTER_S,
        )


def _identity(endpoint: Endpoint) -> tuple[str, int, str]:
    return (endpoint.address, endpoint.port, endpoint.pod)
