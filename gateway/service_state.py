"""One service as it is now: which endpoints may be chosen, what is held against each, and who waits for one.

Applies the pure modules (`routing`, `health`, `retries`) to what requests meet and workers say. Survives a new catalog
view: an endpoint that is still there keeps its load and its health. Never sends anything.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from gateway.backend import Backend
from gateway.catalog import Endpoint, Service
from gateway.demand import Demand
from gateway.errors import NoEndpoint
from gateway.health import passive
from gateway.health.load import Load, Loss, hung, stalled
from gateway.health.objections import objection
from gateway.health.passive import Why
from gateway.health.score import score
from gateway.hedging import FirstTokens
from gateway.retries import RetryBudget
from gateway.revision_metrics import Revisions
from gateway.routing.keys import NO_KEYS, Keys
from gateway.routing.picker import Picker
from gateway.routing.selection import Candidate, Selection, select
from gateway.routing.split import revision_for

if TYPE_CHECKING:
    from gateway.fleet import Fleet

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
RETRY_AFTER_COLD_S = 15
"""Told to clients of a service that may sleep: a worker is being started."""


class ServiceState:
    """One service: `pick` an endpoint, say how it went, or wait for one."""

    def __init__(self, service: Service, fleet: Fleet) -> None:
        self.service = service
        self.metrics = fleet.metrics.service(service.key)
        self.budget = RetryBudget(fleet.retry_policy)
        self.first_tokens = FirstTokens()
        self.in_flight = 0
        self.open_streams = 0
        self.demand = Demand(fleet.now_s())
        self.gone = False
        self.backends: list[Backend] = []
        self._fleet = fleet
        self._selection = Selection((), "NoneReady", "no endpoints")
        self.picker = Picker(fleet.zone)
        self.revisions = Revisions(fleet.metrics.revisions, service.key)
        self._valid_until_s = 0.0

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

    def succeeded(self, backend: Backend, now_s: float) -> None:
        health = passive.succeeded(backend.health, now_s, self._fleet.health_policy)
        if health is not backend.health:
            backend.health = health
            self._valid_until_s = 0.0

    def failed(self, backend: Backend, now_s: float) -> None:
        ejected = sum(passive.is_ejected(one.health, now_s) for one in self.backends if one is not backend)
        verdict = passive.failed(
            backend.health, now_s, self._fleet.health_policy, endpoints=len(self.backends), ejected=ejected
        )
        backend.health = verdict.health
        self._valid_until_s = 0.0
        if verdict.ejects:
            self.metrics.ejections.inc()
            backend.was_ejected(verdict, now_s)
            self._warn(backend, verdict.message)

    def eject(self, backend: Backend, why: Why, now_s: float) -> None:
        """It is worse than its equals."""
        if passive.is_ejected(backend.health, now_s):
            return
        ejected = sum(passive.is_ejected(one.health, now_s) for one in self.backends)
        policy = self._fleet.health_policy
        verdict = passive.eject(backend.health, now_s, policy, why, endpoints=len(self.backends), ejected=ejected)
        backend.health = verdict.health
        self._valid_until_s = 0.0
        if verdict.ejects:
            self.metrics.ejections.inc()
            backend.was_ejected(verdict, now_s)
        self._warn(backend, verdict.message)

    def _warn(self, backend: Backend, said: str) -> None:
        key, pod = self.service.key, backend.endpoint.pod
        log.warning("%s: endpoint %s: %s", key, pod, said, extra=key.log_fields(endpoint=pod))

    def reshare(self) -> None:
        """Something has changed of what the endpoints may have."""
        self._valid_until_s = 0.0

    def said_draining(self, backend: Backend, now_s: float) -> None:
        backend.health = passive.said_draining(backend.health, now_s, self._fleet.health_policy)
        self._valid_until_s = 0.0

    # --- what the endpoints say of themselves -------------------------------------------------------------------

    def reported(self, backend: Backend, load: Load) -> None:
        self.picker.reported()
        if stalled(load, self._fleet.stall_policy):
            self.suspected(backend)
        else:
            self.believed(backend)
        loss = hung(load, self._fleet.progress_policy)
        if loss is not None:
            self.lost(backend, loss)
        elif backend.loss is not None:
            self._fleet.prove(self, backend)
        now_s = self._fleet.now_s()
        until_s = backend.health.draining_until_s
        if load.draining and (until_s is None or until_s < now_s + 1.0):
            self.said_draining(backend, now_s)

    def suspected(self, backend: Backend) -> None:
        """It is silent, or its engine is; a report of progress ends that."""
        if not backend.suspect:
            backend.suspect = True
            self._valid_until_s = 0.0
        self._fleet.tell_stalled(self, backend)

    def believed(self, backend: Backend) -> None:
        if backend.suspect:
            backend.suspect = False
            self._valid_until_s = 0.0
            self.wake_if_possible(self._fleet.now_s())

    def lost(self, backend: Backend, loss: Loss) -> None:
        before, backend.loss = backend.loss, loss
        if before is None:
            backend.lost_at_s = self._fleet.now_s()
        if before is not None and before.evidence is loss.evidence:
            return
        self._valid_until_s = 0.0
        self.metrics.lost(loss.evidence)
        out = sum(one.loss is not None for one in self.backends)
        pod, counts = backend.endpoint.pod, f"{out} of {len(self.backends)}"
        key, fields = self.service.key, self.service.key.log_fields(endpoint=pod)
        log.warning(
            "%s: endpoint %s is lost (%s): %s; %s", key, pod, loss.evidence.value, loss.message, counts, extra=fields
        )
        self._fleet.tell_lost(self, backend, loss)

    def recovered(self, backend: Backend) -> None:
        loss, backend.loss = backend.loss, None
        if loss is None:
            return
        backend.why = None
        policy, now_s = self._fleet.health_policy, self._fleet.now_s()
        backend.health = passive.returned(backend.health, now_s)
        self._valid_until_s = 0.0
        log.warning(
            "%s: endpoint %s is back: it gets %g of an equal part of the load, all of it in %g s",
            self.service.key, backend.endpoint.pod, policy.return_share, policy.return_s,
            extra=self.service.key.log_fields(endpoint=backend.endpoint.pod),
        )  # fmt: skip
        self.wake_if_possible(now_s)

    def has_other(self, backend: Backend) -> bool:
        """Whether another endpoint is healthy, so that what is open on this one can move."""
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

    def states(self, now_s: float) -> dict[str, int]:
        """How many endpoints are in which state, for metrics."""
        counts = {"ready": 0, "not_ready": 0, "terminating": 0, "draining": 0, "ejected": 0, "lost": 0}
        for one in self.backends:
            candidate = self._candidate(one, now_s)
            if candidate.terminating:
                counts["terminating"] += 1
            elif not candidate.ready:
                counts["not_ready"] += 1
            elif one.loss is not None:
                counts["lost"] += 1
            elif candidate.draining:
                counts["draining"] += 1
            else:
                counts["ejected" if candidate.ejected else "ready"] += 1
        return counts

    def objections(self, now_s: float) -> dict[str, dict[str, Any]]:
        """By pod, what is held against endpoints that the cluster calls ready. Mostly nothing, and that must be cheap:
        it is asked of all services each second."""
        policy = self._fleet.health_policy
        told = {}
        for one in self.backends:
            if one.loss is None and one.why is None:
                continue
            said = objection(one.health, one.loss, one.lost_at_s, one.why, one.ejected_at_s, now_s, policy)
            if said is None:
                one.why = None
            elif one.endpoint.ready and not one.endpoint.terminating:
                told[one.endpoint.pod] = said
        return told

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

    def _candidate(self, backend: Backend, now_s: float) -> Candidate:
        return Candidate(
            ready=backend.endpoint.ready,
            terminating=backend.endpoint.terminating,
            draining=passive.is_draining(backend.health, now_s),
            ejected=backend.suspect or backend.loss is not None or passive.is_ejected(backend.health, now_s),
        )

    def _no_endpoint(self) -> NoEndpoint:
        return NoEndpoint(
            f"The model '{self.service.key}' has no worker that is ready ({self._selection.message}). Try again soon.",
            retry_after_s=RETRY_AFTER_COLD_S if self.service.may_sleep else RETRY_AFTER_S,
        )


def _identity(endpoint: Endpoint) -> tuple[str, int, str]:
    return (endpoint.address, endpoint.port, endpoint.pod)
