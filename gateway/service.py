"""The gateway put together: source → frontend, listener, admin server, tick, and the way out.

Draining, in order: not ready; answers ask clients to connect anew; no new connections and no idle ones; open responses
end; the rest is cut when the time is up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from gateway.access_log import AccessLog
from gateway.admin import Admin, CollectedReply, Readiness, probe_flight
from gateway.admission.door import Admission
from gateway.admission.gossip import Gossip, secret_of
from gateway.admission.ledger import Ledger
from gateway.admission.link import Link
from gateway.backend import Backend
from gateway.catalog import Catalog, CatalogSource
from gateway.fleet import Fleet
from gateway.frontend import Frontend
from gateway.health.load import ProgressPolicy
from gateway.health.passive import HealthPolicy
from gateway.health.prober import Probed, Prober
from gateway.http1.listener import Listener
from gateway.http1.pool import PoolLimits
from gateway.metrics import Metrics, gauge
from gateway.proxy import Proxy
from gateway.retries import RetryPolicy
from gateway.service_state import ServiceState
from gateway.settings import SECRET_VARIABLE, Settings, TracingSettings, listening
from gateway.streams.streams import Streams

if TYPE_CHECKING:
    from gateway.endpoint_picker.server import EndpointPicker
    from gateway.tracing import Tracing

log = logging.getLogger(__name__)

TICK_S = 0.25
WORKER_PROBE_S = 5.0
"""For one token of one worker."""


class Gateway:
    """Construct in the loop that runs it; `start`, `drain`, `stop`."""

    def __init__(self, settings: Settings, source: CatalogSource) -> None:
        rng = random.Random()
        self.port = settings.port
        self.admin_port = settings.admin_port
        self.peer_port = settings.peer_port
        self._settings = settings
        self._secret = _own_secret(settings)
        self._source = source
        self._parent = os.getppid()
        self._readiness = Readiness()
        self._metrics = Metrics()
        self._access_log = AccessLog(sys.stdout.buffer, settings.access_log_share, rng)
        retry_policy = RetryPolicy()
        self._fleet = Fleet(self._metrics, HealthPolicy(), retry_policy, PoolLimits(), ProgressPolicy(), settings.zone)
        self._streams = Streams(settings.streams)
        self._proxy = Proxy(retry_policy, rng, self._streams)
        self._fleet.on_lost(self._proxy.on_lost)
        self._prober = Prober(self._probe)
        self._fleet.prove = self._prober.prove
        self._fleet.on_stalled(self._proxy.on_stalled)
        now_s = asyncio.get_running_loop().time()
        self._ledger = Ledger(os.urandom(8), now_s)
        link = None if settings.bytes_per_second is None else Link(settings.bytes_per_second, now_s)
        self._admission = Admission(self._fleet, self._metrics, self._ledger, settings.queue, link)
        self._gossip = Gossip(self._ledger, self._admission.before_telling, self._admission.after_telling, rng)
        self._tracing = None if settings.tracing is None else self._new_tracing(settings.tracing, rng)
        self._frontend = Frontend(
            self._fleet, self._proxy, self._admission, self._metrics, self._access_log, settings.requests, rng,
            self._tracing,
        )  # fmt: skip
        self._listener = Listener(self._frontend, settings.limits)
        self.picker_port = 0
        self._picker = None if settings.picker is None else self._new_picker()
        self._admin = Admin(self._readiness, self._metrics, self._fleet, self._proxy)
        self._metrics.observe(self._gauges)
        self._tasks: list[asyncio.Task[None]] = []

    def _new_picker(self) -> EndpointPicker:
        # gRPC takes 15 MB, which a gateway without a picker need not pay.
        from gateway.endpoint_picker.own import OwnChoices
        from gateway.endpoint_picker.server import EndpointPicker

        return EndpointPicker(OwnChoices(self._frontend), self._settings.limits.body_bytes, self._listener.memory)

    def _new_tracing(self, chosen: TracingSettings, rng: random.Random) -> Tracing:
        # OpenTelemetry takes 20 MB and half a second, which a gateway without traces need not pay.
        from gateway.tracing import Tracing, otlp

        return Tracing(otlp(chosen.endpoint), chosen.share, rng, {"service.instance.id": socket.gethostname()})

    async def start(self) -> None:
        """Listens at once, one of several when it is ready; ready when the source has published.

        Raises:
            SettingsError: a port cannot be had.
        """
        settings, own = self._settings, self._settings.inherited
        if own is None:
            with listening("--port", settings.host, settings.port):
                self.port = await self._listener.start(settings.host, settings.port)
            with listening("--admin-port", settings.host, settings.admin_port):
                self.admin_port = await self._admin.start(settings.host, settings.admin_port)
            with listening("--peer-port", settings.host, settings.peer_port):
                await self._gossip.start(settings.host, settings.peer_port)
        else:
            # It listens once it is ready: the kernel gives it connections from then on, and its siblings until then.
            self.admin_port = await self._admin.start("", 0, socket.socket(fileno=own.admin))
            await self._gossip.start("", 0, socket.socket(fileno=own.peer))
        if self._picker is not None and settings.picker is not None:
            # Where several listen on it, the kernel spreads the connections (gRPC asks for SO_REUSEPORT).
            self.picker_port = await self._picker.start(
                settings.host, settings.picker.port, settings.picker.certificate
            )
        self.peer_port = self._gossip.port
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._source.run(self._take), name="catalog"),
            loop.create_task(self._access_log.run(), name="access log"),
            loop.create_task(self._tick(), name="tick"),
            loop.create_task(self._gossip.run(), name="gossip"),
        ]
        log.info("Listening on %s:%d, admin on %d.", settings.host, self.port, self.admin_port)

    async def failed(self) -> None:
        """Returns when one of the tasks that must not end has ended."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            log.error("The task '%s' ended: the gateway stops.", task.get_name(), exc_info=task.exception())

    def begin_drain(self) -> None:
        self._readiness.draining = True
        self._listener.begin_drain()

    async def drain(self) -> None:
        """Returns when the last response has ended, or the time for it."""
        self.begin_drain()
        log.info("Draining: %d requests in flight.", self._proxy.in_flight)
        await asyncio.sleep(self._settings.drain_grace_s)
        self._listener.stop_accepting()
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._stop_picker(self._settings.drain_timeout_s)
                await self._listener.wait_empty()
        except TimeoutError:
            log.warning("%d requests did not end within the drain timeout.", self._proxy.in_flight)

    async def _stop_picker(self, grace_s: float) -> None:
        """No new questions; those whose answers are under way are followed to their end."""
        if self._picker is not None:
            await self._picker.stop(grace_s)

    def cut(self) -> None:
        """Ends every connection, open responses too."""
        self._listener.stop()

    async def stop(self) -> None:
        """Ends everything at once."""
        self.cut()
        await self._stop_picker(0.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._frontend.close()
        self._gossip.stop()
        self._prober.close()
        self._fleet.close()
        await self._admin.stop()
        self._access_log.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    def _take(self, catalog: Catalog) -> None:
        self._frontend.update(catalog)
        self._gossip.secret = self._secret or secret_of(catalog.keyring.pepper)
        self._gossip.list_peers(self._peers(catalog))
        if not self._readiness.synced:
            self._readiness.synced = True
            self._gossip.round()  # without peers there is nobody to wait for
            self._readiness.agreed = self._ledger.joined

    def _peers(self, catalog: Catalog) -> set[tuple[str, int]]:
        """Processes of this pod by its own address, those of others by theirs."""
        settings = self._settings
        siblings = settings.inherited.siblings if settings.inherited is not None else ()
        ports = range(settings.peer_port, settings.peer_port + settings.processes)
        others = [(one, port) for one in catalog.gateways if one != settings.address for port in ports]
        return {*settings.peers, *siblings, *others}

    async def _tick(self) -> None:
        own = self._settings.inherited
        while True:
            if own is not None and self._readiness.reason is None:
                self.port = await self._listener.start("", 0, socket.socket(fileno=own.http))
                own = None
            await asyncio.sleep(TICK_S)
            if self._settings.inherited is not None and os.getppid() != self._parent:
                raise RuntimeError("the process that owns the port is gone")
            self._proxy.tick()
            self._fleet.tick()
            self._admission.tick()
            self._readiness.agreed = self._ledger.joined
            self._prober.tick(self._fleet, self._fleet.now_s())

    async def _probe(self, state: Probed, backend: Backend) -> bool:
        assert isinstance(state, ServiceState), "the fleet holds nothing else"
        flight = probe_flight(state, time.perf_counter(), WORKER_PROBE_S)
        reply = CollectedReply()
        await self._proxy.ask(flight, backend, reply)
        return reply.status == 200

    def _gauges(self) -> Iterable[Metric]:
        rows = (
            ("catalog_age_seconds", "Since the API server last confirmed what we serve from.", self._source.age_s),
            ("connections", "Open client connections.", self._listener.open_connections),
            ("buffered_bytes", "Request bodies held.", self._listener.buffered_bytes),
            ("journal_bytes", "Kept so that open streams can go on elsewhere.", self._streams.journal_bytes),
            ("access_log_dropped_lines", "Lines that nobody read in time.", self._access_log.dropped_lines),
        )
        for name, help_, value in rows:
            metric = gauge(name, help_)
            metric.add_metric((), value)
            yield metric


def _own_secret(settings: Settings) -> bytes:
    """Where the keyring's is not to be used: a file's, or one that siblings were given. Empty for none."""
    if settings.peer_secret is not None:
        return settings.peer_secret.read_bytes()
    if settings.static is not None and settings.inherited is not None:
        return bytes.fromhex(os.environ.get(SECRET_VARIABLE, ""))
    return b""
