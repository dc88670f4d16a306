"""How long workers took from their creation until they were ready: seen as it happens, remembered over restarts."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from controllers.history.store import COLD_STARTS_KEPT, Store
from controllers.history.thread import StoreThread
from controllers.inference_service.caches import PodEntry
from controllers.plans.capacity import lead_time_s
from kube.informer import Change

log = logging.getLogger(__name__)

WRITE_EVERY_S: Final = 5.0
LONGEST_S: Final = 3600.0
"""What took longer waited for a place, and says nothing of the next start."""
_WAITING_MOST: Final = 1_000
"""Observations that wait for being written; a standby's do until it leads."""


class ColdStarts:
    """Lead times by profile."""

    def __init__(
        self,
        store: StoreThread,
        profile: Callable[[str, str], str | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._profile, self._clock = store, profile, clock
        self._known: dict[str, list[float]] = {}
        self._unwritten: list[tuple[str, float, float]] = []

    def observe(self, change: Change[PodEntry]) -> None:
        """For `Informer.on_change`: counts a worker at the moment in which it is ready for the first time."""
        old, new = change.old, change.new
        if old is None or new is None or old.worker.ready or new.cold_start_s is None or old.cold_start_s is not None:
            return
        profile = self._profile(new.namespace, new.service)
        if profile is not None and 0 <= new.cold_start_s <= LONGEST_S:
            self._add(profile, new.cold_start_s)
            del self._unwritten[:-_WAITING_MOST]
            self._unwritten.append((profile, new.cold_start_s, self._clock()))

    def lead_time_s(self, profile: str) -> float:
        """How far ahead a decision about workers of this profile has to look."""
        return lead_time_s(self._known.get(profile, ()))

    async def run(self) -> None:
        """Reads what is remembered, then writes what is seen, until cancelled."""
        for profile, durations in (await self._store.call(Store.cold_starts)).items():
            sound = [each for each in durations if each <= LONGEST_S]
            self._known[profile] = sound + self._known.get(profile, [])
        while True:
            try:
                await self._write()
            except sqlite3.Error as error:
                log.warning("A cold start was not remembered: %s. It is tried again.", error)
            await asyncio.sleep(WRITE_EVERY_S)

    async def _write(self) -> None:
        while self._unwritten:
            profile, duration_s, at_s = self._unwritten[0]
            await self._store.call(Store.add_cold_start, profile, duration_s, at_s)
            self._unwritten.pop(0)

    def _add(self, profile: str, duration_s: float) -> None:
        known = self._known.setdefault(profile, [])
        known.append(duration_s)
        del known[:-COLD_STARTS_KEPT]
