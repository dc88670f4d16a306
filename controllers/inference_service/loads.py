"""Loads of workers: scraped every few seconds for services that scale, and at once before a scale-down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from controllers.inference_service.admin_ports import AdminPorts
from controllers.plans.snapshot import Load, Worker
from controllers.runtime.interface import Key, Marker

PERIOD_S: Final = 5.0
AT_ONCE: Final = 64


class LoadBoard:
    """Who is followed, and what their workers last said."""

    def __init__(self, ports: AdminPorts, queue: Marker, clock: Callable[[], float]) -> None:
        self._ports, self._queue, self._clock = ports, queue, clock
        self._followed: dict[Key, Mapping[str, str]] = {}
        """Service → pod name → address."""
        self._said: dict[Key, dict[str, tuple[int, float]]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def follow(self, key: Key, workers: Iterable[Worker]) -> None:
        """Scrape these workers from now on; each round wakes the key."""
        self._followed[key] = _addresses(workers)

    def forget(self, key: Key) -> None:
        """The service does not scale, or is gone."""
        self._followed.pop(key, None)
        self._said.pop(key, None)

    def last(self, key: Key) -> dict[str, Load]:
        """By pod name, with ages."""
        now_s = self._clock()
        return {name: Load(requests, now_s - at_s) for name, (requests, at_s) in self._said.get(key, {}).items()}

    async def scrape(self, workers: Iterable[Worker]) -> dict[str, Load]:
        """Ask these workers now; one that does not answer is left out."""
        said = await self._ask(_addresses(workers))
        return {name: Load(requests, 0.0) for name, requests in said.items()}

    async def run(self) -> None:
        """Scrape all that are followed, again and again, until cancelled."""
        while True:
            await asyncio.gather(*(self._round(key) for key in list(self._followed)))
            await asyncio.sleep(PERIOD_S)

    async def _round(self, key: Key) -> None:
        said = await self._ask(self._followed[key])
        if key not in self._followed:
            return
        kept = {name: old for name, old in self._said.get(key, {}).items() if name in self._followed[key]}
        now_s = self._clock()
        self._said[key] = kept | {name: (requests, now_s) for name, requests in said.items()}
        self._queue.add(key)

    async def _ask(self, addresses: Mapping[str, str]) -> dict[str, int]:
        async def one(address: str) -> int | None:
            async with self._slots:
                return await self._ports.requests_held(address)

        answers = await asyncio.gather(*(one(address) for address in addresses.values()))
        return {name: held for name, held in zip(addresses, answers, strict=True) if held is not None}


def _addresses(workers: Iterable[Worker]) -> dict[str, str]:
    return {worker.name: worker.ip for worker in workers if worker.ready and not worker.leaving and worker.ip}
