"""Copies of requests for another revision, whose answers nobody sees: how a new one is tried on real traffic.

A copy is tried once, counts against nobody's quota and in no figure but the revision's own, and is not made at all when
too many are open. It never delays, changes or fails the request that it copies.
"""

from __future__ import annotations

import asyncio
import logging
import random

from gateway.flight import Flight
from gateway.http1.messages import Answer, Flow
from gateway.proxy import Proxy
from gateway.routing.split import mirrored_to

log = logging.getLogger(__name__)

OPEN_MOST = 64
"""Copies of one process at the same time."""


class Discarded:
    """A `Reply` for an answer that nobody reads."""

    closed = False

    def answer(self, answer: Answer) -> None:
        """Gone."""

    def respond(self, status: int, block: bytes, body: bytes) -> None:
        """Gone."""

    def begin(self, status: int, block: bytes, length: int | None, first: bytes) -> None:
        """Gone."""

    def write(self, data: bytes) -> None:
        """Gone."""

    def end(self) -> None:
        """Nothing to end."""

    def abort(self) -> None:
        """Nothing to cut."""

    def govern(self, flow: Flow | None) -> None:
        """Nobody reads slowly here."""


class Mirror:
    def __init__(self, proxy: Proxy, rng: random.Random) -> None:
        self._proxy = proxy
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, flight: Flight) -> None:
        """Sends copies of a request to the revisions that its service's traffic names for it."""
        chosen = None if flight.revision is None else flight.revision.decode()
        for revision in mirrored_to(self._rng.random(), chosen, flight.state.service.traffic):
            if len(self._tasks) >= OPEN_MOST:
                flight.state.metrics.mirrored("dropped")
                return
            flight.state.metrics.mirrored("sent")
            task = asyncio.get_running_loop().create_task(self._proxy.try_copy(copied(flight, revision), Discarded()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("A copy of a request failed unexpectedly.", exc_info=task.exception())


def copied(flight: Flight, revision: str) -> Flight:
    copy = Flight(
        flight.state,
        flight.path,
        flight.body,
        stream=flight.stream,
        tenant=flight.tenant,
        request_id=flight.request_id,
        started_s=flight.started_s,
        deadline_s=flight.deadline_s,
        wait_s=0.0,
        extra=flight.extra,
    )
    copy.revision = revision.encode()
    copy.is_copy = True
    return copy
