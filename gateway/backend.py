"""One endpoint with what the gateway knows of it: connections, requests in flight, health, load, and its cost.

Holds and counts; judges nothing. It is the `Ear` of its own `Watch`, and passes what it hears to its service.
"""

from __future__ import annotations

from typing import Protocol

from gateway.catalog import Endpoint
from gateway.health.load import Load, Loss
from gateway.health.outliers import Record
from gateway.health.passive import FRESH, Health, Verdict
from gateway.health.watcher import Share, Watch
from gateway.http1.pool import Pool
from gateway.routing.scoring import SLOTS, Facts, Line

_WEIGHT = 0.1
"""Of a new latency in the average."""
_EVIDENCE = 10.0
_FORGET_S = 15.0
"""A latency that old says nothing: the endpoint is worth a try again."""


class Service(Protocol):
    """Whom a backend reports to."""

    def reported(self, backend: Backend, load: Load) -> None: ...
    def lost(self, backend: Backend, loss: Loss) -> None: ...
    def recovered(self, backend: Backend) -> None: ...
    def suspected(self, backend: Backend) -> None: ...
    def believed(self, backend: Backend) -> None: ...


class Backend:
    __slots__ = (
        "_others", "_service", "cooled", "cost", "ejected_at_s", "endpoint", "errors", "health", "heard_s", "host",
        "hot_sweeps", "in_flight", "latency_at_s", "latency_s", "line", "load", "loss", "lost_at_s", "pool", "proved_s",
        "requests", "revision", "share", "suspect", "watch", "why",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, service: Service, pool: Pool, watch_pool: Pool, watching: Share) -> None:
        self.endpoint = endpoint
        self.pool = pool
        self.host = endpoint.where.encode()
        self.revision = endpoint.revision.encode()
        self.in_flight = 0
        self.heard_s = 0.0
        """When a piece of an answer last came, whatever it was: a sign of life, by the loop's clock."""
        self.health: Health = FRESH
        self.load: Load | None = None
        """Its newest report; None for a worker that makes none."""
        self.loss: Loss | None = None
        """Why it is believed to do nothing, while it is."""
        self.lost_at_s = 0.0
        self.why: Verdict | None = None
        """Of its last ejection, and when the first of that row was."""
        self.ejected_at_s = 0.0
        self.suspect = False
        """It is silent, or its engine makes no step: it may be about to be lost, and nothing new goes there for now."""
        self.share = 1.0
        self.line = Line(1.0, 1.0)
        self.cost = 1.0
        self.requests = 0.0
        self.errors = 0.0
        self.latency_s: float | None = None
        self.latency_at_s = 0.0
        self.proved_s = watching.loop.time()
        """When it last answered well; a new one is as good as its readiness."""
        self.hot_sweeps = 0
        self.cooled = 1.0
        """Of its part of the load, while it is a hot spot."""
        self._others = 0
        self._service = service
        self.watch = Watch(self, watch_pool, self, watching)

    def close(self) -> None:
        self.watch.stop()
        self.pool.close()

    # --- counting -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """One more of our requests is there."""
        self.in_flight += 1
        self.cost = self.line.at(self.in_flight)

    def end(self) -> None:
        self.in_flight -= 1
        self.cost = self.line.at(self.in_flight)

    def priced(self, line: Line) -> None:
        self.line = line
        self.cost = line.at(self.in_flight)

    def met(self, good: bool, latency_s: float | None, now_s: float) -> None:
        """What one request met here; `latency_s`: to the first byte that counts."""
        self.requests += 1.0
        if good:
            self.proved_s = now_s
        else:
            self.errors += 1.0
        if latency_s is not None:
            before_s = self.latency_s
            self.latency_s = latency_s if before_s is None else before_s + _WEIGHT * (latency_s - before_s)
            self.latency_at_s = now_s

    def age(self) -> None:
        """A part of what it met is forgotten, so that a sweep sees the last ten seconds or so."""
        self.requests *= 0.8
        self.errors *= 0.8

    # --- what is known ------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int | None:
        """Requests that it runs at the same time, as it says."""
        return self.load.max_num_seqs if self.load else None

    @property
    def capacity(self) -> int:
        """The same, or a guess."""
        load = self.load
        return SLOTS if load is None or load.max_num_seqs is None else load.max_num_seqs

    @property
    def doubted(self) -> bool:
        """It does nothing, as far as can be told, or may be about to be found so."""
        return self.suspect or self.loss is not None

    @property
    def error_share(self) -> float:
        # Among few requests, failures in a row say more than their share.
        return self.errors / self.requests if self.requests >= _EVIDENCE else 0.0

    def was_ejected(self, why: Verdict, now_s: float) -> None:
        """For the record; `health` says until when."""
        if why.health.ejections_in_a_row == 1:
            self.ejected_at_s = now_s
        self.why = why

    def record(self) -> Record:
        return Record(self.requests, self.errors, self.latency_s)

    def facts(self, near: bool, now_s: float) -> Facts:
        load = self.load
        latency_s = self.latency_s if now_s - self.latency_at_s < _FORGET_S else None
        if load is None:
            return Facts(self.share, latency_s=latency_s, near=near)
        return Facts(self.share, self.capacity, self._others, load.utilisation, load.kv_usage, latency_s, near)

    # --- Ear ----------------------------------------------------------------------------------------------------

    def on_load(self, load: Load) -> None:
        self.load = load
        self._others = max(load.running + load.waiting - self.in_flight, 0)
        self._service.reported(self, load)

    def on_suspicion(self) -> None:
        self._service.suspected(self)

    def on_mute(self) -> None:
        self.load = None
        self._others = 0
        self._service.believed(self)
        self._service.recovered(self)

    def on_loss(self, loss: Loss) -> None:
        # One that is not ready yet need not answer; one that is leaving must, while we wait for something from it.
        if self.endpoint.ready or self.in_flight:
            self._service.lost(self, loss)
