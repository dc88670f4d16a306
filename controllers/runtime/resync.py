"""A look at every object once a period without any event, spread evenly, so that no lost event is lost for ever."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterable

from controllers.runtime.interface import Key, Marker


def place_in_period(key: Key, period_s: float) -> float:
    """When in each period this key has its turn: the same in every process, even over all keys."""
    return zlib.crc32(str(key).encode()) / 2**32 * period_s


def due_between(keys: Iterable[Key], from_s: float, to_s: float, period_s: float) -> list[Key]:
    """Keys whose turn came in (from_s, to_s]."""
    if to_s - from_s >= period_s:
        return list(keys)
    return [key for key in keys if _turns(key, to_s, period_s) > _turns(key, from_s, period_s)]


def _turns(key: Key, at_s: float, period_s: float) -> int:
    return int((at_s - place_in_period(key, period_s)) // period_s)


async def resync(queue: Marker, keys: Callable[[], Iterable[Key]], period_s: float) -> None:
    """Mark keys at their turns, until cancelled."""
    last_s = time.monotonic()
    while True:
        await asyncio.sleep(period_s / 60)
        now_s = time.monotonic()
        for key in due_between(keys(), last_s, now_s, period_s):
            queue.add(key)
        last_s = now_s
