"""The board of forecasts: what it asks for, what it says of each service, and what it does when the history is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from controllers.capacity_forecast.board import RETRY_S, ForecastBoard
from controllers.capacity_forecast.job import Job, run
from controllers.capacity_forecast.pool import ForecastFailed
from controllers.history.interface import Array, Counts, HistoryUnavailable, ServiceId, empty
from controllers.runtime.interface import Key
from forecasting import near
from forecasting.forecast import LEVELS, Forecast
from forecasting.refresh import CEILING
from forecasting.standing import AHEAD_STEPS, BELIEVED, Forecasted, Schedule, foretold, load_forecast
from tests.controllers.running import Keys
from tests.waiting import eventually

CHAT = ServiceId("demo", "chat")
CALM = Forecasted(None, False, "", "")
STEP_S = 600.0
T0 = 1_800_000_000.0 // 600 * 600


class Clock:
    def __init__(self) -> None:
        self.now_s = T0 + 5.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Source:
    """A history that grows with the clock: `rate` requests a second, each of one token in and out."""

    clock: Clock
    rate: float = 60.0
    begins_s: float = T0 - 3 * 86_400.0
    ends_s: float = float("inf")
    partial: bool = False
    """Only the last six hours are answered."""
    away: bool = False
    has_no_minutes: bool = False
    asked: list[tuple[float, float]] = field(default_factory=list)
    minutes: list[tuple[float, float]] = field(default_factory=list)
    """What was asked for in steps of a minute."""
    answers: asyncio.Event | None = None
    """Until it is set, none comes."""
    name: str = "Prometheus"

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        (self.minutes if step_s == near.STEP_S else self.asked).append((start_s, end_s))
        if self.answers is not None:
            await self.answers.wait()
        if self.away or (step_s == near.STEP_S and self.has_no_minutes):
            raise HistoryUnavailable("Prometheus at http://p cannot be reached (ConnectionError).")
        out = empty(start_s, end_s, step_s)
        times = start_s + step_s * np.arange(len(out.arrivals))
        begins_s = max(self.begins_s, self.clock() - 6 * 3600.0) if self.partial else self.begins_s
        known = (times >= begins_s) & (times < self.ends_s)
        for column in out.columns:
            column[known] = self.rate * step_s
        return Counts(start_s, step_s, *out.columns)

    async def arrivals(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Array:
        return (await self.read(service, start_s, end_s, step_s)).arrivals


class Inline:
    """A pool without processes; `says` makes the forecast instead, where it is set."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.fails: str | None = None
        self.upper: float | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    async def run(self, job: Job) -> Forecast:
        self.jobs.append(job)
        self.meanwhile()
        if self.fails:
            raise ForecastFailed(self.fails)
        if self.upper is None:
            return run(job)
        quantiles = np.linspace(0, self.upper, len(LEVELS)) * np.ones((job.steps, 1))
        return Forecast("x", job.series.end_s, job.series.step_s, LEVELS, quantiles, "scripted", "as told")


@dataclass
class World:
    clock: Clock
    source: Source
    pool: Inline
    keys: Keys
    board: ForecastBoard

    async def refreshed(self, times: int = 1) -> None:
        """Lets the clock go on until the board has looked `times` more often."""
        for _ in range(times):
            entry = self.board.entry(CHAT)
            assert entry
            self.clock.now_s = max(self.clock.now_s, entry.due_s)
            await self.board.look()


async def a_world() -> World:
    """After the first look at one service."""
    clock, pool, keys = Clock(), Inline(), Keys()
    source = Source(clock)
    board = ForecastBoard(source, pool, keys, Schedule(STEP_S, STEP_S, 3 * 86_400.0), clock=clock)
    board.follow(CHAT, 300.0)
    await board.look()
    return World(clock, source, pool, keys, board)


async def test_a_new_service_is_forecast_at_once_and_both_its_keys_are_marked() -> None:
    clock, keys = Clock(), Keys()
    board = ForecastBoard(Source(clock), Inline(), keys, Schedule(), clock=clock)
    assert board.view(CHAT) is None
    task = asyncio.ensure_future(board.run())
    board.follow(CHAT, 300.0)
    await eventually(lambda: len(keys.waiting) == 2, "both keys")
    assert set(keys.waiting) == {Key("InferenceService", "demo", "chat"), Key("CapacityForecast", "demo", "chat")}
    view = board.view(CHAT)
    assert view
    assert (view.trusted, view.reason) == (True, "Calibrated")
    assert view.forecast
    assert len(view.forecast.values) == AHEAD_STEPS
    # 60 requests each second of 1 output token and 0.25 weighted input tokens.
    assert view.forecast.values[0][0] == pytest.approx(75, rel=0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_only_what_is_new_is_asked_for_again() -> None:
    it = await a_world()
    await it.refreshed()
    (first_from, first_to), (from_s, to_s) = it.source.asked[:2]
    assert (first_from, first_to) == (T0 - 3 * 86_400, T0)
    assert (from_s, to_s) == (T0 - 3 * STEP_S, T0 + STEP_S)
    assert len(it.pool.jobs[-1].series) == 3 * 144


async def test_a_partial_answer_is_asked_for_again_and_no_later_one_takes_away_what_was_known() -> None:
    it = await a_world()
    it.board.forget(CHAT)
    it.source.partial = True
    it.board.follow(CHAT, 300.0)
    await it.board.look()
    entry = it.board.entry(CHAT)
    assert entry
    assert entry.counts
    assert entry.counts.first_gap_s == T0 - 3 * 86_400
    it.source.partial = False
    await it.refreshed(3)
    assert entry.counts.first_gap_s is None
    it.source.ends_s = 0.0
    await it.refreshed()
    assert entry.counts.first_gap_s == entry.counts.end_s - STEP_S


async def test_a_history_that_keeps_its_gaps_is_asked_for_them_at_most_once_an_hour() -> None:
    it = await a_world()
    it.source.begins_s, it.pool.upper = T0, 100.0
    it.board.forget(CHAT)
    it.board.follow(CHAT, 300.0)
    it.source.asked.clear()
    await it.board.look()
    await it.refreshed(2 * 144)
    whole = [to_s for from_s, to_s in it.source.asked if to_s - from_s > 86_400]
    assert 24 <= len(whole) <= 48 + 3
    assert min(later - sooner for sooner, later in pairwise(whole[4:])) >= 3600


async def test_the_next_minutes_follow_the_present_and_its_absence_leaves_the_forecast() -> None:
    it = await a_world()
    it.source.rate = 100.0
    for _ in range(6):
        it.clock.now_s += near.STEP_S
        await it.board.glance()
    told = it.board.view(CHAT)
    assert told
    assert told.forecast
    assert told.forecast.step_s == near.STEP_S
    # A hundred requests each second of 1 output token and 0.25 weighted input tokens; it never rose before.
    assert told.forecast.values[0][-1] == pytest.approx(125)
    it.source.away = True
    it.clock.now_s += near.STALE_S + near.STEP_S
    await it.board.glance()
    told = it.board.view(CHAT)
    assert told
    assert told.forecast
    assert told.forecast.step_s == STEP_S


async def test_minutes_are_learned_from_once_an_hour_and_the_last_ones_asked_for_each_minute() -> None:
    it = await a_world()
    await it.board.glance()
    await it.board.glance()
    assert [to_s - from_s for from_s, to_s in it.source.minutes] == [near.LEARNED_S, near.PRESENT_S]
    it.source.minutes.clear()
    it.clock.now_s += near.STEP_S
    await it.board.glance()
    await it.refreshed(7)
    lengths = [to_s - from_s for from_s, to_s in it.source.minutes]
    assert lengths == [near.PRESENT_S, near.LEARNED_S]


async def test_a_history_that_refuses_its_minutes_costs_no_forecast_and_is_not_pressed() -> None:
    it = await a_world()
    it.board.forget(CHAT)
    it.source.has_no_minutes = True
    it.source.minutes.clear()
    jobs = len(it.pool.jobs)
    it.board.follow(CHAT, 300.0)
    await it.board.look()
    await it.refreshed(2)
    view = it.board.view(CHAT)
    assert view
    assert (view.trusted, view.reason) == (True, "Calibrated")
    assert view.forecast
    assert view.forecast.step_s == STEP_S
    assert (len(it.pool.jobs) - jobs, len(it.source.minutes)) == (3, 3), "once each look, which is every ten minutes"


async def test_a_look_while_the_present_is_being_looked_at_begins_no_second_glance() -> None:
    it = await a_world()
    it.source.answers = asyncio.Event()
    first = asyncio.ensure_future(it.board.glance())
    await eventually(lambda: len(it.source.minutes) == 2, "the first glance")
    look = asyncio.ensure_future(it.refreshed())
    await eventually(lambda: len(it.source.asked) == 2, "the look")
    it.source.answers.set()
    await look
    await first
    assert len(it.source.minutes) == 2


async def test_a_history_that_is_slower_than_a_minute_is_not_asked_again_meanwhile() -> None:
    it = await a_world()
    it.source.answers = asyncio.Event()
    first = asyncio.ensure_future(it.board.glance())
    await eventually(lambda: len(it.source.minutes) == 2, "the first glance")
    it.clock.now_s += 5 * near.STEP_S
    await it.board.glance()
    it.source.answers.set()
    await first
    assert len(it.source.minutes) == 2
    await it.board.glance()
    assert len(it.source.minutes) == 3


async def test_a_history_that_is_slower_than_the_schedule_is_not_asked_again_meanwhile() -> None:
    it = await a_world()
    it.source.answers = asyncio.Event()
    it.clock.now_s += STEP_S
    first = asyncio.ensure_future(it.board.look())
    await eventually(lambda: len(it.source.asked) == 2, "the first look")
    it.clock.now_s += 5 * STEP_S
    await it.board.look()
    it.source.answers.set()
    await first
    assert len(it.source.asked) == 2
    await it.refreshed()
    assert len(it.source.asked) == 3


async def test_a_history_that_is_away_keeps_the_last_forecast_and_is_asked_again_soon() -> None:
    it = await a_world()
    it.source.away = True
    await it.refreshed()
    view, entry = it.board.view(CHAT), it.board.entry(CHAT)
    assert view
    assert entry
    assert (view.trusted, view.reason) == (True, "HistoryUnavailable")
    assert view.forecast
    assert entry.due_s - it.clock.now_s <= RETRY_S
    it.source.away = False
    await it.refreshed()
    view = it.board.view(CHAT)
    assert view
    assert view.reason == "Calibrated"


async def test_lengths_are_awaited_until_the_history_was_read_once_and_then_stay_known() -> None:
    it = await a_world()
    assert not it.board.is_awaited(CHAT)
    assert it.board.lengths(CHAT)
    it.board.forget(CHAT)
    it.source.away = True
    it.board.follow(CHAT, 300.0)
    await it.board.look()
    assert it.board.is_awaited(CHAT)
    it.source.away = False
    await it.refreshed()
    assert not it.board.is_awaited(CHAT)
    entry, known = it.board.entry(CHAT), it.board.lengths(CHAT)
    assert entry
    assert known
    entry.counts, it.source.ends_s = None, 0.0
    await it.refreshed()
    assert it.board.lengths(CHAT) == known


async def test_a_clock_that_is_set_back_is_no_reason_to_wait_until_it_is_there_again() -> None:
    it = await a_world()
    it.clock.now_s -= 86_400.0
    await it.board.look()
    await it.board.look()
    assert [to_s for _, to_s in it.source.asked] == [T0, T0 - 86_400.0]
    view = it.board.view(CHAT)
    assert view
    assert view.forecast
    assert view.forecast.issued_s == T0 - 86_400.0


async def test_a_forecast_that_ran_out_is_given_up() -> None:
    it = await a_world()
    entry = it.board.entry(CHAT)
    assert entry
    assert entry.standing.made
    away = replace(entry.standing, trouble=("HistoryUnavailable", "away"))
    assert foretold(away, entry.lead_time_s, it.clock.now_s).trusted
    late = foretold(away, entry.lead_time_s, entry.standing.made.forecast.end_s)
    assert (late.trusted, late.forecast, late.reason) == (False, None, "HistoryUnavailable")


async def test_a_forecast_that_ran_out_while_the_next_look_hangs_is_given_up_too() -> None:
    it = await a_world()
    it.source.answers = asyncio.Event()
    it.clock.now_s += STEP_S
    look = asyncio.ensure_future(it.board.look())
    await eventually(lambda: len(it.source.asked) == 2, "the look")
    entry = it.board.entry(CHAT)
    assert entry
    assert entry.standing.made
    last_s = entry.standing.made.forecast.end_s - entry.lead_time_s
    it.clock.now_s = last_s
    assert (it.board.view(CHAT) or CALM).reason == "Calibrated"
    it.clock.now_s = last_s + 1
    view = it.board.view(CHAT)
    assert view
    assert (view.trusted, view.forecast, view.reason) == (False, None, "ForecastOverdue")
    it.source.answers.set()
    await look


async def test_a_forecast_that_never_reached_the_lead_time_is_used_to_its_end() -> None:
    """Growth, which is learned as far as is needed, has the say then, and takes no more of it than what is expected."""
    it = await a_world()
    entry = it.board.entry(CHAT)
    assert entry
    assert entry.standing.made
    end_s, far_s = entry.standing.made.forecast.end_s, (AHEAD_STEPS + 1) * STEP_S
    assert foretold(entry.standing, far_s, end_s).trusted
    assert foretold(entry.standing, far_s, end_s + 1).reason == "ForecastOverdue"


async def test_a_history_that_ended_in_the_past_foretells_nothing() -> None:
    it = await a_world()
    it.source.ends_s = T0
    await it.refreshed(4)
    view = it.board.view(CHAT)
    assert view
    assert (view.trusted, view.reason, view.forecast) == (False, "HistoryStale", None)


async def test_too_little_history_is_no_reason_to_act() -> None:
    it = await a_world()
    it.source.begins_s = it.clock.now_s
    it.board.forget(CHAT)
    it.board.follow(CHAT, 300.0)
    await it.board.look()
    view = it.board.view(CHAT)
    assert view
    assert (view.trusted, view.reason) == (False, "NoHistory")
    await it.refreshed(3)
    view = it.board.view(CHAT)
    assert view
    assert (view.trusted, view.reason) == (False, "NoHistory")


async def test_a_failed_forecast_is_told_and_tried_again() -> None:
    it = await a_world()
    it.pool.fails = "It took more than 60 s and was stopped."
    await it.refreshed()
    view = it.board.view(CHAT)
    assert view
    assert (view.trusted, view.reason) == (True, "ForecastFailed")
    assert "took more than 60 s" in view.message


async def test_a_forecast_that_fails_again_and_again_is_logged_once_and_told_all_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = await a_world()
    it.pool.fails = "It took more than 60 s and was stopped."
    told: list[str] = []
    it.pool.meanwhile = lambda: told.append((it.board.view(CHAT) or CALM).reason)
    await it.refreshed(5)
    assert told == ["Calibrated", *["ForecastFailed"] * 4]
    assert [one.getMessage() for one in caplog.records] == [f"No new forecast of demo/chat: {it.pool.fails}"]
    it.pool.fails = None
    await it.refreshed()
    assert (it.board.view(CHAT) or CALM).reason == "Calibrated"


async def test_forecasts_that_keep_missing_lose_their_say_and_right_ones_get_it_back() -> None:
    it = await a_world()
    it.pool.upper = 10.0  # The load is 75.
    await it.refreshed(25)
    view = it.board.view(CHAT)
    assert view
    assert (view.trusted, view.reason) == (False, "CoverageLost")
    assert view.forecast
    assert not view.forecast.calibrated
    it.pool.upper = 200.0
    for _ in range(300):
        await it.refreshed()
        view = it.board.view(CHAT)
        assert view
        if view.trusted:
            break
    assert view.reason == "Calibrated"


async def test_what_is_believed_is_bounded_by_what_was_ever_seen() -> None:
    it = await a_world()
    entry = it.board.entry(CHAT)
    assert entry
    made = entry.standing.made
    assert made
    said = load_forecast(made.forecast, made.series)
    assert said.plausible_max == pytest.approx(4 * 75 + 1)
    assert BELIEVED == CEILING


async def test_a_service_that_is_forgotten_is_asked_for_no_more() -> None:
    it = await a_world()
    it.board.forget(CHAT)
    assert it.board.view(CHAT) is None
    asked = len(it.source.asked)
    it.clock.now_s += 10 * STEP_S
    it.board.follow(ServiceId("demo", "other"), 300.0)
    await it.board.look()
    assert len(it.source.asked) == asked + 1
