"""What clients ask of one service: who is open, who waits for a worker, and since when nobody has asked.

Told to whoever wakes a service that sleeps. Knows no worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import NoEndpoint

WAITING_MOST = 1000
"""Requests per service that wait for an endpoint at the same time."""
PASSED_ON_S = 30.0
"""For how long a request that went to a fallback says that workers are wanted."""


class Demand:
    def __init__(self, now_s: float) -> None:
        self.open = 0
        """Requests of clients, probes left out."""
        self._closed_s = now_s
        self._passed_on_s = float("-inf")
        self._waiting: set[asyncio.Future[None]] = set()

    def opened(self) -> None:
        """A client's request has come."""
        self.open += 1

    def closed(self, now_s: float) -> None:
        """It was answered, or the client left."""
        self.open -= 1
        self._closed_s = now_s

    def idle_s(self, now_s: float) -> float:
        """For how long no client's request was open; since the start of this process at most."""
        return 0.0 if self.open else round(now_s - self._closed_s, 3)

    def passed_on(self, now_s: float) -> None:
        """A client's request went to a fallback for want of a worker here: it is asked for all the same."""
        self._closed_s = self._passed_on_s = now_s

    def wanted(self, now_s: float) -> int:
        """Requests that wait for a worker, and one for those that lately could not: a service is woken by it."""
        return self.waiting + (now_s - self._passed_on_s < PASSED_ON_S)

    def told(self, now_s: float) -> dict[str, int | float]:
        """For whoever decides on the number of workers."""
        return {"open": self.open, "waiting": self.wanted(now_s), "idle_s": self.idle_s(now_s)}

    @property
    def waiting(self) -> int:
        """Requests that wait for an endpoint now."""
        return len(self._waiting)

    async def wait(self, timeout_s: float, refusal: Callable[[], NoEndpoint]) -> None:
        """Returns when `wake` is called.

        Raises:
            NoEndpoint: it was not in time, or too many wait already.
        """
        if timeout_s <= 0 or len(self._waiting) >= WAITING_MOST:
            raise refusal()
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            raise refusal() from None
        finally:
            self._waiting.discard(waiter)

    def wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
