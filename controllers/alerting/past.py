"""Counts of services in fine and coarse steps, each read once for all policies and then only where they are new."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controllers.history.interface import Counts, HistorySource, HistoryUnavailable, ServiceId, joined
from controllers.plans.alerting.readings import ANOMALY_SPAN_S, COARSE_S, FINE_S, FINE_SPAN_S, values
from crds.alert_policy import Metric
from forecasting.anomalies.usual import improbability
from forecasting.series import Series

log = logging.getLogger(__name__)

SETTLED_S: Final = 20.0
"""After the end of a step, until the last scrape of it is in the history."""
AGAIN_STEPS: Final = 2
"""Steps that are read again: they may not have been complete."""
RETRY_S: Final = 30.0
FORGET_S: Final = 3600.0
SPANS: Final = {FINE_S: FINE_SPAN_S, COARSE_S: ANOMALY_SPAN_S}

_Where = tuple[ServiceId, float]


@dataclass(slots=True)
class _Held:
    counts: Counts
    asked_s: float


class Past:
    """`counts` of a service; None while the history does not answer, with the reason in `trouble`."""

    def __init__(self, source: HistorySource, clock: Callable[[], float] = time.time) -> None:
        self._source, self._clock = source, clock
        self._held: dict[_Where, _Held] = {}
        self._surprise: dict[tuple[ServiceId, Metric], tuple[float, tuple[float, float] | None]] = {}
        self._wait_until_s = 0.0
        self._pruned_s = clock()
        self.trouble: str | None = None

    async def counts(self, service: ServiceId, step_s: float) -> Counts | None:
        """Of the last six hours in minutes, or of two weeks in tens of minutes."""
        now_s, span_s = self._clock(), SPANS[step_s]
        if now_s - self._pruned_s >= FORGET_S:
            self._forget_old(now_s)
        end_s = math.floor((now_s - SETTLED_S) / step_s) * step_s
        held = self._held.get((service, step_s))
        if held is not None:
            held.asked_s = now_s
            if held.counts.end_s == end_s:
                return held.counts
        if now_s < self._wait_until_s:
            return None
        start_s = end_s - span_s
        if held is not None:
            start_s = max(start_s, min(held.counts.end_s, end_s) - AGAIN_STEPS * step_s)
        new = await self._read(service, start_s, end_s, step_s)
        if new is None:
            return None
        self._held[service, step_s] = _Held(joined(held.counts if held else None, new, end_s - span_s), now_s)
        return self._held[service, step_s].counts

    async def _read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts | None:
        try:
            found = await self._source.read(service, start_s, end_s, step_s)
        except HistoryUnavailable as error:
            if self.trouble is None:
                log.warning("Alerts go by what is known already: %s", error)
            self.trouble, self._wait_until_s = str(error), self._clock() + RETRY_S
            return None
        self.trouble = None
        return found

    async def improbability(self, service: ServiceId, metric: Metric) -> tuple[float, float] | None:
        """Of the last coarse step; reckoned once a step, off the loop."""
        counts = await self.counts(service, COARSE_S)
        if counts is None:
            return None
        known = self._surprise.get((service, metric))
        if known is None or known[0] != counts.end_s:
            series = Series(counts.start_s, counts.step_s, values(metric, counts), str(service))
            known = counts.end_s, await asyncio.to_thread(improbability, series)
            self._surprise[service, metric] = known
        return known[1]

    def surprises(self) -> dict[tuple[ServiceId, Metric], tuple[float, float]]:
        """The last of each, for the metrics page."""
        return {where: found for where, (_, found) in self._surprise.items() if found is not None}

    def _forget_old(self, now_s: float) -> None:
        """What no policy asks for any more."""
        before_s, self._pruned_s = now_s - FORGET_S, now_s
        self._held = {where: one for where, one in self._held.items() if one.asked_s >= before_s}
        services = {service for service, _ in self._held}
        self._surprise = {where: one for where, one in self._surprise.items() if where[0] in services}
