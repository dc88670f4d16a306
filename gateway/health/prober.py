"""Probe tokens: one-token requests that show whether a worker would answer a client.

Sent to a worker that was lost, before it is believed again; and to one that nobody has asked for a while, since an idle
engine that hangs owes nothing and so shows nothing. A worker that clients use proves itself, and is never probed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from gateway.backend import Backend

IDLE_S: Final = 30.0
"""Without a good answer, while nothing is open."""
OPEN_MOST: Final = 16
"""Probes of one process at the same time."""


class Probed(Protocol):
    """A service whose workers are probed."""

    @property
    def backends(self) -> list[Backend]: ...
    def recovered(self, backend: Backend) -> None: ...


Probe = Callable[[Probed, Backend], Awaitable[bool]]
"""Sends the one-token request to this worker, and says whether it was answered."""


class Prober:
    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._running: dict[Backend, asyncio.Task[None]] = {}

    def prove(self, service: Probed, backend: Backend) -> None:
        """Asks a worker for a token, unless that is being done; a lost one that gives it is believed again."""
        if backend not in self._running and len(self._running) < OPEN_MOST:
            task = asyncio.get_running_loop().create_task(self._prove(service, backend))
            self._running[backend] = task
            task.add_done_callback(lambda _: self._running.pop(backend, None))

    def tick(self, services: Iterable[Probed], now_s: float) -> None:
        """Probes the workers that have been idle for long."""
        for service in services:
            for backend in service.backends:
                if is_unproven(backend, now_s):
                    backend.proved_s = now_s  # or asked, which is as good until the answer is there
                    self.prove(service, backend)

    def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()

    async def _prove(self, service: Probed, backend: Backend) -> None:
        if await self._probe(service, backend):
            service.recovered(backend)


def is_unproven(backend: Backend, now_s: float) -> bool:
    """It says that it is ready and idle, and nobody knows. One that makes no reports is not probed: it may be of
    another make, where tokens cost somebody something."""
    load, endpoint = backend.load, backend.endpoint
    if load is None or not load.ready or load.running or load.waiting or backend.in_flight or backend.loss is not None:
        return False
    return endpoint.ready and not endpoint.terminating and now_s - backend.proved_s > IDLE_S
