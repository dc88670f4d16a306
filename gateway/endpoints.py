"""The endpoints of one service, and what is held against each: by what requests met there, and what workers say.

Applies the pure modules of `health`. Never chooses an endpoint and never sends anything.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from gateway.backend import Backend
from gateway.catalog import Service
from gateway.health import passive
from gateway.health.load import Load, Loss, hung, stalled
from gateway.health.objections import objection
from gateway.health.passive import Why
from gateway.routing.selection import Candidate

if TYPE_CHECKING:
    from gateway.fleet import Fleet

log = logging.getLogger(__name__)


class Endpoints(ABC):
    """Told of everything that speaks for or against an endpoint."""

    def __init__(self, service: Service, fleet: Fleet) -> None:
        self.service = service
        self.metrics = fleet.metrics.service(service.key)
        self.backends: list[Backend] = []
        self._fleet = fleet
        self._valid_until_s = 0.0
        """What was selected among them holds until then, by the loop's clock."""

    @abstractmethod
    def wake_if_possible(self, now_s: float) -> None:
        """Something may be better now than whoever waits knows."""

    @abstractmethod
    def has_other(self, backend: Backend) -> bool:
        """Whether another endpoint is healthy, so that what is open on this one can move."""

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

    # --- what is told of it ---------------------------------------------------------------------------------------

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

    def _candidate(self, backend: Backend, now_s: float) -> Candidate:
        return Candidate(
            ready=backend.endpoint.ready,
            terminating=backend.endpoint.terminating,
            draining=passive.is_draining(backend.health, now_s),
            ejected=backend.suspect or backend.loss is not None or passive.is_ejected(backend.health, now_s),
        )
