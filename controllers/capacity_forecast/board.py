"""Who is forecast when, what was said, and whether it came true. Asks the history and the pool; decides nothing itself.

An error keeps the last forecast until it runs out; from then on the policy goes by the measured load alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from controllers.capacity_forecast.job import Job
from controllers.capacity_forecast.pool import ForecastFailed
from controllers.capacity_forecast.work import mean_lengths, work_series
from controllers.history.interface import Counts, HistorySource, HistoryUnavailable, ServiceId, joined
from controllers.plans.calibration import LEVELS, Calibration, Promise, observed, promised
from controllers.plans.carried import MeanLengths
from controllers.plans.snapshot import Forecasted
from controllers.runtime.interface import Key, Marker
from forecasting.forecast import Forecast
from forecasting.policy import LoadForecast
from forecasting.series import Series

log = logging.getLogger(__name__)

AHEAD_STEPS: Final = 24
BELIEVED: Final = 4.0
"""Times the highest load ever seen: as high as `forecasting.refresh` ever goes, so that what is beyond is a mistake."""
RETRY_S: Final = 30.0
"""After an error."""
SAID_LEVELS: Final = (0.5, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99)
"""What the policy gets of each forecast: few, for they are recorded with every decision."""
STALE_STEPS: Final = 3
"""Steps without a measurement at the end of the history, after which nothing is foretold from it."""
_PASSING: Final = ("HistoryUnavailable", "ForecastFailed")
"""Troubles that say nothing against the last forecast."""
UNTAUGHT: Final = "persistence"
"""The `reason` of a forecast that had too little history to learn from."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often, from how much, and in which steps."""

    step_s: float = 600.0
    refresh_s: float = 600.0
    history_s: float = 14 * 86_400.0


class Forecaster(Protocol):
    """The pool, as far as it is used."""

    async def run(self, job: Job) -> Forecast:
        """Raises: ForecastFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """One forecast and what it came from."""

    forecast: Forecast
    series: Series
    made_s: float
    said: LoadForecast
    """The same for decisions, of which there are many."""


@dataclass(slots=True)
class Entry:
    """One service that is followed."""

    lead_time_s: float
    due_s: float
    counts: Counts | None = None
    lengths: MeanLengths | None = None
    made: Made | None = None
    calibration: Calibration = field(default_factory=Calibration)
    trouble: tuple[str, str] | None = None
    """Reason and message of what hinders a newer forecast."""


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
        self._slots = asyncio.Semaphore(at_once)
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
        if entry is None or (entry.made is None and entry.trouble is None):
            return None
        return foretold(entry, self._clock())

    def lengths(self, service: ServiceId) -> MeanLengths | None:
        """Of the requests of its last day that were answered."""
        entry = self._entries.get(service)
        return None if entry is None else entry.lengths

    async def run(self) -> None:
        """Refreshes what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                for service, entry in self._due():
                    group.create_task(self._refresh(service, entry), name=f"forecast {service}")
                await self._until_due()

    async def look(self) -> None:
        """One look at all that is due now; returns when the last is done."""
        await asyncio.gather(*(self._refresh(service, entry) for service, entry in self._due()))

    def _due(self) -> list[tuple[ServiceId, Entry]]:
        """Those whose time has come; their next one is set."""
        now_s = self._clock()
        due = [(service, entry) for service, entry in self._entries.items() if entry.due_s <= now_s]
        for _, entry in due:
            entry.due_s = now_s + self.schedule.refresh_s
        return due

    async def _until_due(self) -> None:
        soonest_s = min((entry.due_s for entry in self._entries.values()), default=math.inf)
        try:
            async with asyncio.timeout(min(max(soonest_s - self._clock(), 0.05), 5.0)):
                await self._news.wait()
        except TimeoutError:
            return

    async def _refresh(self, service: ServiceId, entry: Entry) -> None:
        async with self._slots:
            try:
                await self._look(service, entry)
            except (HistoryUnavailable, ForecastFailed) as error:
                reason = "HistoryUnavailable" if isinstance(error, HistoryUnavailable) else "ForecastFailed"
                if entry.trouble is None or entry.trouble[0] != reason:
                    log.warning("No new forecast of %s: %s", service, error)
                entry.trouble = (reason, str(error))
                entry.due_s = min(entry.due_s, self._clock() + RETRY_S)
        if self._entries.get(service) is entry:
            for kind in self._told:
                self._queue.add(Key(kind, service.namespace, service.name))

    async def _look(self, service: ServiceId, entry: Entry) -> None:
        counts = entry.counts = await self._history(service, entry.counts)
        entry.lengths = mean_lengths(counts)
        series = work_series(counts, str(service))
        entry.calibration = observed(entry.calibration, _truth(series), self._clock())
        entry.trouble = _hindrance(series)
        if entry.trouble is not None:
            return
        forecast = await self._pool.run(Job(series, AHEAD_STEPS))
        entry.made = Made(forecast, series, self._clock(), load_forecast(forecast, series))
        entry.calibration = promised(entry.calibration, promise_of(forecast, entry.lead_time_s))

    async def _history(self, service: ServiceId, known: Counts | None) -> Counts:
        """Whole steps up to now; only those are asked for that are not known or may have changed."""
        step_s = self.schedule.step_s
        end_s = self._clock() // step_s * step_s
        start_s = end_s - self.schedule.history_s // step_s * step_s
        from_s = start_s
        if known is not None and start_s <= known.end_s <= end_s:
            from_s = max(start_s, known.end_s - STALE_STEPS * step_s)
        return joined(known, await self.source.read(service, from_s, end_s, step_s), start_s)


def foretold(entry: Entry, now_s: float) -> Forecasted:
    """What a decision may use of it, and why not."""
    made, trouble = entry.made, entry.trouble
    ran_out = made is None or now_s + entry.lead_time_s > made.forecast.end_s
    if trouble is not None and (ran_out or trouble[0] not in _PASSING):
        return Forecasted(None, False, *trouble)
    assert made is not None, "without trouble there is a forecast"
    if made.forecast.reason == UNTAUGHT:
        return Forecasted(None, False, "NoHistory", "There is too little history to learn from yet.")
    if not entry.calibration.trusted:
        message = "Its intervals have not kept what they promise; the measured load decides until they do again."
        return Forecasted(replace(made.said, calibrated=False), False, "CoverageLost", message)
    if trouble is not None:
        return Forecasted(made.said, True, trouble[0], f"{trouble[1]} The last forecast is used until it runs out.")
    return Forecasted(made.said, True, "Calibrated", "The forecast keeps what it promises and has its say.")


def load_forecast(forecast: Forecast, series: Series) -> LoadForecast:
    """In the policy's shape. The highest load ever seen bounds what is believed."""
    columns = [forecast.quantile(level).tolist() for level in SAID_LEVELS]
    highest = float(series.values[series.observed].max())
    return LoadForecast(
        issued_s=forecast.origin_s,
        step_s=forecast.step_s,
        levels=SAID_LEVELS,
        values=tuple(tuple(round(value, 3) for value in row) for row in zip(*columns, strict=True)),
        plausible_max=BELIEVED * highest + 1.0,
    )


def promise_of(forecast: Forecast, lead_time_s: float) -> Promise:
    """The intervals of the step in which a worker that is asked for now would begin to serve."""
    step = min(int(lead_time_s // forecast.step_s), forecast.steps - 1)
    intervals = tuple(
        (float(forecast.quantile((1 - level) / 2)[step]), float(forecast.quantile((1 + level) / 2)[step]))
        for level in LEVELS
    )
    return Promise(forecast.origin_s + step * forecast.step_s, intervals)


def _truth(series: Series) -> list[tuple[float, float]]:
    recent = series.last(4 * AHEAD_STEPS)
    return [
        (float(at), float(value)) for at, value in zip(recent.times_s, recent.values, strict=True) if value == value
    ]


def _hindrance(series: Series) -> tuple[str, str] | None:
    """Why nothing can be foretold from this history."""
    if not series.n_observed:
        return "NoHistory", "Nothing was measured yet; the measured load will decide."
    if not series.last(STALE_STEPS).n_observed:
        return "HistoryStale", "The history ends in the past: nobody counted requests lately. Are the gateways scraped?"
    return None
