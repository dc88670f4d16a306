"""Runs informers and reconcilers without the operator's process: the shortest real control loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controllers.gpu_pool.build import build_pools
from controllers.runtime.interface import Background, Key, Reconciler
from controllers.settings import Settings
from kube.errors import Conflict, Forbidden, Invalid, NotFound
from kube.events import Recorder
from kube.informer import Change, Informer
from tests.fakes import FakeClient


@dataclass
class Keys:
    """A queue without delays: what is marked is worked on in order."""

    waiting: list[Key] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    done: int = 0

    def add(self, key: Key) -> None:
        if key not in self.waiting:
            self.waiting.append(key)
            self.arrived.set()

    def add_after(self, key: Key, delay_s: float) -> None:
        self.add(key)


@asynccontextmanager
async def running(
    queue: Keys,
    reconcilers: Sequence[Reconciler],
    owned: Iterable[Informer[Any]],
    others: Iterable[Informer[Any]] = (),
    background: Iterable[Background] = (),
) -> AsyncIterator[None]:
    """Started and synced; what the API server refuses is tried again, any other exception fails the test at the end."""
    by_kind = {one.kind: one for one in reconcilers}
    owned = list(owned)
    for informer in owned:
        kind = informer.resource.kind
        if kind in by_kind:
            informer.on_change(functools.partial(_mark, queue, kind))
    informers = [*owned, *others]
    tasks = [asyncio.ensure_future(one.run()) for one in informers]
    await asyncio.gather(*(one.synced.wait() for one in informers))
    tasks.append(asyncio.ensure_future(_work(queue, by_kind)))
    tasks += [asyncio.ensure_future(one.run()) for one in background]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one for one in ended if not isinstance(one, asyncio.CancelledError)] == []


def _mark(queue: Keys, kind: str, change: Change[Any]) -> None:
    queue.add(Key(kind, change.namespace, change.name))


@asynccontextmanager
async def running_pools(api: FakeClient, queue: Keys) -> AsyncIterator[None]:
    """All controllers of GPUPools."""
    assembly = build_pools(api, Settings(), queue, Recorder(api, controller="test", instance="test"))
    async with running(queue, assembly.reconcilers, assembly.owned.values(), assembly.children):
        yield


async def _work(queue: Keys, by_kind: dict[str, Reconciler]) -> None:
    while True:
        queue.arrived.clear()
        while queue.waiting:
            key = queue.waiting.pop(0)
            if key.kind in by_kind:
                try:
                    outcome = await by_kind[key.kind].reconcile(key)
                    if outcome.requeue_after_s is not None:
                        asyncio.get_running_loop().call_later(outcome.requeue_after_s, queue.add, key)
                except (Conflict, NotFound, Forbidden, Invalid):
                    queue.add(key)
                    await asyncio.sleep(0.02)
            queue.done += 1
        await queue.arrived.wait()
