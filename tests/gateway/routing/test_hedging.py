"""A second attempt beside a late first one: the quicker wins, and the client sees one answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from gateway import sweeping
from gateway.admission.terms import Priority
from gateway.hedging import FirstTokens
from gateway.http1.server import ServerConnection
from tests.gateway.harness import Behaviour, Exchange, FakeWorker, Running, answers, service, serving
from tests.waiting import eventually

STREAM: dict[str, Any] = {"model": "chat", "messages": [], "stream": True}


@pytest.fixture(autouse=True)
def none_is_an_outlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment makes one worker look slower than its equals, and out it goes."""
    monkeypatch.setattr(sweeping, "OUTLIERS", replace(sweeping.OUTLIERS, slower_by_s=1e6))


async def hangs(exchange: Exchange) -> None:
    await exchange.hang()


def two() -> list[FakeWorker]:
    return [FakeWorker(answers, name=f"chat-a-1-{number}") for number in range(2)]


def in_order(workers: list[FakeWorker], first: Behaviour, then: Behaviour) -> list[FakeWorker]:
    """From now on whoever is asked first behaves in one way, all after it in the other. Who was asked so far."""
    asked: list[FakeWorker] = []

    async def either(exchange: Exchange) -> None:
        asked.append(exchange.worker)
        await (first if len(asked) == 1 else then)(exchange)

    for one in workers:
        one.behaviours[:] = [either]
    return asked


async def warmed(gateway: Running, workers: list[FakeWorker], priority: Priority = Priority.P0) -> None:
    """Enough answers to know which one is late."""
    gateway.source.publish_services(replace(service(*workers), priority=priority))
    for _ in range(24):
        assert (await gateway.post(STREAM)).status == 200


def test_late_is_what_one_in_twenty_was_slower_than_and_unknown_before_twenty() -> None:
    seen = FirstTokens()
    for number in range(19):
        seen.add(number / 100)
    assert seen.late_s is None
    for number in range(19, 100):
        seen.add(number / 100)
    assert seen.late_s == pytest.approx(0.93, abs=0.05)


async def test_a_late_stream_is_answered_by_the_second_worker_and_the_first_is_released() -> None:
    workers = two()
    async with serving(*workers) as gateway:
        await warmed(gateway, workers)
        for one in workers:
            one.left = 0
        asked = in_order(workers, hangs, answers)
        got = await gateway.post(STREAM)
        assert len(set(asked)) == 2
        assert got.status == 200
        assert got.body.count(b"data: ") == 4
        await eventually(lambda: sum(one.left for one in workers) == 1, "the slow one was released")
        assert await gateway.metric("hedges_total") >= 1
        assert await gateway.metric("in_flight") == 0
        assert await gateway.metric("ejections_total") == 0


async def test_without_the_class_for_it_nothing_is_tried_twice() -> None:
    workers = two()
    async with serving(*workers) as gateway:
        await warmed(gateway, workers, priority=Priority.P1)
        assert sum(len(one.asked) for one in workers) == 24
        assert await gateway.metric("hedges_total") == 0


async def test_an_error_of_the_second_does_not_spoil_the_first() -> None:
    release = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await release.wait()
        await answers(exchange)

    async def full(exchange: Exchange) -> None:
        await exchange.json(503, {"error": {"message": "full"}})

    workers = two()
    async with serving(*workers) as gateway:
        await warmed(gateway, workers)
        asked = in_order(workers, late, full)
        asking = asyncio.create_task(gateway.post(STREAM))
        await eventually(lambda: len(asked) == 2, "both were asked")
        release.set()
        got = await asking
        assert got.status == 200, "the second was full"
        assert got.body.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_leaves_ends_both() -> None:
    workers = two()
    async with serving(*workers) as gateway:
        await warmed(gateway, workers)
        for one in workers:
            one.asked.clear()
            one.left = 0
            one.behaviours[:] = [hangs]
        asking = asyncio.create_task(gateway.post(STREAM))
        await eventually(lambda: all(one.asked for one in workers), "both were asked")
        asking.cancel()
        await eventually(lambda: all(one.left for one in workers), "both were released")
        assert await gateway.metric("in_flight") == 0


async def test_the_worker_that_is_left_of_two_is_the_one_that_a_slow_client_holds_up() -> None:
    release, ending = asyncio.Event(), asyncio.Event()

    async def gives_up(exchange: Exchange) -> None:
        await release.wait()
        await exchange.json(503, {}, x_foretide_draining="true")

    async def goes_on(exchange: Exchange) -> None:
        await exchange.begin_events()
        await ending.wait()
        await exchange.event(0)
        await exchange.end_events()

    workers = two()
    async with serving(*workers) as gateway:
        await warmed(gateway, workers)
        asked = in_order(workers, gives_up, goes_on)
        asking = asyncio.create_task(gateway.post(STREAM))
        await eventually(lambda: len(asked) == 2, "both were asked")
        relays = gateway.gateway._proxy._relays
        release.set()
        await eventually(lambda: len(relays) == 1, "the first has given up")
        (relay,) = relays
        assert relay.backend.endpoint.pod == asked[1].name
        assert cast(ServerConnection, relay._reply)._flow is relay._connection
        ending.set()
        assert (await asking).status == 200


async def test_two_workers_that_die_with_the_same_request_are_two_deaths_and_neither_is_asked_again() -> None:
    release = asyncio.Event()

    async def dies(exchange: Exchange) -> None:
        await release.wait()
        await exchange.send(b"this is not HTTP\r\n\r\n")

    workers = [FakeWorker(answers, name=f"chat-a-1-{number}") for number in range(3)]
    async with serving(*workers) as gateway:
        await warmed(gateway, workers)
        for one in workers:
            one.asked.clear()
            one.behaviours[:] = [dies]
        asking = asyncio.create_task(gateway.post(STREAM))
        await eventually(lambda: sum(len(one.asked) for one in workers) == 2, "two were asked")
        release.set()
        got = await asking
        assert (got.status, got.error["code"]) == (502, "upstream_failed")
        assert [len(one.asked) for one in workers] == [1, 1, 1]
