"""One fault as it is injected: whom it hits, when it began and ended, how it would show, and when its harm is gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeVar

from e2e.chaos.ground import Ground
from e2e.chaos.host import Container, NotThere
from e2e.chaos.schedule import Fault
from e2e.chaos.signs import By, PodLook, ServiceLook, Sign
from e2e.chaos.watch import Onlooker
from e2e.cluster.errors import CommandFailed
from kube.client import Client

T = TypeVar("T")

TRIES: Final = 5
"""Of a command that undoes a fault: the API server may be on its way back."""


def _at_once() -> bool:
    return True


async def _patient(act: Callable[[], T]) -> T:
    """In a thread. Raises CommandFailed when no try succeeds."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(CommandFailed):
            return await asyncio.to_thread(act)
        await asyncio.sleep(2.0)
    return await asyncio.to_thread(act)


@dataclass
class Scene:
    """What an injector works with, and what it leaves for the judge."""

    fault: Fault
    ground: Ground
    onlooker: Onlooker
    client: Client
    nodes: asyncio.Lock
    """Held by who takes a node away: two at once would leave no node at all."""
    chance: Random
    calm_since_s: float
    """From when on nothing should have happened."""
    target: str = ""
    since_s: float = 0.0
    """When the fault began."""
    until_s: float | None = None
    """When it ended, where the harness holds it; None for one that Foretide must end."""
    touched: frozenset[str] = frozenset()
    """Pods that the fault is of: what happens to them is no false action."""
    there: frozenset[str] = frozenset()
    """Pods that were there when it began."""
    shows: Callable[[Sign], bool] | None = None
    """Which signs mean that it was found; None: any of the service's."""
    gone: Callable[[], bool] = field(default=_at_once)
    """Whether its harm is gone, as far as the fleet's wholeness does not say it."""

    @property
    def service(self) -> str:
        return self.fault.service

    def worker(self) -> PodLook:
        """The one that is hit; rather one that was not restarted before."""
        workers = self.onlooker.workers(self.service)
        if not workers:
            raise NotThere(f"Service {self.service} has no worker to hit.")
        return self.chance.choice([pod for pod in workers if not pod.restarts] or workers)

    async def container(self, pod: PodLook) -> Container:
        """Raises NotThere."""
        return await asyncio.to_thread(self.ground.host.container, pod)

    def struck(self, target: str, pods: Sequence[PodLook] = ()) -> None:
        """Call right before the blow."""
        self.target = target
        self.touched = frozenset(pod.name for pod in pods)
        self.there = frozenset(pod.name for pod in self.onlooker.pods.items() if not pod.leaving)
        self.since_s = time.monotonic()

    def released(self) -> None:
        """Call when a fault that was held has ended."""
        self.until_s = time.monotonic()

    async def holding(self, for_s: float, over: Callable[[], bool] = lambda: False) -> None:
        """Until the time is up, or the fault is over before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while not over():  # noqa: ASYNC110 - what it waits for has no event
                    await asyncio.sleep(0.1)

    async def kubectl(self, *arguments: str) -> str:
        return await _patient(lambda: self.ground.kubectl(*arguments))

    async def edit(self, **changes: Any) -> None:
        """The service's spec from now on."""
        await _patient(lambda: self.ground.apply(self.service, **changes))

    def look(self) -> ServiceLook | None:
        """The newest of the service."""
        return self.onlooker.services.get("chaos", self.service)

    def says(self, by: By, *words: str) -> Callable[[Sign], bool]:
        """Signs of that origin with one of these words, about the service or about none."""
        return lambda sign: sign.by is by and sign.service in ("", self.service) and any(w in sign.what for w in words)
