"""The seam to what the operator remembers: loads and decisions of a service. The history's store is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controllers.history.interface import Counts, HistorySource, ServiceId
from controllers.history.store import Store
from controllers.history.thread import StoreThread


class Past(Protocol):
    """What was. Both raise HistoryError where it cannot be read now."""

    async def counts(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        """Requests and tokens of each step; NaN is a gap."""
        ...

    async def decisions(self, service: ServiceId, since_s: float, most: int) -> list[str]:
        """Recorded decisions, one JSON line each, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """Loads from the history's source (Prometheus or the store), decisions from the store."""

    source: HistorySource
    store: StoreThread

    async def counts(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        return await self.source.read(service, start_s, end_s, step_s)

    async def decisions(self, service: ServiceId, since_s: float, most: int) -> list[str]:
        return await self.store.call(Store.decisions, service, since_s, most)
