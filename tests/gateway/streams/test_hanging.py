"""Workers that hold streams and hang: stopped processes, and engines that make no step behind a server that answers.

After what time a worker is suspected, and its streams are moved: `health/test_silence.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.health.load import Load, ProgressPolicy, StallPolicy, hung, stalled
from tests.gateway.harness import CHAT, Exchange, FakeWorker, Running, load, raw, request_bytes, service, serving
from tests.gateway.streams.scripted import ASK, N_TOKENS, assert_whole, tale_of, tells, two
from tests.waiting import eventually


def reporting(*workers: FakeWorker) -> None:
    for worker in workers:
        worker.load = load()


@asynccontextmanager
async def six_asked(hangs: Callable[[Exchange], Awaitable[None]]) -> AsyncIterator[tuple[Running, FakeWorker]]:
    """A gateway after six answers that are whole, and the worker that `hangs` before another that tells all."""
    bad, good = two(hangs)
    reporting(bad, good)
    async with serving(bad, good) as gateway:
        await eventually(lambda: bad.load_asked and good.load_asked, "both have told their load")
        for got in await asyncio.gather(*(gateway.post(ASK) for _ in range(6))):
            assert_whole(got)
        yield gateway, bad


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "stuck engine"])
async def test_the_streams_of_a_worker_that_hangs_go_on_elsewhere(stops: bool) -> None:
    async def hangs(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin()
        await tale.say(0, 5, 0.01)
        exchange.worker.silent = stops
        exchange.worker.load = load(running=1, stalled_s=0.7)
        await exchange.hang()

    async with six_asked(hangs) as (gateway, bad):
        assert len(bad.asked)
        assert await gateway.metric("moved_streams_total", reason="lost") == len(bad.asked)
        assert await gateway.metric("stream_gap_seconds_count") == len(bad.asked)
        await eventually(lambda: bad.left == len(bad.asked), "the hung worker's connections were left")


async def test_a_stream_that_waits_for_its_first_token_leaves_a_worker_under_suspicion() -> None:
    async def hangs(exchange: Exchange) -> None:
        await tale_of(exchange).begin()
        exchange.worker.load = load(running=1, stalled_s=0.7)
        await exchange.hang()

    async with six_asked(hangs) as (gateway, bad):
        assert bad.asked
        assert await gateway.metric("moved_streams_total") == 0, "it had not begun, so it began anew"


async def test_nobody_waits_for_a_connection_to_a_worker_that_was_lost() -> None:
    bad, good = two(tells)
    reporting(bad, good)
    async with serving(bad, good) as gateway:
        await eventually(lambda: bad.load_asked and good.load_asked, "both have told their load")
        state = gateway.gateway._fleet.get(CHAT)
        assert state is not None
        pool = state.backends[0].pool
        waiting: list[asyncio.Future[Any]] = []

        async def never() -> Any:
            waiting.append(asyncio.get_running_loop().create_future())
            await waiting[-1]

        pool.connect = never  # type: ignore[method-assign]  # as on a machine whose network is gone
        asking = [asyncio.create_task(gateway.post(ASK)) for _ in range(6)]
        await eventually(lambda: waiting, "a request waits for a connection")
        bad.silent = True
        for got in await asyncio.gather(*asking):
            assert_whole(got)
        assert all(one.cancelled() for one in waiting)
        assert bad.asked == []


@pytest.mark.parametrize(
    "told",
    [load(stalled_s=0.3), load(stalled_s=3.0, step={"kind": "prefill", "expected_s": 2.5}), None],
    ids=["moves", "a long prefill", "says nothing"],
)
async def test_a_worker_that_is_only_slow_keeps_its_streams(told: Any) -> None:
    goes_on = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin()
        await tale.say(0, 5)
        await goes_on.wait()
        await tale.say(5, N_TOKENS)
        await tale.end()

    bad, other = FakeWorker(slow, name="chat-r1-1-a"), FakeWorker(slow, name="chat-r1-1-b")
    bad.load = other.load = told
    async with serving(bad, other) as gateway:
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually(lambda: bad.asked or other.asked, "the stream has begun")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 1.5)
        goes_on.set()
        assert_whole(await asking)
        assert await gateway.metric("moved_streams_total") == 0


async def test_the_only_worker_keeps_its_streams_though_it_hangs() -> None:
    goes_on = asyncio.Event()

    async def stops(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin()
        await tale.say(0, 5)
        exchange.worker.silent = True
        await goes_on.wait()
        exchange.worker.silent = False
        await tale.say(5, N_TOKENS)
        await tale.end()

    worker, other = FakeWorker(stops, name="chat-r1-1-a"), FakeWorker(tells, name="chat-r2-1-a")
    reporting(worker, other)
    async with serving(worker) as gateway:
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually(lambda: worker.asked, "the stream has begun")
        await other.start()
        gateway.source.publish_services(service(worker, other))
        state = gateway.gateway._fleet.get(CHAT)
        assert state is not None
        await eventually(lambda: state.backends[0].loss, "it is believed to be lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.6)
        goes_on.set()
        assert_whole(await asking)
        assert other.asked == []
        await other.stop()


async def test_a_client_that_does_not_read_makes_no_worker_look_hung() -> None:
    async def floods(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin()
        while True:
            await exchange.chunk(b"data: %b\n\n:1\n\n" % (b"x" * 50_000))

    bad, good = FakeWorker(floods, name="chat-r1-1-a"), FakeWorker(tells, name="chat-r1-1-b")
    reporting(bad, good)
    async with serving(bad, good) as gateway, raw(gateway.port) as one, raw(gateway.port) as other:
        await one.send(request_bytes(ASK))
        await other.send(request_bytes(ASK))
        await eventually(lambda: bad.asked, "the stream has begun")
        n_before = bad.load_asked
        await eventually(lambda: bad.load_asked >= n_before + 8, "the silent worker was asked for its load")
        assert await gateway.metric("moved_streams_total") == 0


# --- the pure part ----------------------------------------------------------------------------------------------------


@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_streams_are_moved_before_a_worker_is_given_up_and_what_it_announced_is_waited_for(
    stalled_s: float, expected_s: float
) -> None:
    policy = StallPolicy()
    announced = Load(stalled_s=stalled_s, step_kind="prefill", expected_s=expected_s)
    silent = Load(stalled_s=stalled_s)
    assert stalled(silent, policy) == (stalled_s > policy.after_s)
    assert not stalled(announced, policy) or stalled_s > 2 * expected_s
    for told in (announced, silent):
        assert hung(told, ProgressPolicy()) is None or stalled(told, policy)
