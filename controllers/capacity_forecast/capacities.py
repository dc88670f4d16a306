"""Keeps what was learned about workers over restarts: reads it once, then writes what changed."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from controllers.history.store import Store
from controllers.history.thread import StoreThread

log = logging.getLogger(__name__)

WRITE_EVERY_S: Final = 60.0
_WORTH: Final = 0.01
"""Of the value: a smaller change is not written."""


async def remember_capacities(
    store: StoreThread, capacities: dict[str, float], *, clock: Callable[[], float] = time.time
) -> None:
    """Fill `capacities` (profile → weighted tokens/s), then write what others put into it, until cancelled."""
    written = await store.call(Store.capacities)
    for profile, work_per_s in written.items():
        capacities.setdefault(profile, work_per_s)
    while True:
        await asyncio.sleep(WRITE_EVERY_S)
        for profile, work_per_s in list(capacities.items()):
            if abs(work_per_s - written.get(profile, 0.0)) <= _WORTH * work_per_s:
                continue
            try:
                await store.call(Store.set_capacity, profile, work_per_s, clock())
            except sqlite3.Error as error:
                log.warning("The capacity of %s was not remembered: %s.", profile, error)
                continue
            written[profile] = work_per_s
