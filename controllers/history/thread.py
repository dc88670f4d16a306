"""The store behind a thread of its own, so that a slow disk never holds up the event loop.

One call at a time, in the order in which they were asked.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from controllers.history.interface import Array, Counts, HistoryUnavailable, ServiceId
from controllers.history.store import Store

P = ParamSpec("P")
T = TypeVar("T")


class StoreThread:
    """`await thread.call(Store.method, …)`. A `HistorySource` too: the embedded one."""

    name = "Store"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")

    async def call(self, method: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The method's result; its errors are raised here."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: method(self._store, *args, **kwargs))

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        try:
            return await self.call(Store.counts, service, start_s, end_s, step_s)
        except sqlite3.Error as error:
            raise HistoryUnavailable(f"The embedded history cannot be read: {error}. Check its disk.") from error

    async def arrivals(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Array:
        return (await self.read(service, start_s, end_s, step_s)).arrivals

    async def close(self) -> None:
        """Waits for what is under way."""
        await self.call(Store.close)
        self._thread.shutdown(wait=False)
