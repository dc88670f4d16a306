"""The record of decisions: which are worth a row, and how they get into the store. Each row can be decided again.

A decision that says the same as the one before is only kept now and then: a thousand services decide every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import dataclass
from typing import Final

from controllers.history.interface import ServiceId
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from forecasting.policy import ScalingDecision, to_json

log = logging.getLogger(__name__)

AGAIN_S: Final = 300.0
"""The same decision is recorded once in this time."""
WRITE_EVERY_S: Final = 2.0
_WAITING_MOST: Final = 20_000
"""Rows that wait for a disk that does not take them; the oldest go first."""


@dataclass(frozen=True, slots=True)
class _Kept:
    at_s: float
    says: tuple[object, ...]


class DecisionLog:
    """`record` never waits; `run` writes."""

    def __init__(self, store: StoreThread) -> None:
        self._store = store
        self._kept: dict[ServiceId, _Kept] = {}
        self._unwritten: list[tuple[ServiceId, float, str]] = []
        self._writing = asyncio.Lock()

    def record(self, service: ServiceId, decision: ScalingDecision) -> None:
        """Keep it when the number, the way or the reason is new, or the last row is old."""
        now_s = decision.inputs.now_s
        says = (
            decision.replicas,
            decision.wanted,
            decision.direction,
            decision.reason,
            decision.forecast_ignored is None,
        )
        last = self._kept.get(service)
        if last is not None and last.says == says and 0 <= now_s - last.at_s < AGAIN_S:
            return
        self._kept[service] = _Kept(now_s, says)
        del self._unwritten[:-_WAITING_MOST]
        self._unwritten.append((service, now_s, to_json(decision)))

    def forget(self, service: ServiceId) -> None:
        """The next decision is recorded, whatever it says."""
        self._kept.pop(service, None)

    async def read(self, service: ServiceId, since_s: float, most: int) -> list[str]:
        """JSON lines, oldest first, what is not written yet included."""
        await self.flush()
        return await self._store.call(Store.decisions, service, since_s, most)

    async def flush(self) -> None:
        """Write what waits. What the disk does not take waits on."""
        async with self._writing:
            rows, self._unwritten = self._unwritten, []
            if not rows:
                return
            try:
                await self._store.call(Store.add_decisions, rows)
            except sqlite3.Error as error:
                log.warning("%d decisions were not recorded: %s. It is tried again.", len(rows), error)
                self._unwritten = rows + self._unwritten

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.flush()
            await asyncio.sleep(WRITE_EVERY_S)
