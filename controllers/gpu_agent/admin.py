"""The agent's own HTTP port: /metrics for Prometheus, /healthz for the kubelet. Healthy means that the loop moves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.process_collector import ProcessCollector

from controllers.gpu_agent.agent import Agent
from controllers.gpu_agent.sources import Source, SourceError
from controllers.gpu_agent.usage import UsageMetrics
from controllers.runtime.port import AdminPort, metrics_page, verdict

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 8085
STUCK_AFTER_S: Final = 180.0
"""A step waits seconds for the driver and for two requests to the API server, which have half a minute each."""


class Admin(AdminPort):
    def __init__(
        self,
        agent: Agent,
        source: Source,
        metrics: UsageMetrics,
        *,
        host: str = "",
        port: int = DEFAULT_PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(host, port)
        self._agent, self._source, self._metrics, self._clock = agent, source, metrics, clock
        self.registry = CollectorRegistry()
        self.registry.register(metrics)
        ProcessCollector(registry=self.registry)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", self._page)
        app.router.add_get("/healthz", self._health)
        return app

    async def _page(self, _: web.Request) -> web.Response:
        try:
            self._metrics.gpus = await asyncio.to_thread(self._source.usage)
        except SourceError as error:
            log.warning("The GPUs do not tell what they do: %s", error)
            self._metrics.gpus = ()
        return metrics_page(generate_latest(self.registry))

    async def _health(self, _: web.Request) -> web.Response:
        idle_s = self._clock() - self._agent.last_step_s
        stuck = f"The loop has not moved for {idle_s:.0f} s (at most {STUCK_AFTER_S:.0f})."
        return verdict([stuck] if idle_s > STUCK_AFTER_S else [])
