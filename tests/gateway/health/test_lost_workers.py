"""Workers that stop, hang or vanish: found, spared at once, and taken back slowly. In what time: test_silence."""

from __future__ import annotations

import asyncio

from tests.gateway.harness import (
    Behaviour,
    Exchange,
    FakeWorker,
    Running,
    answers,
    load,
    serving,
)
from tests.waiting import eventually, eventually_told

ASK = {"model": "chat", "messages": []}
STREAM = ASK | {"stream": True}


async def hangs(exchange: Exchange) -> None:
    await exchange.hang()


def two(*behaviours: Behaviour) -> tuple[FakeWorker, FakeWorker]:
    bad, good = FakeWorker(*behaviours or (answers,), name="chat-aa-1-bad"), FakeWorker(answers, name="chat-aa-1-good")
    bad.load, good.load = load(), load()
    return bad, good


async def lost(gateway: Running, evidence: str) -> None:
    async def is_so() -> bool:
        return await gateway.metric("losses_total", evidence=evidence) >= 1

    await eventually_told(is_so, f"a worker is lost: {evidence}")


async def watched(*all_: FakeWorker) -> None:
    await eventually(lambda: all(one.load_asked > 0 for one in all_), "every worker is asked for its load")


async def test_a_stopped_worker_is_found_and_gets_nothing_more() -> None:
    bad, good = two()
    async with serving(bad, good) as gateway:
        await watched(bad, good)
        bad.silent = True
        await lost(gateway, "silent")
        before = len(bad.asked)
        for _ in range(10):
            assert (await gateway.post(ASK)).status == 200
        assert len(bad.asked) == before
        assert await gateway.metric("endpoints", state="lost") == 1


async def test_a_worker_that_vanishes_is_found_by_its_closed_port() -> None:
    bad, good = two()
    async with serving(bad, good) as gateway:
        await watched(bad, good)
        await bad.stop()
        await lost(gateway, "refused")


async def test_a_hung_step_loop_is_found_although_http_answers() -> None:
    bad, good = two()
    async with serving(bad, good) as gateway:
        await watched(bad, good)
        bad.load = load(running=2, stalled_s=2.0)
        await lost(gateway, "hung")


async def test_a_long_prefill_is_no_hang() -> None:
    bad, good = two()
    async with serving(bad, good) as gateway:
        bad.load = load(running=2, stalled_s=9.0, step={"kind": "prefill", "expected_s": 4.0})
        asked = bad.load_asked
        await eventually(lambda: bad.load_asked > asked + 4, "it was asked several times")
        assert await gateway.metric("endpoints", state="ready") == 2


async def test_what_is_open_on_a_lost_worker_is_answered_by_another() -> None:
    bad, good = two(hangs)
    async with serving(bad, good) as gateway:
        await watched(bad, good)
        asking = [asyncio.create_task(gateway.post(ASK)) for _ in range(8)]
        await eventually(
            lambda: bad.asked and len(bad.asked) + len(good.asked) == 8, "some are at the worker that hangs"
        )
        there = len(bad.asked)
        bad.load = load(running=there, stalled_s=5.0)
        got = await asyncio.gather(*asking)
        assert [one.status for one in got] == [200] * 8
        assert bad.left == there, "the lost worker was released"
        assert await gateway.metric("retries_total", reason="lost") == there
        assert await gateway.metric("ejections_total") == 0, "it was judged once, not twice"


async def test_a_lost_worker_comes_back_slowly() -> None:
    bad, good = two()
    async with serving(bad, good) as gateway:
        await watched(bad, good)
        bad.silent = True
        await lost(gateway, "silent")
        bad.silent = False
        await eventually(
            lambda: all(one.loss is None for state in gateway.gateway._fleet for one in state.backends),
            "it is believed again",
        )
        before = len(bad.asked)
        await asyncio.gather(*(gateway.post(ASK) for _ in range(40)))
        assert len(bad.asked) - before < 12, "far less than half of what came"


async def test_the_only_worker_keeps_its_requests_although_it_is_lost() -> None:
    release = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await release.wait()
        await answers(exchange)

    only = FakeWorker(late)
    only.load = load()
    async with serving(only) as gateway:
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually(lambda: len(only.asked) == 1, "the request is there")
        only.load = load(running=1, stalled_s=5.0)
        await lost(gateway, "hung")
        release.set()
        assert (await asking).status == 200
        assert (await gateway.post(ASK)).status == 200, "a doubtful answer is better than none"


async def test_a_worker_whose_answers_flow_is_alive_although_it_answers_no_question() -> None:
    async def flows(exchange: Exchange) -> None:
        await exchange.begin_events()
        while True:
            await exchange.event(0)
            await asyncio.sleep(0.05)

    busy, other = two(flows)
    other.behaviours[:] = [flows]
    async with serving(busy, other) as gateway:
        await watched(busy, other)
        streams = [asyncio.create_task(gateway.post(STREAM)) for _ in range(2)]
        await eventually(lambda: len(busy.asked) == len(other.asked) == 1, "both stream")
        busy.silent = True
        asked = other.load_asked
        await eventually(lambda: other.load_asked >= asked + 6, "longer than the time to answer has passed")
        assert await gateway.metric("endpoints", state="ready") == 2
        for one in streams:
            one.cancel()
        await asyncio.gather(*streams, return_exceptions=True)


async def test_a_worker_that_says_it_drains_gets_nothing_more() -> None:
    leaving, good = two()
    leaving.load = load(ready=False, draining=True)
    async with serving(leaving, good) as gateway:
        await watched(leaving, good)
        await eventually(
            lambda: any(one.load and one.load.draining for state in gateway.gateway._fleet for one in state.backends),
            "it said so",
        )
        before = len(leaving.asked)
        for _ in range(6):
            assert (await gateway.post(ASK)).status == 200
        assert len(leaving.asked) == before


async def test_workers_without_a_report_are_served_as_before_and_asked_seldom() -> None:
    old, other = FakeWorker(answers, name="chat-aa-1-a"), FakeWorker(answers, name="chat-aa-1-b")
    async with serving(old, other) as gateway:
        await watched(old, other)
        for _ in range(6):
            assert (await gateway.post(ASK)).status == 200
        assert len(old.asked) == len(other.asked) == 3
        assert old.load_asked == 1
        state = next(iter(gateway.gateway._fleet))
        assert state.slots is None


async def test_the_slots_of_a_service_are_those_of_the_workers_that_may_be_chosen() -> None:
    first, second = two()
    async with serving(first, second) as gateway:
        state = next(iter(gateway.gateway._fleet))
        await eventually(lambda: state.slots == 16, "both have told")
        first.silent = True
        await eventually(lambda: state.slots == 8, "the lost one does not count")
