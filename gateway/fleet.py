"""All services of the present view, what they share, and their present values for a scrape.

A service whose workers did not change costs a comparison. Never sends anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from prometheus_client.core import CounterMetricFamily, Metric

from gateway.backend import Backend
from gateway.catalog import Catalog, Endpoint, ServiceKey
from gateway.endpoints import Endpoints
from gateway.health.load import Loss, ProgressPolicy, StallPolicy
from gateway.health.passive import HealthPolicy
from gateway.health.watcher import Share
from gateway.http1.pool import Pool, PoolLimits
from gateway.metrics import Metrics, gauge
from gateway.retries import RetryPolicy
from gateway.routing.hotspots import skew
from gateway.service_state import ServiceState
from gateway.sweeping import sweep

SWEEP_S = 2.0
"""Between searches for idle upstream connections to close."""


OnLost = Callable[[Endpoints, Backend, Loss], None]
"""Called in the moment in which a worker is found to do nothing; what is open there will not come."""

Prove = Callable[[Endpoints, Backend], None]


OnStalled = Callable[[Endpoints, Backend], None]
"""Called while a worker's engine makes no step, which may end, or end in its loss."""


class Fleet:
    """All services of the present view."""

    def __init__(
        self,
        metrics: Metrics,
        health_policy: HealthPolicy,
        retry_policy: RetryPolicy,
        pool_limits: PoolLimits,
        progress_policy: ProgressPolicy,
        zone: str | None,
    ) -> None:
        """`zone`: our own, where it is known."""
        self.zone = zone
        self.metrics = metrics
        self.health_policy = health_policy
        self.progress_policy = progress_policy
        self.stall_policy = StallPolicy()
        self.retry_policy = retry_policy
        self._pool_limits = pool_limits
        self._loop = asyncio.get_running_loop()
        self.watching = Share(progress_policy, self.stall_policy, self._loop)
        self._on_lost: list[OnLost] = []
        self.prove: Prove = lambda state, backend: state.recovered(backend)
        """Told of a lost worker that reports again; by default it is believed."""
        self._on_stalled: list[OnStalled] = []
        self._states: dict[ServiceKey, ServiceState] = {}
        self._next_sweep_s = 0.0
        metrics.observe(self._gauges)

    def now_s(self) -> float:
        return self._loop.time()

    def backend(self, endpoint: Endpoint, state: ServiceState) -> Backend:
        # Questions about load never wait behind requests, and never for long.
        quick = replace(self._pool_limits, idle_connections=1, connect_timeout_s=self.progress_policy.answer_within_s)
        pool, asking = (
            Pool(endpoint.address, endpoint.port, limits, self._loop) for limits in (self._pool_limits, quick)
        )
        return Backend(endpoint, state, pool, asking, self.watching)

    def on_lost(self, tell: OnLost) -> None:
        """From now on, `tell` is called when a worker is lost."""
        self._on_lost.append(tell)

    def on_stalled(self, tell: OnStalled) -> None:
        """From now on, `tell` is called with each report of a worker whose engine stands still."""
        self._on_stalled.append(tell)

    def tell_stalled(self, state: Endpoints, backend: Backend) -> None:
        for tell in self._on_stalled:
            tell(state, backend)

    def tell_lost(self, state: Endpoints, backend: Backend, loss: Loss) -> None:
        for tell in self._on_lost:
            tell(state, backend, loss)

    def get(self, key: ServiceKey) -> ServiceState | None:
        return self._states.get(key)

    def __iter__(self) -> Iterator[ServiceState]:
        return iter(self._states.values())

    def update(self, catalog: Catalog) -> None:
        """Takes over a new view; what did not change costs a comparison."""
        for key in [key for key in self._states if key not in catalog.services]:
            self._states.pop(key).retire()
        for key, service in catalog.services.items():
            state = self._states.get(key)
            if state is None:
                state = self._states[key] = ServiceState(service, self)
                state.update(service)
            elif state.service is not service:
                state.update(service)

    def tick(self) -> None:
        """What time alone brings: waits that can end, connections that have been idle for too long."""
        now_s = self.now_s()
        for state in self._states.values():
            state.wake_if_possible(now_s)
        if now_s < self._next_sweep_s:
            return
        self._next_sweep_s = now_s + SWEEP_S
        for state in self._states.values():
            sweep(state, now_s)
            for backend in state.backends:
                backend.pool.sweep(now_s)

    def close(self) -> None:
        for state in self._states.values():
            for backend in state.backends:
                backend.close()

    def _gauges(self) -> Iterable[Metric]:
        now_s = self.now_s()
        endpoints = gauge("endpoints", "Endpoints by state.", ("namespace", "service", "state"))
        in_flight = gauge("in_flight", "Requests that have not been answered in full.", ("namespace", "service"))
        waiting = gauge("waiting", "Requests that wait for a worker.", ("namespace", "service"))
        streams = gauge("open_streams", "Streams that have begun and not ended.", ("namespace", "service"))
        skews = gauge("load_skew", "The highest load of an endpoint over the mean.", ("namespace", "service"))
        scores = gauge("endpoint_score", "Health, 0 to 1: its part of the load.", ("namespace", "service", "pod"))
        decisions = CounterMetricFamily(
            "foretide_gateway_routing_decisions", "Picks, by why.", labels=("namespace", "service", "why")
        )
        for key, state in self._states.items():
            skews.add_metric(key, skew([one.in_flight / one.capacity for one in state.picker.members]))
            for why, count in state.picker.why.items():
                decisions.add_metric((*key, why.value), count)
            for one in state.backends:
                usable = one in state.picker.members
                scores.add_metric((*key, one.endpoint.pod), one.share if usable else 0.0)
            in_flight.add_metric(key, state.in_flight)
            streams.add_metric(key, state.open_streams)
            waiting.add_metric(key, state.demand.waiting)
            for name, count in state.states(now_s).items():
                endpoints.add_metric((*key, name), count)
        return (endpoints, in_flight, streams, waiting, skews, scores, decisions)
