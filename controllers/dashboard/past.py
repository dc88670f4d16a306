"""The seam to what the operator remembers: loads and decisions of a service. The history's store is behind it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Protocol

from controllers.capacity_forecast.decisions import DecisionLog
from controllers.history.interface import Counts, HistorySource, HistoryUnavailable, ServiceId


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
    """Loads from the history's source (Prometheus or the store), decisions from their record."""

    source: HistorySource
    log: DecisionLog

    async def counts(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        return await self.source.read(service, start_s, end_s, step_s)

    async def decisions(self, service: ServiceId, since_s: float, most: int) -> list[str]:
        try:
            return await self.log.read(service, since_s, most)
        except sqlite3.Error as error:
            raise HistoryUnavailable(f"The record of decisions cannot be read: {error}.") from error
