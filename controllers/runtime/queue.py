"""The queue of keys to look at: deduplicating, one worker a key, delays, retries with growing waits.

`QueueCore` is the whole logic with `now_s` as an argument; `ReconcileQueue` lets workers of one event loop wait on it.
A key is in at most one of these states: *ready* (waits for a worker), *in work*, or neither; besides it may have a due
time in the future. Marking a key in work makes it ready again when the work ends: no change is missed, and no key is
worked twice at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controllers.runtime.interface import Key
from kube.backoff import Backoff

RETRY: Final = Backoff(first_s=0.5, factor=2.0, most_s=60.0, spread=0.2)


@dataclass(frozen=True, slots=True)
class Taken:
    """A key for a worker, and how long it has waited since it was due."""

    key: Key
    waited_s: float


class QueueCore:
    """The state; every method is immediate."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ready: OrderedDict[Key, float] = OrderedDict()  # key → since when
        self._in_work: dict[Key, float] = {}  # key → since when
        self._dirty: dict[Key, float] = {}  # marked while in work → since when
        self._due_at: dict[Key, float] = {}
        self._due_heap: list[tuple[float, Key]] = []  # may hold outdated entries; `_due_at` decides
        self._failures: dict[Key, int] = {}

    @property
    def depth(self) -> int:
        """Keys that could be worked now."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        """Keys with a due time in the future."""
        return len(self._due_at)

    def in_work_since(self) -> dict[Key, float]:
        """When each key in work was taken."""
        return dict(self._in_work)

    def add(self, key: Key, now_s: float) -> None:
        self._due_at.pop(key, None)
        if key in self._in_work:
            self._dirty.setdefault(key, now_s)
        else:
            self._ready.setdefault(key, now_s)

    def add_after(self, key: Key, delay_s: float, now_s: float) -> None:
        if delay_s <= 0:
            return self.add(key, now_s)
        due_s = now_s + delay_s
        if key in self._ready or due_s >= self._due_at.get(key, float("inf")):
            return None  # It is looked at sooner anyway.
        self._due_at[key] = due_s
        heapq.heappush(self._due_heap, (due_s, key))
        return None

    def take(self, now_s: float) -> Taken | None:
        """The key that has waited longest, or None. Give it back with `done` or `failed`."""
        self._promote(now_s)
        if not self._ready:
            return None
        key, since_s = self._ready.popitem(last=False)
        self._in_work[key] = now_s
        return Taken(key, max(0.0, now_s - since_s))

    def done(self, key: Key, now_s: float, requeue_after_s: float | None = None) -> None:
        """The work succeeded."""
        self._failures.pop(key, None)
        self._finish(key, now_s)
        if requeue_after_s is not None:
            self.add_after(key, requeue_after_s, now_s)

    def failed(self, key: Key, now_s: float, at_least_s: float = 0.0) -> float:
        """The work failed: look again after the returned delay, or at once if it was marked meanwhile."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = max(RETRY.delay_s(self._failures[key], self._rng), at_least_s)
        marked = key in self._dirty
        self._finish(key, now_s)
        if not marked:
            self.add_after(key, delay_s, now_s)
        return delay_s

    def next_due_s(self, now_s: float) -> float | None:
        """Seconds until a delayed key becomes ready, or None."""
        self._drop_outdated()
        return max(0.0, self._due_heap[0][0] - now_s) if self._due_heap else None

    def _finish(self, key: Key, now_s: float) -> None:
        del self._in_work[key]
        since_s = self._dirty.pop(key, None)
        if since_s is not None:
            self._ready.setdefault(key, since_s)

    def _promote(self, now_s: float) -> None:
        self._drop_outdated()
        while self._due_heap and self._due_heap[0][0] <= now_s:
            due_s, key = heapq.heappop(self._due_heap)
            self.add(key, due_s)
            self._drop_outdated()

    def _drop_outdated(self) -> None:
        while self._due_heap and self._due_at.get(self._due_heap[0][1]) != self._due_heap[0][0]:
            heapq.heappop(self._due_heap)


class ReconcileQueue:
    """`QueueCore` for the workers of one event loop. Implements `Marker`; not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None) -> None:
        self._core = QueueCore(rng or random.Random())
        self._clock = clock
        self._wake = asyncio.Event()
        self._held = False

    @property
    def depth(self) -> int:
        return self._core.depth

    @property
    def delayed(self) -> int:
        return self._core.delayed

    def hold(self) -> None:
        """Forget every key until `open`: nobody works, and those of objects that go would stay for ever."""
        self._held = True

    def open(self) -> None:
        """Take keys. Whatever is there has to be added now."""
        self._held = False

    def add(self, key: Key) -> None:
        """Look at `key` soon. Adding a key that waits already changes nothing."""
        if not self._held:
            self._core.add(key, self._clock())
            self._wake.set()

    def add_after(self, key: Key, delay_s: float) -> None:
        """Look at `key` after a while; the earliest of several delays wins."""
        if not self._held:
            self._core.add_after(key, delay_s, self._clock())
            self._wake.set()

    async def get(self) -> Taken:
        """The next key; waits for one. For a single consumer, which may work on many keys at once."""
        while True:
            now_s = self._clock()
            taken = self._core.take(now_s)
            if taken is not None:
                return taken
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._core.next_due_s(now_s)):
                    await self._wake.wait()

    def done(self, key: Key, requeue_after_s: float | None = None) -> None:
        """The work on `key` succeeded."""
        self._core.done(key, self._clock(), requeue_after_s)
        self._wake.set()

    def failed(self, key: Key, at_least_s: float = 0.0) -> float:
        """The work on `key` failed; returns the delay until the next look."""
        delay_s = self._core.failed(key, self._clock(), at_least_s)
        self._wake.set()
        return delay_s

    def longest_work_s(self) -> tuple[Key, float] | None:
        """The key that has been in work longest, and for how long."""
        started = self._core.in_work_since()
        if not started:
            return None
        key = min(started, key=lambda one: started[one])
        return key, self._clock() - started[key]
