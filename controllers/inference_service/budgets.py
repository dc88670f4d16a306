"""Error budgets of services whose revisions are compared: read from the history now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controllers.dashboard.budget import error_budget, window_s
from controllers.history.interface import HistorySource, HistoryUnavailable, ServiceId
from controllers.runtime.interface import Key, Marker
from kube.informer import Informer
from kube.resources import Object

PERIOD_S: Final = 120.0
STEP_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Known:
    sla: str
    spent: str | None


class BudgetBoard:
    """Who has nothing left. Unknown is not spent: a history that is away holds no rollout."""

    def __init__(
        self,
        source: HistorySource | None,
        slas: Informer[Object],
        queue: Marker,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._source, self._slas, self._queue, self._wall_clock = source, slas, queue, wall_clock
        self._followed: dict[Key, str] = {}
        self._known: dict[Key, _Known] = {}

    def follow(self, key: Key, sla: str | None) -> None:
        """Read the budget of this service from now on."""
        if sla is None:
            self.forget(key)
        else:
            self._followed[key] = sla

    def forget(self, key: Key) -> None:
        self._followed.pop(key, None)
        self._known.pop(key, None)

    def spent(self, key: Key) -> str | None:
        """A sentence without a full stop, when nothing of the budget is left."""
        known = self._known.get(key)
        return known.spent if known and known.sla == self._followed.get(key) else None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(PERIOD_S if self._followed else 1.0)

    async def round(self) -> None:
        """All that are followed, one after the other: nobody waits for them."""
        for key, sla in list(self._followed.items()):
            await self._read(key, sla)

    async def _read(self, key: Key, name: str) -> None:
        sla = self._slas.get(key.namespace, name)
        length_s = window_s(sla)
        if self._source is None or sla is None or length_s is None:
            return
        end_s = self._wall_clock() // STEP_S * STEP_S + STEP_S
        begin_s = end_s - max(STEP_S, length_s // STEP_S * STEP_S)
        try:
            counts = await self._source.read(ServiceId(key.namespace or "", key.name), begin_s, end_s, STEP_S)
        except HistoryUnavailable:
            return
        budget = error_budget(sla, counts)
        is_spent = budget is not None and budget["left"] <= 0
        spent = (
            f"the error budget of SLA '{name}' is spent: {budget['message'].rstrip('.')}"
            if is_spent and budget
            else None
        )
        before = self.spent(key)
        self._known[key] = _Known(name, spent)
        if (before is None) != (spent is None):
            self._queue.add(key)
