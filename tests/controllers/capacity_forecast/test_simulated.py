"""What the simulator foretells of a trace is what the operator's board foretells of the same history."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controllers.capacity_forecast.board import ForecastBoard
from controllers.capacity_forecast.job import Job, run
from controllers.history.interface import Array, Counts, ServiceId
from controllers.plans.capacity import INPUT_WEIGHT
from forecasting import near
from forecasting.forecast import LEVELS, Forecast
from forecasting.series import Series
from forecasting.simulator.arrivals import SecondArrivals, lengths_around
from forecasting.simulator.autoscalers import foretold
from forecasting.simulator.autoscalers.foretold import OperatorForecasts, counts_of
from forecasting.standing import Forecasted, Schedule
from tests.controllers.running import Keys

CHAT = ServiceId("demo", "chat")
LEAD_S = 400.0
START_S = 1_800_000_000.0 // 600 * 600 + 250.0
"""Within a step: the part of it that is known is no whole step."""
LATER_S = 420.0
SCHEDULE = Schedule(refresh_s=1200.0, history_s=86_400.0)


class Source:
    """Knows the whole trace; says what it is asked for."""

    name = "Prometheus"

    def __init__(self, *counts: Counts) -> None:
        self._counts = {one.step_s: one for one in counts}

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        return self._counts[step_s].between(start_s, end_s)

    async def arrivals(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Array:
        return (await self.read(service, start_s, end_s, step_s)).arrivals


class Inline:
    """A pool without processes. `low` says so, whatever comes."""

    def __init__(self, *, low: bool) -> None:
        self._low = low

    async def run(self, job: Job) -> Forecast:
        return too_low(job.series, job.steps) if self._low else run(job)


def too_low(series: Series, steps: int) -> Forecast:
    return Forecast("x", series.end_s, series.step_s, LEVELS, np.ones((steps, len(LEVELS))), "scripted", "as told")


def counted(hours: float) -> tuple[Counts, Counts]:
    """A load that swings within hours, with noise and a jump; in tens of minutes and in minutes."""
    at = np.arange(int(hours * 3600))
    rate = 8 + 4 * np.sin(at / 9000) + 10 * (at > hours * 2400)
    came = np.random.default_rng(7).poisson(rate).astype(np.float64)
    arrivals = SecondArrivals(came, 300 * came, lengths_around(300, 120))
    return counts_of(arrivals, None, START_S, 600.0), counts_of(arrivals, None, START_S, 60.0)


async def looked(counts: Counts, minutes: Counts, looks: int, *, low: bool) -> list[Forecasted | None]:
    """What the board says after each of its looks, and 7 min later; the first look at the middle of the step before the
    trace."""
    now_s = math.floor((START_S - 300.0) / 1200.0) * 1200.0 + 300.0
    board = ForecastBoard(Source(counts, minutes), Inline(low=low), Keys(), SCHEDULE, clock=lambda: now_s)
    board.follow(CHAT, LEAD_S)
    said = []
    for _ in range(looks):
        await board.look()
        for _ in range(2):
            await board.glance()
            said.append(board.view(CHAT))
            now_s += LATER_S
        now_s += SCHEDULE.refresh_s - 2 * LATER_S
    return said


@pytest.mark.parametrize("low", [False, True])
async def test_at_every_look_the_simulator_says_what_the_operator_says(
    low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if low:
        monkeypatch.setattr(foretold, "refresh", too_low)
    counts, minutes = counted(11.0)
    simulated = OperatorForecasts(counts, minutes, INPUT_WEIGHT, LEAD_S, START_S, 11 * 3600.0, SCHEDULE).run()
    first_s = math.floor((START_S - 300.0) / 1200.0) * 1200.0 + 300.0 - START_S
    times_s = [first_s + look * 1200.0 + later_s for look in range(simulated.looks) for later_s in (0.0, LATER_S)]
    said = [simulated.said_at(at_s) for at_s in times_s]
    assert said == await looked(counts, minutes, simulated.looks, low=low)
    reasons = [one.reason for one in said]
    assert reasons[0] == "NoHistory"
    assert reasons[-1] == ("CoverageLost" if low else "Calibrated")
    given = simulated.at(times_s[-1] + 15.0)
    assert given is not None
    assert given.calibrated is not low
    # The policy of a run knows the seconds of the trace only.
    last = said[-1].forecast
    assert last is not None
    assert last.step_s == near.STEP_S
    assert given.issued_s + START_S == last.issued_s
