"""One autoscaler over one trace in the exact simulation: what `foretide simulate` shows.

The clock goes from scrape to scrape; the caller may stop after any of them and go on from a fresh fleet, for nothing is
random but what the seed draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from forecasting.simulator.autoscaler import Autoscaler
from forecasting.simulator.events import EventFleet
from forecasting.simulator.outcome import Outcome, met, tpot_s, worst_window
from forecasting.simulator.requests import Floats, Requests
from forecasting.simulator.view import Scrape, View
from forecasting.simulator.world import World

KEPT_SCRAPES = 80
# After the last arrival the fleet may work on for so long; what has not ended then has not met its targets.
AFTER_S = 120.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What a plot shows of one scrape."""

    at_s: float
    wanted: int
    ready: int
    requests_per_s: float
    waiting: float


@dataclass(slots=True)
class Replayed:
    """The outcome, its course, and for every request whether it met its targets."""

    outcome: Outcome
    course: list[Moment]
    first_s: Floats
    done_s: Floats
    refused: int
    scales: list[tuple[float, int, int]] = field(default_factory=list)


class Replay:
    """A run that may be stopped between two scrapes, pickled, read back and gone on with."""

    def __init__(
        self, requests: Requests, world: World, autoscaler: Autoscaler, *, replicas: int, seed: int = 0
    ) -> None:
        self._requests, self._world, self._autoscaler = requests, world, autoscaler
        self._fleet = EventFleet(world, requests, replicas, seed)
        self._scrapes: list[Scrape] = []
        self._course: list[Moment] = []
        self._scales: list[tuple[float, int, int]] = []
        self._tick = 0

    def run(self, progress: Callable[[float], None] | None = None) -> Replayed:
        """The whole trace and a little longer, from where it stopped; `progress` is told the share that is done."""
        end_s = self._requests.duration_s
        ticks = int((end_s + AFTER_S) // self._world.scrape_s) + 2
        while self._tick < ticks:
            self._step(self._tick * self._world.scrape_s, end_s)
            self._tick += 1
            if progress is not None:
                progress(self._tick / ticks)
        return _result(self._fleet, self._requests, self._world, self._course, self._scales)

    def _step(self, now_s: float, end_s: float) -> None:
        fleet = self._fleet
        fleet.run_until(now_s)
        if 0 < now_s <= end_s and now_s % self._autoscaler.period_s == 0:
            self._decide()
        self._scrapes.append(fleet.scrape())
        self._course.append(_moment(fleet, self._scrapes))
        del self._scrapes[:-KEPT_SCRAPES]

    def _decide(self) -> None:
        fleet, world = self._fleet, self._world
        seen = [each for each in self._scrapes if each.at_s <= fleet.now_s - world.metrics_lag_s]
        wish = self._autoscaler.desired(View(fleet.now_s, fleet.current, fleet.ready, seen))
        wanted = min(max(wish, world.min_replicas), world.max_replicas)
        if wanted != fleet.current:
            self._scales.append((fleet.now_s, fleet.current, wanted))
            fleet.resize(wanted)


def replay(requests: Requests, world: World, autoscaler: Autoscaler, *, replicas: int, seed: int = 0) -> Replayed:
    """A run in one go. `replicas` serve at its start."""
    return Replay(requests, world, autoscaler, replicas=replicas, seed=seed).run()


def _moment(fleet: EventFleet, scrapes: Sequence[Scrape]) -> Moment:
    newest = scrapes[-1]
    rate = 0.0
    if len(scrapes) > 1:
        before = scrapes[-2]
        rate = (newest.requests_total - before.requests_total) / (newest.at_s - before.at_s)
    return Moment(newest.at_s, fleet.current, fleet.ready, rate, newest.waiting)


def _result(
    fleet: EventFleet,
    requests: Requests,
    world: World,
    course: list[Moment],
    scales: list[tuple[float, int, int]],
) -> Replayed:
    first, done = np.array(fleet.first_s), np.array(fleet.done_s)
    good = met(requests, first, done, world.slo)
    served = [moment for moment in course if moment.at_s <= requests.duration_s]
    outcome = Outcome(
        requests=len(requests),
        finished=int(np.isfinite(done).sum()),
        attainment=float(good.mean()) if len(good) else 1.0,
        worst_window=worst_window(requests.arrival_s, good.astype(np.float64), requests.duration_s),
        ttft_p99_s=_p99(first - requests.arrival_s),
        tpot_p99_s=_p99(tpot_s(requests, first, done)),
        gpu_hours=fleet.gpu_seconds(requests.duration_s) / 3600,
        scale_ups=sum(after > before for _, before, after in scales),
        scale_downs=sum(after < before for _, before, after in scales),
        mean_replicas=float(np.mean([moment.wanted for moment in served])),
        peak_replicas=max(moment.wanted for moment in served),
    )
    return Replayed(outcome, course, first, done, len(fleet.refused), scales)


def _p99(values: Floats) -> float | None:
    """None when requests never ended: the percentile would be of those that did well."""
    if not len(values) or not np.isfinite(values).all():
        return None
    return float(np.quantile(values, 0.99))
