"""Pods that change at a steady rate, as kubelets report them.

Most changes say nothing new to a plan, as in a real cluster; every fifth turns readiness, which a status must follow.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from benchmarks.control_plane.stand_in import ready_status
from kube.api import Api
from kube.resources import PODS

TURNS_EVERY: Final = 5
AWAY_S: Final = 1.0
"""How long a worker that turned unready stays so."""


class Churn:
    """Changes `pods` (their number is their place in the list) while inside `running()`."""

    def __init__(self, client: Api, pods: Sequence[tuple[str, str]], rate_per_s: float, seed: int = 7) -> None:
        self._client, self._pods, self._rate_per_s = client, pods, rate_per_s
        self._random = random.Random(seed)
        self._unready: deque[tuple[float, int]] = deque()
        self.made = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All pods are ready again when this ends."""
        changing = asyncio.create_task(self._run())
        try:
            yield
        finally:
            changing.cancel()
            await asyncio.gather(changing, return_exceptions=True)
        if not changing.cancelled() and (error := changing.exception()) is not None:
            raise error
        for _, number in self._unready:
            await self._write(number, ready=True)
        self._unready.clear()

    async def _run(self) -> None:
        started_s, turn = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._change(turn))
                turn += 1
                await asyncio.sleep(max(0.0, started_s + turn / self._rate_per_s - time.monotonic()))

    async def _change(self, turn: int) -> None:
        number = self._random.randrange(len(self._pods))
        if turn % TURNS_EVERY:
            await self._write(number, ready=all(number != away for _, away in self._unready))
        elif self._unready and time.monotonic() - self._unready[0][0] > AWAY_S:
            await self._write(self._unready.popleft()[1], ready=True)
        else:
            self._unready.append((time.monotonic(), number))
            await self._write(number, ready=False)
        self.made += 1

    async def _write(self, number: int, *, ready: bool) -> None:
        namespace, name = self._pods[number]
        beat = datetime.now(UTC) + timedelta(seconds=self._random.randrange(10_000))
        status = ready_status(number, ready=ready, beat=beat.strftime("%Y-%m-%dT%H:%M:%SZ"))
        await self._client.merge_patch(PODS, namespace, name, status, subresource="status")
