"""Who is forecast when. Asks the history and the pool; what follows from their answers is `forecasting.standing`.

An error keeps the last forecast until it runs out; from then on the policy goes by the measured load alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from controllers.capacity_forecast.job import Job
from controllers.capacity_forecast.pool import ForecastFailed
from controllers.capacity_forecast.work import mean_lengths
from controllers.history.interface import Counts, HistorySource, HistoryUnavailable, ServiceId, joined
from controllers.plans.capacity import INPUT_WEIGHT
from controllers.plans.carried import MeanLengths
from controllers.runtime.interface import Key, Marker
from forecasting import near
from forecasting.counts import tokens_per_request, work_series
from forecasting.forecast import Forecast
from forecasting.growth import Growth
from forecasting.near import Present, learned, present_of, sharpened
from forecasting.standing import (
    AHEAD_STEPS,
    STALE_STEPS,
    Forecasted,
    Schedule,
    Standing,
    foretold,
    hindered,
    looked,
    renewed,
)

log = logging.getLogger(__name__)

RETRY_S: Final = 30.0
"""After an error."""
GAPS_FIRST_S: Final = 600.0
GAPS_EVERY_S: Final = 3600.0
"""The first gap of a history and what comes after it are asked for again after the one, twice as late each time, up to
the other: an answer may have been partial, and a service that is younger than its history has gaps for good."""
GLANCES_AT_ONCE: Final = 4
"""Beside the looks, which wait for the pool."""


class Forecaster(Protocol):
    """The pool, as far as it is used."""

    async def run(self, job: Job) -> Forecast:
        """Raises: ForecastFailed."""
        ...


@dataclass(slots=True)
class Entry:
    """One service that is followed."""

    lead_time_s: float
    due_s: float
    counts: Counts | None = None
    lengths: MeanLengths | None = None
    standing: Standing = field(default_factory=Standing)
    growth: Growth | None = None
    learned_s: float = -math.inf
    present: Present | None = None
    gaps_s: float = math.inf
    """When the gaps of the history are asked for again."""
    gaps_every_s: float = GAPS_FIRST_S
    glance_s: float = math.inf
    """When the present is looked at again: not before something was learned, nor while it is being looked at."""


class ForecastBoard:
    """`follow` a service, and `view` what is foretold of it. `told` keys are marked after each refresh."""

    def __init__(
        self,
        source: HistorySource,
        pool: Forecaster,
        queue: Marker,
        schedule: Schedule,
        *,
        at_once: int = 4,
        clock: Callable[[], float] = time.time,
        told: tuple[str, ...] = ("InferenceService", "CapacityForecast"),
    ) -> None:
        self.source = source
        self.schedule = schedule
        self._pool, self._queue, self._clock, self._told = pool, queue, clock, told
        self._slots, self._glances = asyncio.Semaphore(at_once), asyncio.Semaphore(GLANCES_AT_ONCE)
        self._entries: dict[ServiceId, Entry] = {}
        self._news = asyncio.Event()

    def follow(self, service: ServiceId, lead_time_s: float) -> None:
        """Forecast it from now on; at once when it is new."""
        entry = self._entries.get(service)
        if entry is None:
            self._entries[service] = Entry(lead_time_s, due_s=self._clock())
            self._news.set()
        else:
            entry.lead_time_s = lead_time_s

    def forget(self, service: ServiceId) -> None:
        self._entries.pop(service, None)

    def entry(self, service: ServiceId) -> Entry | None:
        """Everything known; for those who show it."""
        return self._entries.get(service)

    def view(self, service: ServiceId) -> Forecasted | None:
        """For a decision; None for a service that is not followed or was not yet looked at."""
        entry = self._entries.get(service)
        if entry is None or (entry.standing.made is None and entry.standing.trouble is None):
            return None
        now_s = self._clock()
        said = foretold(entry.standing, entry.lead_time_s, now_s)
        return sharpened(said, entry.growth, entry.present, entry.lead_time_s, now_s)

    def lengths(self, service: ServiceId) -> MeanLengths | None:
        """Of its requests that were answered, those of the last day where they are enough."""
        entry = self._entries.get(service)
        return None if entry is None else entry.lengths

    def is_awaited(self, service: ServiceId) -> bool:
        """Whether its history has yet to be read for the first time."""
        entry = self._entries.get(service)
        return entry is None or entry.counts is None

    async def run(self) -> None:
        """Refreshes what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                for service, entry in self._due():
                    group.create_task(self._refresh(service, entry), name=f"forecast {service}")
                for service, entry in self._unseen():
                    group.create_task(self._glance(service, entry), name=f"present load {service}")
                await self._until_due()

    async def look(self) -> None:
        """One look at all that is due now; returns when the last is done."""
        await asyncio.gather(*(self._refresh(service, entry) for service, entry in self._due()))

    async def glance(self) -> None:
        """At the present of all whose newest minute is due; returns when the last is done."""
        await asyncio.gather(*(self._glance(service, entry) for service, entry in self._unseen()))

    def _due(self) -> list[tuple[ServiceId, Entry]]:
        """Those whose time has come. None is looked at twice at a time."""
        now_s = self._clock()
        period_s = self.schedule.refresh_s
        due = [(service, entry) for service, entry in self._entries.items() if _has_come(entry.due_s, now_s, period_s)]
        for _, entry in due:
            entry.due_s = math.inf
        return due

    def _unseen(self) -> list[tuple[ServiceId, Entry]]:
        """Those of which another minute is complete. They are not looked at twice at a time."""
        now_s = self._clock()
        period_s = near.STEP_S + near.SETTLED_S
        due = [
            (service, entry) for service, entry in self._entries.items() if _has_come(entry.glance_s, now_s, period_s)
        ]
        for _, entry in due:
            entry.glance_s = math.inf
        return due

    async def _until_due(self) -> None:
        soonest_s = min((min(entry.due_s, entry.glance_s) for entry in self._entries.values()), default=math.inf)
        try:
            async with asyncio.timeout(min(max(soonest_s - self._clock(), 0.05), 5.0)):
                await self._news.wait()
        except TimeoutError:
            return

    async def _refresh(self, service: ServiceId, entry: Entry) -> None:
        async with self._slots:
            next_s = self._clock() + self.schedule.refresh_s
            try:
                await self._look(service, entry)
            except (HistoryUnavailable, ForecastFailed) as error:
                reason = "HistoryUnavailable" if isinstance(error, HistoryUnavailable) else "ForecastFailed"
                if entry.standing.trouble is None or entry.standing.trouble[0] != reason:
                    log.warning("No new forecast of %s: %s", service, error)
                entry.standing = replace(entry.standing, trouble=(reason, str(error)))
                next_s = min(next_s, self._clock() + RETRY_S)
            entry.due_s = next_s
        if self._entries.get(service) is entry:
            for kind in self._told:
                self._queue.add(Key(kind, service.namespace, service.name))

    async def _look(self, service: ServiceId, entry: Entry) -> None:
        counts = entry.counts = await self._history(service, entry)
        entry.lengths = mean_lengths(counts) or entry.lengths
        series = work_series(counts, INPUT_WEIGHT, str(service))
        entry.standing = looked(entry.standing, series, self._clock())
        if hindered(entry.standing):
            return
        forecast = await self._pool.run(Job(series, AHEAD_STEPS))
        entry.standing = renewed(entry.standing, series, forecast, entry.lead_time_s, self._clock())
        await self._learn(service, entry)

    async def _learn(self, service: ServiceId, entry: Entry) -> None:
        """How its load rises within minutes, now and then. Without it the forecast has its say alone."""
        now_s = self._clock()
        if not near.is_due(entry.growth, entry.learned_s, entry.lead_time_s, now_s):
            return
        entry.learned_s, end_s = now_s, near.settled_s(now_s)
        try:
            minutes = await self.source.arrivals(service, end_s - near.LEARNED_S, end_s, near.STEP_S)
        except HistoryUnavailable as error:
            log.info("How %s grows within minutes is not known: %s", service, error)
            return
        was_unknown, entry.growth = entry.growth is None, learned(minutes, entry.lead_time_s)
        if was_unknown and entry.growth is not None:
            entry.glance_s = self._clock()

    async def _glance(self, service: ServiceId, entry: Entry) -> None:
        """At the last minutes. While they are not known, the last ones count until they are old."""
        if entry.growth is None or entry.counts is None:
            return
        async with self._glances:
            end_s = near.settled_s(self._clock())
            try:
                minutes = await self.source.arrivals(service, end_s - near.PRESENT_S, end_s, near.STEP_S)
                each = float(tokens_per_request(entry.counts, INPUT_WEIGHT)[-1])
                entry.present = present_of(minutes, end_s, each) or entry.present
            except HistoryUnavailable:
                pass  # The next look says so.
        entry.glance_s = end_s + near.STEP_S + near.SETTLED_S

    async def _history(self, service: ServiceId, entry: Entry) -> Counts:
        """Whole steps up to now; only those are asked for that are not known or may have changed."""
        known, step_s, now_s = entry.counts, self.schedule.step_s, self._clock()
        end_s = now_s // step_s * step_s
        start_s = end_s - self.schedule.history_s // step_s * step_s
        from_s = start_s
        if known is not None and start_s <= known.end_s <= end_s:
            from_s = max(start_s, known.end_s - STALE_STEPS * step_s)
            if known.first_gap_s is not None and _has_come(entry.gaps_s, now_s, 2 * GAPS_EVERY_S):
                from_s = max(start_s, min(from_s, known.first_gap_s))
                entry.gaps_every_s = min(2 * entry.gaps_every_s, GAPS_EVERY_S)
                entry.gaps_s = math.inf
        counts = joined(known, await self.source.read(service, from_s, end_s, step_s), start_s)
        if counts.first_gap_s is None:
            entry.gaps_every_s = GAPS_FIRST_S
        if entry.gaps_s == math.inf:
            entry.gaps_s = now_s + entry.gaps_every_s * (1 + _share_of(service))
        return counts


def _share_of(service: ServiceId) -> float:
    """From 0 to 1, always the same: spreads what services that are followed at once would ask at once."""
    return zlib.crc32(str(service).encode()) / 2**32


def _has_come(at_s: float, now_s: float, period_s: float) -> bool:
    """A time that is more than a period away has come, too: the clock was set back. inf: it is being looked at."""
    return at_s < math.inf and not now_s < at_s <= now_s + period_s
