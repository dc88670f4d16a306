"""The agent's own HTTP port: /metrics for Prometheus, /healthz for the kubelet. Healthy means that the loop moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from controllers.model_cache.agent import LOOK_AT_LEAST_EVERY_S, Agent
from controllers.model_cache.views import Views
from controllers.runtime.port import AdminPort, metrics_page, verdict

STUCK_AFTER_S: Final = 4 * LOOK_AT_LEAST_EVERY_S
"""Deleting a copy of hundreds of gigabytes is one step."""
STALLED_AFTER_S: Final = 90.0


class Admin(AdminPort):
    def __init__(self, agent: Agent, views: Views, clock: Callable[[], float], host: str, port: int) -> None:
        super().__init__(host, port)
        self._agent, self._views, self._clock = agent, views, clock
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(agent))
        ProcessCollector(registry=self._registry)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        return app

    def problems(self) -> list[str]:
        """Why the process should be restarted; empty when it should not. An API server that is away is no reason."""
        informers = self._views.informers().items()
        found = [f"The cache of {name} stands still." for name, one in informers if one.stalled_s > STALLED_AFTER_S]
        idle_s = self._clock() - self._agent.last_step_s
        if all(one.synced.is_set() for _, one in informers) and idle_s > STUCK_AFTER_S:
            found.append(f"The loop has not moved for {idle_s:.0f} s (at most {STUCK_AFTER_S:.0f}).")
        return found

    async def _metrics(self, _: web.Request) -> web.Response:
        return metrics_page(generate_latest(self._registry))

    async def _health(self, _: web.Request) -> web.Response:
        return verdict(self.problems())


class _Collector(Collector):
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        counts, held = self._agent.counts, self._agent.held()
        prefix = "foretide_model_cache"
        yield GaugeMetricFamily(f"{prefix}_copies", "Verified copies on this node.", value=len(held))
        yield GaugeMetricFamily(f"{prefix}_bytes", "Bytes of verified copies.", value=sum(held.values()))
        yield GaugeMetricFamily(f"{prefix}_limit_bytes", "Bytes that copies may take.", value=self._agent.cache_bytes)
        yield GaugeMetricFamily(f"{prefix}_fetching", "Fetches under way.", value=self._agent.fetching())
        yield CounterMetricFamily(f"{prefix}_fetched", "Copies made.", value=counts.finished)
        yield CounterMetricFamily(f"{prefix}_failures", "Tries that failed.", value=counts.failed)
        yield CounterMetricFamily(f"{prefix}_evictions", "Copies that made room.", value=counts.evicted)
        yield CounterMetricFamily(
            f"{prefix}_downloaded_bytes", "Bytes received by fetches that ended.", value=counts.downloaded_bytes
        )
