"""When a worker that says nothing, or is gone, is suspected and given up, by a clock of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.health.load import (
    Evidence,
    Load,
    Loss,
    ProgressPolicy,
    StallPolicy,
    lost_at_s,
    stalled,
    stalls_in_s,
    suspect_at_s,
)
from gateway.health.watcher import ASKED_PER_S, CLOCK_S, JITTER, READ_S, Share, Watch
from gateway.http1.client import Receiver
from gateway.http1.pool import ConnectError
from tests.gateway.harness import load

POLICY = ProgressPolicy(ask_every_s=0.25, suspect_after_s=0.35, answer_within_s=0.6)


@dataclass
class Timer:
    at_s: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    """The loop, as far as a watch needs one."""

    now_s: float = 100.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now_s

    def call_later(self, wait_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now_s + wait_s, call))
        return self.timers[-1]

    def run(self, until_s: float, *, late_s: float = 0.0) -> None:
        """Every timer up to then, each so late."""
        while due := sorted((one for one in self.timers if not one.cancelled), key=lambda one: one.at_s):
            if due[0].at_s > until_s:
                break
            self.timers.remove(due[0])
            self.now_s = max(self.now_s, due[0].at_s + late_s)
            due[0].call()
        self.now_s = max(self.now_s, until_s)


class Worker:
    """That is asked, and says nothing but what the test has it say. Its connection, its pool and who is told are all
    itself."""

    host = b"127.0.0.1:8000"
    heard_s = 0.0

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked_s = self.suspected_s = self.lost_s = 0.0
        self.gone = False
        self.loss: Loss | None = None
        self._asks: Receiver | None = None

    def answers(self) -> None:
        assert self._asks is not None
        self._asks.on_head(200, [])
        self._asks.on_data(orjson.dumps(load()))
        self._asks.on_end()

    def take(self) -> Any:
        return None if self.gone else self

    async def connect(self) -> Any:
        raise ConnectError from ConnectionRefusedError()

    def send(self, head: bytes, body: bytes, receiver: Receiver) -> None:
        self.asked_s, self._asks = self.clock.now_s, receiver

    def abort(self) -> None:
        """Nobody listens."""

    def on_load(self, load: Load) -> None:
        """What the test had it say."""

    def on_mute(self) -> None:
        raise AssertionError("it said nothing")

    def on_suspicion(self) -> None:
        self.suspected_s = self.clock.now_s

    def on_loss(self, loss: Loss) -> None:
        self.lost_s, self.loss = self.clock.now_s, loss


@pytest.fixture
def worker() -> Worker:
    return just_asked()


def just_asked(seed: int = 1) -> Worker:
    clock = Clock()
    share = Share(POLICY, StallPolicy(), cast(Any, clock))
    share.rng = random.Random(seed)
    worker = Worker(clock)
    Watch(worker, cast(Any, worker), worker, share)
    clock.run(clock.timers[0].at_s)
    assert worker.asked_s == clock.now_s
    return worker


def test_one_that_says_nothing_is_suspected_and_then_lost(worker: Worker) -> None:
    worker.clock.run(worker.asked_s + POLICY.answer_within_s + 0.001)
    assert worker.suspected_s - worker.asked_s == pytest.approx(POLICY.suspect_after_s)
    assert worker.lost_s - worker.asked_s == pytest.approx(POLICY.answer_within_s)


@given(st.integers(0, 1 << 16))
def test_one_that_stops_right_after_it_was_asked_is_lost_within_a_second(seed: int) -> None:
    worker = just_asked(seed)
    worker.answers()
    stopped_s = worker.clock.now_s
    worker.clock.run(stopped_s + 1.0)
    next_s = POLICY.ask_every_s * (1.0 + JITTER)
    assert 0.0 < worker.suspected_s - stopped_s <= next_s + POLICY.suspect_after_s + CLOCK_S
    assert 0.0 < worker.lost_s - stopped_s <= next_s + POLICY.answer_within_s + CLOCK_S < 1.0


def test_one_that_is_gone_is_lost_with_the_next_question(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_its_end(work: Coroutine[Any, Any, None], loop: object) -> None:
        with suppress(StopIteration):
            work.send(None)

    monkeypatch.setattr("gateway.health.watcher.start_task", to_its_end)
    worker.answers()
    worker.gone = True
    stopped_s = worker.clock.now_s
    worker.clock.run(stopped_s + POLICY.ask_every_s * (1.0 + JITTER))
    assert worker.lost_s > stopped_s
    assert worker.loss is not None
    assert worker.loss.evidence is Evidence.REFUSED


def test_silence_is_counted_from_the_last_byte(worker: Worker) -> None:
    worker.heard_s = worker.asked_s + 0.2
    worker.clock.run(worker.asked_s + 1.0)
    assert worker.suspected_s - worker.heard_s == pytest.approx(POLICY.suspect_after_s)


def test_one_that_was_speaking_is_suspected_by_its_last_word_and_given_up_by_the_question(worker: Worker) -> None:
    clock = worker.clock
    clock.run(worker.asked_s + POLICY.answer_within_s + 0.001)
    next_s = next(one.at_s for one in clock.timers if not one.cancelled)
    worker.heard_s = next_s - 0.1
    clock.run(next_s + POLICY.answer_within_s + 0.001)
    assert worker.asked_s == next_s
    assert worker.suspected_s - worker.heard_s == pytest.approx(POLICY.suspect_after_s)
    assert worker.lost_s - worker.asked_s == pytest.approx(POLICY.answer_within_s)


@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_suspicion_comes_before_the_loss_and_not_before_both_times_have_passed(asked_s: float, heard_s: float) -> None:
    at_s = suspect_at_s(asked_s, heard_s, POLICY)
    assert asked_s + POLICY.owed_s <= at_s < lost_at_s(asked_s, heard_s, POLICY)
    assert at_s >= heard_s + POLICY.suspect_after_s
    assert at_s <= max(asked_s, heard_s) + POLICY.suspect_after_s


@given(st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_an_engine_is_looked_at_again_when_it_would_have_stalled(stalled_s: float, expected_s: float) -> None:
    policy = StallPolicy()
    left_s = stalls_in_s(Load(stalled_s=stalled_s, expected_s=expected_s), policy)
    if left_s is None:
        assert not stalled_s or stalled(Load(stalled_s=stalled_s + 1e-6, expected_s=expected_s), policy)
    else:
        assert stalled(Load(stalled_s=stalled_s + left_s + CLOCK_S, expected_s=expected_s), policy)


def test_no_pause_is_longer_than_to_the_stall_unless_very_many_are_asked() -> None:
    share = Share(POLICY, StallPolicy(), cast(Any, Clock()))
    still = Load(stalled_s=0.35)
    assert share.pause_after_s(still) == pytest.approx(0.05 + CLOCK_S)
    assert share.pause_after_s(Load()) >= 0.8 * POLICY.ask_every_s
    share.watches = 2 * int(ASKED_PER_S * POLICY.ask_every_s)
    assert share.pause_after_s(still) >= POLICY.ask_every_s


def test_a_loop_that_stood_still_reads_once_more_before_it_suspects(worker: Worker) -> None:
    clock = worker.clock
    clock.run(worker.asked_s + POLICY.suspect_after_s, late_s=0.5)
    assert not worker.suspected_s, "its answer may lie in our socket"
    late_at_s = clock.now_s
    clock.run(late_at_s + READ_S + 0.001)
    assert worker.suspected_s - late_at_s == pytest.approx(READ_S)
