"""Probes in flight and what the last ones found. A reconcile asks for one and goes on; the answer wakes its key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controllers.inference_service.admin_ports import AdminPorts, ProbeAnswer
from controllers.plans.snapshot import Probe
from controllers.runtime.interface import Key, Marker

AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class _Result:
    answer: ProbeAnswer
    workers: frozenset[str]
    gateways: frozenset[str]
    at_s: float
    failures: int


class ProbeBoard:
    """One probe at a time for each service, each through all gateways at once."""

    def __init__(self, ports: AdminPorts, queue: Marker, clock: Callable[[], float]) -> None:
        self._ports, self._queue, self._clock = ports, queue, clock
        self._results: dict[Key, _Result] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def last(self, key: Key) -> Probe | None:
        """What the last probe found, with its age."""
        found = self._results.get(key)
        if found is None:
            return None
        return Probe(
            ok=found.answer.ok,
            reason=found.answer.reason,
            message=found.answer.message,
            workers=found.workers,
            gateways=found.gateways,
            age_s=self._clock() - found.at_s,
            failures=found.failures,
        )

    def send(self, key: Key, workers: frozenset[str], gateways: frozenset[str]) -> None:
        """Start a probe unless one is under way; `workers` and `gateways` are what it will speak for."""
        if key not in self._running:
            task = asyncio.create_task(self._probe(key, workers, gateways), name=f"probe {key}")
            self._running[key] = task

    def forget(self, key: Key) -> None:
        """What was found no longer holds: nothing could answer, or the service is gone."""
        self._results.pop(key, None)
        task = self._running.pop(key, None)
        if task is not None:
            task.cancel()

    async def run(self) -> None:
        """Ends what is under way, and all connections, when it is cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._ports.close()

    async def _probe(self, key: Key, workers: frozenset[str], gateways: frozenset[str]) -> None:
        try:
            async with self._slots:
                asked = [self._ports.probe(gateway, key.namespace or "", key.name) for gateway in sorted(gateways)]
                answers = await asyncio.gather(*asked)
        finally:
            if self._running.get(key) is asyncio.current_task():
                del self._running[key]
        failed = [answer for answer in answers if not answer.ok]
        before = self._results.get(key)
        failures = (before.failures if before else 0) + 1 if failed else 0
        answer = failed[0] if failed else ProbeAnswer(True)
        self._results[key] = _Result(answer, workers, gateways, self._clock(), failures)
        self._queue.add(key)
