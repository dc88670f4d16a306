"""Streams whose worker is lost midway: the client gets every token once, from whoever is left."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import orjson
import pytest

from gateway.asked import RequestLimits
from gateway.http1.limits import MIB
from gateway.streams.journal import StreamLimits
from tests.gateway.harness import (
    SETTINGS,
    Exchange,
    FakeWorker,
    catalog,
    raw,
    request_bytes,
    running,
    service,
    serving,
    workers,
)
from tests.gateway.streams.scripted import (
    ASK,
    N_TOKENS,
    Loss,
    Tale,
    assert_whole,
    loses,
    tale_of,
    tells,
    two,
)
from tests.waiting import eventually


async def resets(tale: Tale) -> None:
    tale.exchange.reset()


async def closes_in_an_event(tale: Tale) -> None:
    await tale.exchange.chunk(tale.unit(tale.n_said + 5)[:30])
    tale.exchange.close()


async def closes_between_an_event_and_its_comment(tale: Tale) -> None:
    await tale.exchange.chunk(tale.unit(tale.n_said + 5).partition(b"\n:")[0] + b"\n")
    tale.exchange.close()


async def closes_in_a_comment(tale: Tale) -> None:
    await tale.exchange.chunk(tale.unit(tale.n_said + 5)[:-2])
    tale.exchange.close()


async def ends_without_the_last_word(tale: Tale) -> None:
    await tale.exchange.send(b"0\r\n\r\n")


async def speaks_garbage(tale: Tale) -> None:
    await tale.exchange.send(b"zzz this is no chunk\r\n")


async def drains(tale: Tale) -> None:
    await tale.exchange.chunk(b'data: {"error": "leaving"}\n\n:!draining\n\n')
    await tale.exchange.send(b"0\r\n\r\n")


async def says_its_engine_failed(tale: Tale) -> None:
    await tale.exchange.chunk(b'data: {"error": "engine"}\n\n:!engine_failed\n\n')
    await tale.exchange.send(b"0\r\n\r\n")


LOSSES = {
    resets: "closed",
    closes_in_an_event: "closed",
    closes_between_an_event_and_its_comment: "closed",
    closes_in_a_comment: "closed",
    ends_without_the_last_word: "closed",
    speaks_garbage: "malformed",
    drains: "left",
    says_its_engine_failed: "left",
}


@pytest.mark.parametrize(("loss", "reason"), LOSSES.items(), ids=lambda one: getattr(one, "__name__", ""))
async def test_however_a_worker_is_lost_another_one_goes_on(loss: Loss, reason: str) -> None:
    bad, good = two(loses(loss))
    async with serving(bad, good) as gateway:
        for _ in range(4):
            assert_whole(await gateway.post(ASK))
        n_lost = len(bad.asked)
        assert n_lost, "the bad worker was never tried"
        assert await gateway.metric("moved_streams_total", reason=reason) == n_lost
        assert await gateway.metric("stream_gap_seconds_count") == n_lost
        assert await gateway.metric("broken_streams_total") == 0
        assert await gateway.metric("journal_bytes") == 0
        assert await gateway.metric("output_tokens_total") == 4 * N_TOKENS
        assert await gateway.metric("input_tokens_total") == 4 * 7


async def test_a_stream_is_moved_as_often_as_it_takes() -> None:
    pods = [FakeWorker(loses(resets, after=2), name=f"chat-r1-1-{number}") for number in range(3)]
    async with serving(*pods) as gateway:
        assert_whole(await gateway.post(ASK))
        assert await gateway.metric("moved_streams_total") == 9, "after 2, 4, … 18 tokens"
    assert all(len(pod.asked) >= 2 for pod in pods)


async def test_the_only_worker_takes_its_stream_up_again_when_it_is_back() -> None:
    worker = FakeWorker(loses(resets), tells)
    async with serving(worker) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(ASK))
        await eventually(lambda: len(worker.asked) == 1, "the stream has begun")
        port = worker.port
        await worker.stop()
        asking = asyncio.create_task(client.response())
        await asyncio.sleep(0.5)
        assert not asking.done()
        await worker.start(port)
        assert_whole(await asking)


async def test_a_stream_waits_for_a_new_pod_of_its_revision_and_takes_none_of_another() -> None:
    old, other, new = (
        FakeWorker(loses(resets), name="chat-r1-1-a"),
        FakeWorker(tells, name="chat-r2-1-a"),
        FakeWorker(tells, name="chat-r1-1-b"),
    )
    async with serving(old) as gateway:
        await other.start()
        await new.start()
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually(lambda: len(old.asked) == 1, "the stream has begun")
        gateway.source.publish_services(service(other))
        await asyncio.sleep(0.6)
        assert not asking.done()
        gateway.source.publish_services(service(other, new))
        assert_whole(await asking)
        assert other.asked == []
        await other.stop()
        await new.stop()


async def test_without_another_worker_the_stream_ends_with_a_clear_error_in_time() -> None:
    worker = FakeWorker(loses(resets))
    brief = replace(SETTINGS, requests=RequestLimits(wait_s=0.4))
    async with serving(worker, settings=brief) as gateway:

        async def dies(tale: Tale) -> None:
            tale.exchange.reset()
            gateway.source.publish_services(service())

        worker.behaviours = [loses(dies)]
        started_s = time.monotonic()
        got = await gateway.post(ASK)
        assert time.monotonic() - started_s < 5
        last = got.body.split(b"\n\n")[-2]
        assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "no_endpoint"
        assert await gateway.metric("broken_streams_total") == 1
        assert await gateway.metric("journal_bytes") == 0


@pytest.mark.parametrize("status", [400, 409, 500])
async def test_a_continuation_that_is_refused_ends_with_an_error_and_never_with_other_text(status: int) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.json(status, {"error": {"message": "no"}})

    async def begins_anew(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin("ffff")
        await tale.say(0, N_TOKENS)

    worker = FakeWorker(loses(resets), refuses, begins_anew, refuses)
    async with serving(worker) as gateway:
        got = await gateway.post(ASK)
        *events, error, _ = got.body.split(b"\n\n")
        assert len(events) == 5
        assert orjson.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
    assert 2 <= len(worker.asked) <= 8


async def test_an_engine_that_fails_everywhere_has_the_last_word() -> None:
    worker = FakeWorker(loses(says_its_engine_failed), loses(says_its_engine_failed, after=0))
    async with serving(worker) as gateway:
        got = await gateway.post(ASK)
        assert got.body.endswith(b'data: {"error": "engine"}\n\n')
        assert got.body.count(b"data:") == 6
    assert len(worker.asked) == 7


async def test_a_stream_whose_worker_promises_no_journal_is_told_of_its_loss() -> None:
    async def plain(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.event(0)
        exchange.reset()

    async with serving(FakeWorker(plain)) as gateway:
        got = await gateway.post(ASK)
    assert b"The worker was lost in the middle of the stream." in got.body


async def test_whoever_wants_no_journals_asks_for_none() -> None:
    async def checks(exchange: Exchange) -> None:
        assert "x-foretide-stream" not in exchange.asked.headers
        await exchange.begin_events()
        await exchange.end_events()

    worker = FakeWorker(checks)
    async with serving(worker, settings=replace(SETTINGS, streams=StreamLimits(journal_bytes=0))) as gateway:
        assert (await gateway.post(ASK)).status == 200


async def test_units_cut_anywhere_arrive_whole_and_without_comments() -> None:
    async def cuts(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin()
        text = b"".join(tale.unit(at) for at in range(N_TOKENS)) + b"data: [DONE]\n\n:.\n\n"
        for start in range(0, len(text), 7):
            await exchange.chunk(text[start : start + 7])
            if start % 5 == 0:
                await asyncio.sleep(0)
        await exchange.send(b"0\r\n\r\n")

    async with serving(FakeWorker(cuts)) as gateway:
        assert_whole(await gateway.post(ASK))


# --- bounded ----------------------------------------------------------------------------------------------------------


async def test_a_stream_without_room_for_its_journal_goes_on_and_only_cannot_be_moved() -> None:
    bad, _ = two(loses(resets, after=10))
    small = replace(SETTINGS, streams=StreamLimits(journal_bytes=100))
    async with serving(bad, settings=small) as gateway:
        assert (await gateway.post(ASK)).body.count(b"data:") == 11
        bad.behaviours = [tells]
        assert_whole(await gateway.post(ASK))
        assert await gateway.metric("output_tokens_total") == N_TOKENS
        assert await gateway.metric("journal_bytes") == 0


async def test_a_worker_that_never_ends_its_comment_costs_bounded_memory_and_nobody_else() -> None:
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        tale = tale_of(exchange)
        await tale.begin()
        await tale.say(0, 1)
        while True:
            await exchange.chunk(b"x" * 65536)
            sent += 65536

    worker, good = FakeWorker(endless, name="chat-r1-1-a"), FakeWorker(tells, name="chat-r1-1-b")
    async with workers(good), serving(worker) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(ASK))
        await eventually(lambda: sent > 3 * MIB, "it is passed on after a while")
        gateway.source.publish_services(service(worker, good))
        assert_whole(await gateway.post(ASK))
        assert await gateway.metric("journal_bytes") < MIB
        while not (await client.reader.read(1 << 16)).count(b"x" * 1000):
            pass


async def test_a_client_that_leaves_amid_a_move_leaves_nothing_behind() -> None:
    async def waits(tale: Tale) -> None:
        tale.exchange.reset()
        gateway.source.publish_services(service())

    worker = FakeWorker(loses(waits))
    async with serving(worker) as gateway:
        async with raw(gateway.port) as client:
            await client.send(request_bytes(ASK))
            await client.reader.readuntil(b"data:")
            await eventually(lambda: gateway.source.catalog.services[service().key].endpoints == (), "it is lost")
        await eventually(lambda: gateway.gateway._proxy.in_flight == 0, "the request has ended")
        assert await gateway.metric("journal_bytes") == 0
        assert await gateway.metric("open_streams") == 0


async def test_a_slow_reader_is_held_back_across_a_move() -> None:
    """Both workers flood; the gateway holds no more than its pipes, and the client still gets all of it, in order."""
    n_tokens, text = 3000, b"y" * 5000

    def unit(tale: Tale, at: int) -> bytes:
        return b"data: %d %b\n\n:%d\n\n" % (at, text, tale.token(at))

    async def floods(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin()
        for at in range(tale.n_said, n_tokens):
            await exchange.chunk(unit(tale, at))
            if at == n_tokens // 2 and not tale.continues:
                exchange.reset()
                return
        await tale.end()

    pods = [FakeWorker(floods, name=f"chat-r1-1-{number}") for number in range(2)]
    async with serving(*pods) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(ASK))
        await eventually(lambda: sum(len(pod.asked) for pod in pods) == 1, "it has begun")
        await asyncio.sleep(0.3)
        got = await client.response()
        numbers = [int(event.split()[1]) for event in got.body.split(b"\n\n")[:-2]]
        assert numbers == list(range(n_tokens))


async def test_draining_gateways_let_streams_move_and_end() -> None:
    may_go = asyncio.Event()

    async def resets_then(tale: Tale) -> None:
        await may_go.wait()
        tale.exchange.reset()

    pods = [FakeWorker(loses(resets_then), loses(resets_then), tells, name=f"chat-r1-1-{n}") for n in range(2)]
    async with serving(*pods) as gateway:
        asking = [asyncio.create_task(gateway.post(ASK)) for _ in range(4)]
        await eventually(lambda: gateway.gateway._proxy.in_flight == 4, "all streams are open")
        draining = asyncio.create_task(gateway.gateway.drain())
        await asyncio.sleep(0)
        may_go.set()
        for got in await asyncio.gather(*asking):
            assert_whole(got)
        await draining
        assert await gateway.metric("moved_streams_total") >= 4


async def test_streams_without_a_catalog_entry_end() -> None:
    worker = FakeWorker(loses(resets))
    async with running(catalog(service())) as gateway:
        await worker.start()
        gateway.source.publish_services(service(worker))

        async def deleted(tale: Tale) -> None:
            gateway.source.publish_services()
            tale.exchange.reset()

        worker.behaviours = [loses(deleted)]
        got = await gateway.post(ASK)
        assert b"error" in got.body.split(b"\n\n")[-2]
        await worker.stop()
