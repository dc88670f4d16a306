"""The operator's life: warm up, stand for election, lead, end.

    start      HTTP port, informers
    stand      with every cache complete (a standby's are warm): who cannot read must not keep others from leading
    lead       list anew what was silent, mark every object, then workers, background loops, Events, resync, Kopf
    end        stop taking work, let what is in work end, give the lease back

Whatever ends unexpectedly ends the process with one line and a non-zero code; the restart converges. Losing the lease
ends it on the spot.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from controllers.runtime.health import Health
from controllers.runtime.interface import Assembly, Key, Marker
from controllers.runtime.kopf_feed import Feed
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.resync import resync
from controllers.runtime.server import AdminServer
from controllers.runtime.workers import Workers
from controllers.settings import Settings
from kube.api import Api
from kube.client import Client
from kube.connection import Connection
from kube.elector import Elector
from kube.events import Recorder
from kube.informer import Change, Informer
from kube.lease import Timing
from kube.resources import Object

log = logging.getLogger(__name__)

DRAIN_S: Final = 0.7
RELEASE_S: Final = 0.8
"""Together with what else a stop does: less than 2 s from SIGTERM to exit."""
PULSE_S: Final = 1.0
HEARD_S: Final = 1.0
"""A cache that the server has spoken to within this time shows what the leader before us has written."""
RENEWED_WITHIN_S: Final = 10.0
"""Longer is not waited for caches to be filled anew: to lead with old ones is better than that nobody leads."""
CONTROLLER: Final = "foretide.dev/operator"


@dataclass(frozen=True, slots=True)
class Options:
    """What belongs to this process and not to the product's configuration."""

    identity: str
    host: str = "0.0.0.0"
    port: int = 8080
    lease_name: str = "foretide-operator"
    timing: Timing = field(default_factory=Timing)


Build = Callable[[Api, Settings, Marker, Recorder], Assembly]
"""`controllers.build.build`."""


async def operate(connection: Connection, settings: Settings, options: Options, build: Build) -> int:
    """Run until told to stop (0) or until something ends that must not (1)."""
    metrics = Metrics()
    life = _Life(connection, settings, options, metrics)
    async with Client(connection, fence=life.elector.fence, observe=metrics.observe_request) as client:
        recorder = Recorder(client, controller=CONTROLLER, instance=options.identity)
        return await life.run(build(client, settings, life.queue, recorder), recorder)


class _Life:
    def __init__(self, connection: Connection, settings: Settings, options: Options, metrics: Metrics) -> None:
        self._connection, self._settings, self._options, self._metrics = connection, settings, options, metrics
        self._loop = asyncio.get_running_loop()
        self._acquired = asyncio.Event()
        self._end: asyncio.Future[int] = self._loop.create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self.queue = ReconcileQueue()
        self.queue.hold()
        self._feed: Feed | None = None
        self._workers: Workers | None = None
        self.elector = Elector(
            connection,
            namespace=settings.namespace,
            name=options.lease_name,
            identity=options.identity,
            on_acquired=lambda: self._in_loop(self._acquired.set),
            on_lost=_exit_at_once,
            timing=options.timing,
        )

    async def run(self, assembly: Assembly, recorder: Recorder) -> int:
        informers = _named(assembly)
        self._metrics.watch_runtime(self.queue, informers, recorder)
        self._metrics.leader.labels(self._options.lease_name).set(0)
        self._wake_at_changes(assembly)
        health = Health(self.queue, informers)
        for collector in assembly.collectors:
            self._metrics.registry.register(collector)
        server = AdminServer(
            self._options.host, self._options.port, health, self._metrics, assembly.pages, assembly.hooks
        )
        await server.start()
        self._end_at_signals()
        for name, informer in informers.items():
            self._spawn(f"the cache of {name}", informer.run(self._settings.relist_period_s))
        for background in assembly.always:
            self._spawn(background.name, _of(background.run()))
        self._spawn("the pulse", self._pulse())
        self._spawn("leading", self._lead(assembly, recorder, health))
        try:
            return await self._end
        finally:
            await self._wind_up(server)

    def _wake_at_changes(self, assembly: Assembly) -> None:
        def wake(change: Change[Object], kind: str) -> None:
            self.queue.add(Key(kind, change.namespace, change.name))

        for reconciler in assembly.reconcilers:
            kind = reconciler.kind
            assembly.owned[kind].on_change(functools.partial(wake, kind=kind))

    # --- leading ---------------------------------------------------------------------------------------------
    async def _lead(self, assembly: Assembly, recorder: Recorder, health: Health) -> None:
        await self._synced(assembly, health)
        self.elector.start()
        await self._acquired.wait()
        self.queue.open()
        self._metrics.leader.labels(self._options.lease_name).set(1)
        await _renewed(_named(assembly))
        reconcilers = {one.kind: one for one in assembly.reconcilers}
        self._workers = Workers(self.queue, reconcilers, self._metrics, self._settings.workers)
        for key in _keys(assembly):
            self.queue.add(key)
        self._spawn("the workers", self._workers.run())
        self._spawn("the recorder of Events", recorder.run())
        self._spawn("the resync", resync(self.queue, lambda: _keys(assembly), self._settings.resync_period_s))
        for background in assembly.background:
            self._spawn(background.name, _of(background.run()))
        self._start_feed(assembly)
        await asyncio.Event().wait()

    async def _synced(self, assembly: Assembly, health: Health) -> None:
        started_s = time.monotonic()
        for name, informer in _named(assembly).items():
            while not informer.synced.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(informer.synced.wait(), 10.0)
                    break
                log.warning("Waiting for the first list of %s: %s", name, " ".join(health.unready()))
        # What was loaded stays; the collector need not walk through it again and again.
        gc.collect()
        gc.freeze()
        log.info("All caches are complete after %.1f s.", time.monotonic() - started_s)

    def _start_feed(self, assembly: Assembly) -> None:
        def mark_here(key: Key, resource_version: str) -> None:
            known = assembly.owned[key.kind].holds_version(key.namespace, key.name, resource_version)
            self._metrics.kopf_events.labels("known" if known else "new").inc()
            if not known:  # Else the cache that reconcilers read has this version, and its own listener marked the key.
                self.queue.add(key)

        self._feed = Feed(
            self._connection,
            [assembly.owned[one.kind].resource for one in assembly.reconcilers],
            mark=lambda key, version: self._in_loop(mark_here, key, version),
            on_end=lambda why: self._in_loop(self._fail, why),
        )
        self._feed.start()

    async def _pulse(self) -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(PULSE_S)
            self._metrics.loop_lag_s.set(max(0.0, time.monotonic() - before_s - PULSE_S))
            if self._acquired.is_set() and not self.elector.is_leader():
                _exit_at_once("The lease ran out while the elector's thread was held up")

    # --- ending ----------------------------------------------------------------------------------------------
    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        self._fail(f"{task.get_name()} ended: {f'{type(error).__name__}: {error}' if error else 'without an error'}")

    def _fail(self, why: str) -> None:
        if not self._end.done():
            log.critical("%s. The operator exits; its restart continues.", why)
            self._end.set_result(1)

    def _end_at_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: int) -> None:
        if not self._end.done():
            log.info("Stopping at %s.", signal.Signals(number).name)
            self._end.set_result(0)

    async def _wind_up(self, server: AdminServer) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._workers is not None:
            await self._workers.drain(DRAIN_S)
        # Only now may another lead: nothing of ours is in work any more. In a thread of its own: all of the loop's may
        # wait for something slow.
        await self._loop.run_in_executor(ThreadPoolExecutor(1), self.elector.stop, RELEASE_S)
        if self._feed is not None:
            self._feed.stop()
        await server.stop()

    def _in_loop(self, act: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: the process is ending.
            self._loop.call_soon_threadsafe(act, *arguments)


async def _renewed(informers: Mapping[str, Informer[Any]]) -> None:
    """From a standby's cache that lags, what the leader before decided would be decided again, and written over."""
    renewing = {asyncio.create_task(one.renew(), name=name) for name, one in informers.items() if one.age_s > HEARD_S}
    if not renewing:
        return
    _, late = await asyncio.wait(renewing, timeout=RENEWED_WITHIN_S)
    for task in late:
        task.cancel()
    if late:
        log.warning("Caches that may be behind: %s.", ", ".join(sorted(task.get_name() for task in late)))


async def _of(work: Any) -> None:
    await work


def _named(assembly: Assembly) -> dict[str, Informer[Any]]:
    """Every informer once, under a name of its own: two of them may follow the same objects for different readers."""
    named: dict[str, Informer[Any]] = {}
    for informer in dict.fromkeys((*assembly.owned.values(), *assembly.children)):
        alike = sum(other.name == informer.name for other in named.values())
        named[f"{informer.name} #{alike + 1}" if alike else informer.name] = informer
    return named


def _keys(assembly: Assembly) -> list[Key]:
    return [
        Key(one.kind, namespace, name)
        for one in assembly.reconcilers
        for namespace, name in assembly.owned[one.kind].places()
    ]


def _exit_at_once(why: str) -> None:
    """Another may lead already: no cleanup could be worth acting on."""
    log.critical("%s. The operator exits; its restart stands for election again.", why)
    os._exit(1)
