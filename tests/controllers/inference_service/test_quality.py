"""What operators ask workers about their answers, and what they remember of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from controllers.history.interface import ServiceId
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.inference_service.canaries import CanaryBoard
from controllers.inference_service.loads import LoadBoard
from controllers.inference_service.quality import SETTLED_S, NoMemory, QualityBoard, StoredMemory
from controllers.inference_service.quality_report import Answers, answers_in
from controllers.plans.canary.evidence import Evidence
from controllers.plans.canary.values import Pair
from controllers.plans.quality import Measure, Policy, Watched
from controllers.plans.snapshot import Worker
from controllers.runtime.interface import Key
from controllers.runtime.queue import ReconcileQueue
from crds.rollout import Rollout
from tests.controllers.inference_service.harness import FakePorts
from tests.controllers.running import Keys
from worker_image.engine.messages import TokenOut
from worker_image.server.metrics import Metrics
from worker_image.server.quality import AnswerSoFar

CHAT = Key("InferenceService", "demo", "chat")
POLICY = Policy(window_s=60.0, least_answers=10, baseline_windows=10)
A = Worker("chat-a-1", "a", ready=True, ip="10.0.0.1")
B = Worker("chat-b-1", "b", ready=True, ip="10.0.0.2")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class World:
    """A board, its workers, and time."""

    def __init__(self, memory: StoredMemory | NoMemory | None = None) -> None:
        self.ports, self.keys, self.clock = FakePorts(), Keys(), Clock()
        self.board = QualityBoard(self.ports, self.keys, memory or NoMemory(), POLICY, clock=self.clock)

    async def follow(self, *workers: Worker) -> None:
        self.board.follow(CHAT, workers)
        for one in workers:
            self.ports.answers.setdefault(one.ip or "", Answers())
        await self.board.round()

    async def windows(self, n: int, worker: Worker, length: float) -> None:
        """So many windows of 20 answers, whose lengths differ a little."""
        ip = worker.ip or ""
        for number in range(2 * n):
            before = self.ports.answers.get(ip, Answers())
            of_half = 10 * length * (1 + 0.02 * (number % 3 - 1))
            self.ports.answers[ip] = before + Answers(answers=10.0, tokens=of_half)
            self.clock.now_s += POLICY.window_s
            await self.board.round()


async def following(*workers: Worker, memory: StoredMemory | None = None) -> World:
    world = World(memory)
    await world.board.begin()
    await world.follow(*workers)
    return world


async def test_a_revision_whose_answers_became_longer_is_told_and_its_service_is_woken() -> None:
    world = await following(A)
    await world.windows(20, A, 100.0)
    assert world.board.drifts(CHAT) == ()
    assert world.keys.waiting == []
    await world.follow(A, B)
    await world.windows(8, B, 200.0)
    (found,) = world.board.drifts(CHAT) or ()
    assert (found.revision, found.reason) == ("b", "AnswersLonger")
    assert world.keys.waiting == [CHAT]
    world.board.follow(CHAT, [A])
    assert world.board.drifts(CHAT) == (), "it was rolled back"


async def test_a_window_waits_for_time_and_for_answers() -> None:
    world = await following(A)
    for _ in range(30):
        world.clock.now_s += POLICY.window_s
        await world.board.round()
    assert world.board._watched == {}, "no answers"
    world.ports.answers["10.0.0.1"] = Answers(answers=500.0, tokens=5000.0)
    await world.board.round()
    assert world.board._watched[CHAT].revisions["a"].moments[Measure.LENGTH].n == 1


async def test_what_a_worker_counted_before_it_was_known_is_in_no_window_and_a_restart_begins_at_zero() -> None:
    world = World()
    world.ports.answers["10.0.0.1"] = Answers(answers=1e6, tokens=1e9)
    await world.follow(A)
    world.ports.answers["10.0.0.1"] = Answers(answers=30.0, tokens=300.0)
    await world.board.round()
    world.clock.now_s += POLICY.window_s
    await world.board.round()
    assert world.board._watched[CHAT].revisions["a"].moments[Measure.LENGTH].mean == 10.0


async def test_workers_that_leave_or_do_not_answer_are_no_trouble() -> None:
    silent = replace(B, ip="10.0.0.9")
    world = await following(A, silent)
    del world.ports.answers["10.0.0.9"]
    await world.windows(3, A, 100.0)
    assert list(world.board._watched[CHAT].revisions) == ["a"]
    world.board.follow(CHAT, [replace(A, leaving=True)])
    await world.board.round()
    assert world.board._followed[CHAT].said == {}


async def test_the_scores_are_shown_of_services_that_exist() -> None:
    world = await following(A)
    await world.windows(12, A, 100.0)
    families = {one.name: one for one in world.board.families()}
    (mean,) = [one for one in families["foretide_quality_mean"].samples if one.labels["measure"] == "length"]
    assert (mean.labels["revision"], mean.value) == ("a", pytest.approx(100.0, rel=0.03))
    world.board.forget(CHAT)
    assert [one.samples for one in world.board.families()] == [[], [], []]


# --- memory -----------------------------------------------------------------------------------------------------------
@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StoreThread]:
    thread = StoreThread(Store(tmp_path / "history"))
    yield thread
    await thread.close()


async def test_a_new_leader_knows_the_baseline_and_the_drift(store: StoreThread) -> None:
    first = await following(A, B, memory=StoredMemory(store))
    await first.windows(12, A, 100.0)
    await first.windows(8, B, 300.0)
    second = World(StoredMemory(store))
    second.board.follow(CHAT, [A, B])
    assert second.board.drifts(CHAT) is None, "it does not know yet"
    await second.board.begin()
    assert second.board.drifts(CHAT) == first.board.drifts(CHAT) != ()
    assert second.keys.waiting == [CHAT]


async def test_a_service_that_went_while_nobody_led_is_forgotten_once_everything_was_looked_at(
    store: StoreThread,
) -> None:
    await (await following(A, memory=StoredMemory(store))).windows(2, A, 100.0)
    world = World(StoredMemory(store))
    await world.board.begin()
    await world.board.round()
    assert await store.call(Store.qualities)
    world.clock.now_s += SETTLED_S
    await world.board.round()
    assert await store.call(Store.qualities) == []


async def test_a_line_that_makes_no_sense_is_left_out(store: StoreThread, caplog: pytest.LogCaptureFixture) -> None:
    empty = '{"origin": null, "baseline": {}, "revisions": []}'
    for name, line in (("chat", "{"), ("other", '{"origin": 1}'), ("good", empty)):
        await store.call(Store.set_quality, ServiceId("demo", name), line)
    assert await StoredMemory(store).read() == {ServiceId("demo", "good"): Watched()}
    assert "begins anew" in caplog.text


async def test_a_disk_that_refuses_stops_nothing(
    store: StoreThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: object) -> None:
        raise sqlite3.OperationalError("disk is full")

    monkeypatch.setattr(Store, "set_quality", refuses)
    world = await following(A, memory=StoredMemory(store))
    await world.windows(2, A, 100.0)
    assert "disk is full" in caplog.text
    assert world.board._watched[CHAT].revisions["a"].moments[Measure.LENGTH].n == 2


# --- pages ------------------------------------------------------------------------------------------------------------
def test_a_workers_own_page_is_read() -> None:
    metrics, answer = Metrics("chat"), AnswerSoFar()
    answer.take([TokenOut(1, 7)] * 40, "I cannot do that")
    metrics.quality.ended(answer, 40)
    metrics.quality.ended(AnswerSoFar(), 2)
    found = answers_in(generate_latest(metrics.registry).decode())
    assert found is not None
    assert (found.answers, found.tokens, found.refusals, found.surprised) == (2.0, 42.0, 1.0, 0.0)
    assert found.repetition == pytest.approx(36 / 37)
    assert found.means(least=2)[Measure.REFUSALS] == 0.5
    assert found.means(least=3) == {}


@pytest.mark.parametrize(
    "page", ["", "x 1", "foretide_worker_answer_tokens_count{} nan", "foretide_worker_answer_tokens_count"]
)
def test_a_page_that_says_nothing_of_answers_says_nothing(page: str) -> None:
    assert answers_in(page) is None


async def test_a_service_that_is_made_anew_under_its_name_has_no_baseline_of_the_one_before(store: StoreThread) -> None:
    world = await following(A, memory=StoredMemory(store))
    await world.windows(20, A, 100.0)
    world.board.forget(CHAT)
    await world.follow(B)
    assert await store.call(Store.qualities) == []
    await world.windows(8, B, 200.0)
    assert world.board.drifts(CHAT) == ()


async def test_a_service_that_goes_between_two_turns_of_the_loop_ends_no_loop() -> None:
    """What ends one of these ends the operator."""
    world = await following(A)
    queue, pair = ReconcileQueue(), Pair("a", "b")
    loads, canaries = LoadBoard(world.ports, queue, world.clock), CanaryBoard(world.ports, queue, frozenset)
    loads.follow(CHAT, [A])
    canaries.follow(CHAT, pair, Rollout(), Evidence(), candidate_is_ready=True)
    loops = [asyncio.create_task(one) for one in (world.board.round(), loads.run(), canaries.run_prompts())]
    await asyncio.sleep(0)  # They have asked for a look at the service, and it has not begun.
    for board in (world.board, loads, canaries):
        board.forget(CHAT)
    for _ in range(10):
        await asyncio.sleep(0)
    failed = [one.exception() for one in loops if one.done()]
    for one in loops:
        one.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    assert failed == [None], "only the round has an end"
