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


def replay(
    requests: Requests,
    world: World,
    autoscaler: Autoscaler,
    *,
    replicas: int,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Replayed:
    """Run the whole trace and a little longer. `replicas` serve at its start."""
    fleet = EventFleet(world, requests, replicas, seed)
    scrapes: list[Scrape] = []
    course: list[Moment] = []
    scales: list[tuple[float, int, int]] = []
    end_s = requests.duration_s
    for tick in range(int((end_s + AFTER_S) // world.scrape_s) + 2):
        now_s = tick * world.scrape_s
        fleet.run_until(now_s)
        if tick and now_s <= end_s and now_s % autoscaler.period_s == 0:
            _decide(fleet, autoscaler, world, scrapes, scales)
        scrapes.append(fleet.scrape())
        course.append(_moment(fleet, scrapes))
        del scrapes[:-KEPT_SCRAPES]
        if progress is not None and now_s <= end_s:
            progress(now_s / max(end_s, 1.0))
    return _result(fleet, requests, world, course, scales)


def _decide(
    fleet: EventFleet,
    autoscaler: Autoscaler,
    world: World,
    scrapes: Sequence[Scrape],
    scales: list[tuple[float, int, int]],
) -> None:
    seen = [each for each in scrapes if each.at_s <= fleet.now_s - world.metrics_lag_s]
    wish = autoscaler.desired(View(fleet.now_s, fleet.current, fleet.ready, seen))
    wanted = min(max(wish, world.min_replicas), world.max_replicas)
    if wanted != fleet.current:
        scales.append((fleet.now_s, fleet.current, wanted))
        fleet.resize(wanted)


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
