"""Follows what the answers of services are like: asks their workers every minute, closes windows, remembers them.

Decides nothing itself (`controllers.plans.quality`), and changes nothing: who is woken says what was found.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client.core import GaugeMetricFamily

from controllers.history.interface import ServiceId
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.inference_service.admin_ports import AdminPorts
from controllers.inference_service.quality_report import Answers
from controllers.plans.quality import Drift, Policy, Watched, after, drifts, plain, watched_in
from controllers.plans.snapshot import Worker
from controllers.runtime.interface import Key, Marker
from kube.resources import INFERENCE_SERVICES

log = logging.getLogger(__name__)

PERIOD_S: Final = 60.0
SETTLED_S: Final = 600.0
"""After a start every service has been looked at by then; what nobody follows is gone."""
AT_ONCE: Final = 32


class Memory(Protocol):
    """Where what is known outlives the process."""

    async def read(self) -> dict[ServiceId, Watched]:
        """Everything."""
        ...

    async def write(self, service: ServiceId, watched: Watched | None) -> None:
        """None: forget it."""
        ...


class NoMemory:
    """For an operator without a store."""

    async def read(self) -> dict[ServiceId, Watched]:
        return {}

    async def write(self, service: ServiceId, watched: Watched | None) -> None:
        """Nothing outlives the process."""


@dataclass(slots=True)
class _Window:
    began_s: float
    answers: Answers = field(default_factory=Answers)


@dataclass(slots=True)
class _Followed:
    workers: Mapping[str, Worker] = field(default_factory=dict)
    said: dict[str, Answers] = field(default_factory=dict)
    """Worker → its counts when it was last asked."""
    windows: dict[str, _Window] = field(default_factory=dict)
    """Revision → the window that is open."""


class QualityBoard:
    """What is known of each service, and who must be told when that changes."""

    def __init__(
        self,
        ports: AdminPorts,
        queue: Marker,
        memory: Memory,
        policy: Policy,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ports, self._queue, self._memory, self._policy, self._clock = ports, queue, memory, policy, clock
        self._followed: dict[Key, _Followed] = {}
        self._watched: dict[Key, Watched] = {}
        self._told: dict[Key, tuple[Drift, ...]] = {}
        self._gone: set[Key] = set()
        """Services that went, of which the memory still knows."""
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._began_s = clock()
        self._has_read = False

    def follow(self, key: Key, workers: Iterable[Worker]) -> None:
        """Ask these workers from now on."""
        ready = {one.name: one for one in workers if one.ready and one.ip and not one.leaving}
        self._followed.setdefault(key, _Followed()).workers = ready

    def forget(self, key: Key) -> None:
        """The service is gone. Another of its name has a baseline of its own."""
        self._followed.pop(key, None)
        self._told.pop(key, None)
        if self._watched.pop(key, None) is not None:
            self._gone.add(key)

    def drifts(self, key: Key) -> tuple[Drift, ...] | None:
        """What differs from the baseline, of revisions that have workers, the newest first; None before it is known."""
        followed = self._followed.get(key)
        if not self._has_read or followed is None:
            return None
        present = {one.revision for one in followed.workers.values()}
        return tuple(one for one in self._told.get(key, ()) if one.revision in present)

    async def run(self) -> None:
        """Until cancelled."""
        await self.begin()
        while True:
            await self.round()
            await asyncio.sleep(PERIOD_S)

    async def begin(self) -> None:
        """Read what an operator before knew; everybody who asked meanwhile is woken."""
        for service, watched in (await self._memory.read()).items():
            key = Key(INFERENCE_SERVICES.kind, service.namespace, service.name)
            self._watched.setdefault(key, watched)
            self._tell(key)
        self._has_read = True
        for key in self._followed:
            self._queue.add(key)

    async def round(self) -> None:
        """Ask every worker of every service once; forget services that are gone."""
        while self._gone:
            await self._memory.write(ServiceId.of(self._gone.pop()), None)
        await asyncio.gather(*(self._ask(key) for key in list(self._followed)))
        if self._clock() - self._began_s < SETTLED_S:
            return
        for key in [key for key in self._watched if key not in self._followed]:
            del self._watched[key]
            await self._memory.write(ServiceId.of(key), None)

    async def _ask(self, key: Key) -> None:
        followed = self._followed.get(key)
        if followed is None:
            return  # It went between two turns of the loop.
        asked = dict(followed.workers)

        async def one(worker: Worker) -> Answers | None:
            async with self._slots:
                return await self._ports.worker_answers(worker.ip or "")

        pages = await asyncio.gather(*(one(worker) for worker in asked.values()))
        if self._followed.get(key) is not followed:
            return
        for worker, counts in zip(asked.values(), pages, strict=True):
            if counts is not None:
                self._count(followed, worker, counts)
        followed.said = {name: counts for name, counts in followed.said.items() if name in asked}
        await self._close(key, followed)

    def _count(self, followed: _Followed, worker: Worker, counts: Answers) -> None:
        before = followed.said.get(worker.name)
        followed.said[worker.name] = counts
        if before is None:
            return  # It only tells where its counting begins: what came before belongs to no window of ours.
        window = followed.windows.setdefault(worker.revision, _Window(self._clock()))
        window.answers += counts.since(before)

    async def _close(self, key: Key, followed: _Followed) -> None:
        """Windows that are long and full enough."""
        policy, now_s = self._policy, self._clock()
        known = {one.revision for one in followed.workers.values()}
        followed.windows = {name: one for name, one in followed.windows.items() if name in known}
        for revision, window in list(followed.windows.items()):
            if window.answers.answers < policy.least_answers or now_s - window.began_s < policy.window_s:
                continue
            del followed.windows[revision]
            means = window.answers.means(policy.least_answers)
            self._watched[key] = after(self._watched.get(key, Watched()), revision, means, policy)
            self._tell(key)
            await self._memory.write(ServiceId.of(key), self._watched[key])

    def _tell(self, key: Key) -> None:
        found = tuple(drifts(self._watched[key]))
        before, self._told[key] = self._told.get(key, ()), found
        if [one.reason for one in before] != [one.reason for one in found]:
            self._queue.add(key)

    # --- metrics ------------------------------------------------------------------------------------------------------
    def families(self) -> Iterator[GaugeMetricFamily]:
        """Scores, means and baselines."""
        labels = ("namespace", "service", "revision", "measure")
        rows = {
            "score": "CUSUM of the windows against the baseline; drift from 8 on.",
            "mean": "Of the last window: tokens, shares or nats.",
            "baseline": "Mean of the windows of the baseline.",
        }
        made = {name: GaugeMetricFamily(f"foretide_quality_{name}", text, labels=labels) for name, text in rows.items()}
        for key in self._followed:
            watched = self._watched.get(key, Watched())
            for revision, own in watched.revisions.items():
                for measure, score in own.scores.items():
                    place = (key.namespace or "", key.name, revision, measure.value)
                    made["score"].add_metric(place, max(score.up, score.down))
                    made["mean"].add_metric(place, score.value)
                    made["baseline"].add_metric(place, watched.baseline[measure].mean)
        yield from made.values()


class StoredMemory:
    """In the embedded store of the operator that leads."""

    def __init__(self, store: StoreThread) -> None:
        self._store = store

    async def read(self) -> dict[ServiceId, Watched]:
        found = {}
        for namespace, name, text in await self._store.call(Store.qualities):
            try:
                found[ServiceId(namespace, name)] = watched_in(json.loads(text))
            except (KeyError, TypeError, ValueError):
                log.warning("What was known of the answers of %s/%s makes no sense: it begins anew.", namespace, name)
        return found

    async def write(self, service: ServiceId, watched: Watched | None) -> None:
        text = None if watched is None else json.dumps(plain(watched))
        try:
            await self._store.call(Store.set_quality, service, text)
        except sqlite3.Error as error:
            log.warning("What the answers of %s are like was not remembered: %s.", service, error)
