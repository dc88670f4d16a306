"""Error budgets of services: read from the history now and then, often where revisions are compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from controllers.dashboard.budget import error_budget, window_s
from controllers.history.interface import HistorySource, HistoryUnavailable, ServiceId
from controllers.runtime.interface import Key, Marker
from kube.informer import Informer
from kube.resources import Object

PERIOD_S: Final = 120.0
RARE_S: Final = 600.0
"""Between two reads of a budget that holds no rollout: it is only shown."""
STEP_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Followed:
    sla: str
    gates: bool


@dataclass(frozen=True, slots=True)
class _Known:
    sla: str
    read_s: float
    left: float | None
    spent: str | None


class BudgetBoard:
    """Who has nothing left. Unknown is not spent: a history that is away holds no rollout that was not held before."""

    def __init__(
        self,
        source: HistorySource | None,
        slas: Informer[Object],
        queue: Marker,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._source, self._slas, self._queue, self._wall_clock = source, slas, queue, wall_clock
        self._followed: dict[Key, _Followed] = {}
        self._known: dict[Key, _Known] = {}

    def follow(self, key: Key, sla: str | None, *, gates: bool) -> None:
        """Read the budget of this service from now on. `gates`: a spent one holds its rollout."""
        if sla is None:
            self.forget(key)
        else:
            self._followed[key] = _Followed(sla, gates)

    def forget(self, key: Key) -> None:
        self._followed.pop(key, None)
        self._known.pop(key, None)

    def spent(self, key: Key, before: str | None = None) -> str | None:
        """A sentence without a full stop, when nothing is left of a budget that gates. `before` is what counts until it
        was read for the first time: an operator that takes over knows no more than the status."""
        followed, known = self._followed.get(key), self._known.get(key)
        if followed is None:
            return before
        if not followed.gates:
            return None
        if known is None:
            return before if before is not None and f"'{followed.sla}'" in before else None
        return known.spent if known.sla == followed.sla else None

    def left(self) -> Mapping[Key, float]:
        """What is left of each budget that is known: 1 is all, 0 none, below 0 it is overspent."""
        shown = {key: one for key, one in self._known.items() if one.left is not None}
        return {key: one.left or 0.0 for key, one in shown.items() if self._followed[key].sla == one.sla}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(PERIOD_S if self._followed else 1.0)

    async def round(self) -> None:
        """All that are due, one after the other: nobody waits for them."""
        for key, followed in list(self._followed.items()):
            known = self._known.get(key)
            fresh = known is not None and known.sla == followed.sla and 0 <= self._wall_clock() - known.read_s < RARE_S
            if followed.gates or not fresh:
                await self._read(key, followed.sla)

    async def _read(self, key: Key, name: str) -> None:
        sla = self._slas.get(key.namespace, name)
        length_s = window_s(sla)
        if self._source is None:
            return
        if sla is None or length_s is None:
            self._keep(key, _Known(name, self._wall_clock(), None, None))
            return
        end_s = self._wall_clock() // STEP_S * STEP_S + STEP_S
        begin_s = end_s - max(STEP_S, length_s // STEP_S * STEP_S)
        try:
            counts = await self._source.read(ServiceId.of(key), begin_s, end_s, STEP_S)
        except HistoryUnavailable:
            return
        budget = error_budget(sla, counts)
        is_spent = budget is not None and budget["left"] <= 0
        spent = (
            f"the error budget of SLA '{name}' is spent: {budget['message'].rstrip('.')}"
            if is_spent and budget
            else None
        )
        self._keep(key, _Known(name, self._wall_clock(), None if budget is None else budget["left"], spent))

    def _keep(self, key: Key, known: _Known) -> None:
        if key not in self._followed:
            return  # It went while the history was read.
        before, is_first = self.spent(key), key not in self._known
        self._known[key] = known
        if is_first or (before is None) != (self.spent(key) is None):
            self._queue.add(key)
