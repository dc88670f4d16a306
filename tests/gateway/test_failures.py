"""Workers that die, drain, lie and hang, and clients that leave: what the gateway hides, and what it cannot."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace

import openai
import orjson
import pytest

from crds.contract import GATEWAY_PATH_ENDPOINTS
from gateway import proxy
from gateway.asked import RequestLimits
from tests.gateway.harness import (
    KEY,
    SETTINGS,
    Behaviour,
    Exchange,
    FakeWorker,
    Running,
    answers,
    catalog,
    delta,
    raw,
    request_bytes,
    running,
    service,
    serving,
    workers,
)
from tests.waiting import eventually, eventually_told

ASK = {"model": "chat", "messages": []}
STREAM = {**ASK, "stream": True}


async def closes_before_a_byte(exchange: Exchange) -> None:
    exchange.close()


async def resets_before_a_byte(exchange: Exchange) -> None:
    exchange.reset()


async def dies_in_the_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    exchange.close()


async def dies_in_the_body(exchange: Exchange) -> None:
    await exchange.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n" + b"{" * 400
    )
    exchange.close()


async def dies_in_a_chunk(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n{")
    exchange.reset()


async def speaks_garbage(exchange: Exchange) -> None:
    await exchange.send(b"\x00\x01 this is not HTTP\r\n\r\n")


async def sends_an_endless_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000)
    await exchange.hang()


async def drains(exchange: Exchange) -> None:
    await exchange.json(503, {"error": {"message": "draining"}}, x_foretide_draining="1")


async def loses_its_engine(exchange: Exchange) -> None:
    await exchange.json(500, {"error": {"message": "the engine ended"}}, x_foretide_engine_ended="true")


async def half_closes_before_a_byte(exchange: Exchange) -> None:
    exchange.half_close()


async def begins_a_stream_and_dies_before_the_first_event(exchange: Exchange) -> None:
    await exchange.begin_events()
    exchange.reset()


async def dies_in_the_first_event(exchange: Exchange) -> None:
    await exchange.begin_events()
    await exchange.chunk(b'data: {"id": "c1", "cho')
    exchange.close()


FATAL = [
    closes_before_a_byte,
    resets_before_a_byte,
    dies_in_the_head,
    dies_in_the_body,
    dies_in_a_chunk,
    speaks_garbage,
    sends_an_endless_head,
    drains,
    loses_its_engine,
    half_closes_before_a_byte,
]


@pytest.mark.parametrize("behaviour", FATAL)
async def test_whatever_happens_before_the_answer_is_whole_another_worker_answers(behaviour: Behaviour) -> None:
    bad, good = FakeWorker(behaviour, name="chat-bad-1-2"), FakeWorker(answers, name="chat-good-1-2")
    async with serving(bad, good) as gateway:
        for _ in range(4):
            got = await gateway.post(ASK)
            assert (got.status, got.headers["x-foretide-revision"]) == (200, "good")
        assert bad.asked, "the bad worker was never tried"
        assert await gateway.metric("retries_total") >= len(bad.asked), "it was asked again without a retry"


@pytest.mark.parametrize(
    "behaviour",
    [closes_before_a_byte, drains, begins_a_stream_and_dies_before_the_first_event, dies_in_the_first_event],
)
async def test_a_stream_that_has_not_begun_is_begun_elsewhere(behaviour: Behaviour) -> None:
    bad, good = FakeWorker(behaviour, name="chat-bad-1-2"), FakeWorker(answers, name="chat-good-1-2")
    async with (
        serving(bad, good) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as ai,
    ):
        for _ in range(3):
            stream = await ai.chat.completions.create(**STREAM)
            assert [chunk.choices[0].delta.content async for chunk in stream] == ["t0 ", "t1 ", "t2 "]
        assert bad.asked, "the bad worker was never tried"


async def test_the_only_worker_is_tried_again() -> None:
    worker = FakeWorker(resets_before_a_byte, dies_in_the_body, answers)
    async with serving(worker) as gateway:
        assert (await gateway.post(ASK)).status == 200
    assert len(worker.asked) == 3


async def test_a_worker_that_refuses_connections_is_passed_over() -> None:
    dead, good = FakeWorker(answers, name="chat-bad-1-2"), FakeWorker(answers, name="chat-good-1-2")
    async with serving(dead, good) as gateway:
        await dead.stop()
        for _ in range(6):
            assert (await gateway.post(ASK)).headers["x-foretide-revision"] == "good"
        # A request met it, or the question for its load did, whichever came first.
        met = await gateway.metric("upstream_connect_errors_total")
        assert met + await gateway.metric("losses_total", evidence="refused") >= 1


async def test_an_idle_connection_that_the_worker_closed_costs_no_retry() -> None:
    async def answers_and_closes(exchange: Exchange) -> None:
        await answers(exchange)
        exchange.close()

    worker = FakeWorker(answers_and_closes)
    async with serving(worker) as gateway:
        for _ in range(10):
            assert (await gateway.post(ASK)).status == 200
        assert await gateway.metric("retries_total") == 0


async def with_idle_connections(gateway: Running, worker: FakeWorker, count: int) -> None:
    """The gateway has so many to the worker, each of which has carried an answer."""
    worker.behaviours = [answers_together(count)]
    assert {one.status for one in await asyncio.gather(*(gateway.post(ASK) for _ in range(count)))} == {200}


def answers_together(count: int) -> Behaviour:
    everybody = asyncio.Barrier(count)

    async def answers_with_the_others(exchange: Exchange) -> None:
        await everybody.wait()
        await answers(exchange)

    return answers_with_the_others


async def test_what_is_lost_at_once_on_an_idle_connection_is_repeated_once_and_on_a_new_one() -> None:
    worker = FakeWorker()
    async with serving(worker) as gateway:
        await with_idle_connections(gateway, worker, 4)
        worker.behaviours = [closes_before_a_byte, closes_before_a_byte, closes_before_a_byte, answers]
        assert (await gateway.post(ASK)).status == 200
        assert await gateway.metric("retries_total", reason="closed") == 1
        assert len(worker.asked) == 4 + 4


async def test_idle_connections_that_three_workers_closed_are_no_deaths_after_another_one_drains() -> None:
    fleet = [FakeWorker(name=f"chat-abc12-7f-x{number}") for number in range(4)]
    together, asked = answers_together(len(fleet)), list[FakeWorker]()

    async def drains_if_it_is_the_first(exchange: Exchange) -> None:
        asked.append(exchange.worker)
        await (drains if len(asked) == 1 else closes_before_a_byte)(exchange)

    async with serving(*fleet) as gateway:
        for one in fleet:
            one.behaviours = [together]
        await asyncio.gather(*(gateway.post(ASK) for _ in fleet))
        assert [one.connections for one in fleet] == [1] * len(fleet)
        for one in fleet:
            one.behaviours = [drains_if_it_is_the_first, answers]
        assert (await gateway.post(ASK)).status == 200
        assert await gateway.metric("retries_total", reason="draining") == 1
        assert await gateway.metric("retries_total", reason="closed") == 0


async def test_what_is_lost_on_an_idle_connection_after_a_while_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "STALE_S", 0.05)

    async def works_and_closes(exchange: Exchange) -> None:
        await asyncio.sleep(0.1)
        exchange.close()

    worker = FakeWorker()
    async with serving(worker) as gateway:
        await with_idle_connections(gateway, worker, 2)
        worker.behaviours = [works_and_closes, answers]
        assert (await gateway.post(ASK)).status == 200
        assert await gateway.metric("retries_total", reason="closed") == 1


async def test_ten_workers_that_take_no_request_end_it_with_502_and_retry_after() -> None:
    fleet = [FakeWorker(drains, name=f"chat-abc12-7f-x{number}") for number in range(10)]
    async with serving(*fleet) as gateway:
        got = await gateway.post(ASK)
    assert (got.status, got.error["code"]) == (502, "upstream_failed")
    assert int(got.headers["retry-after"]) > 0
    assert [len(one.asked) for one in fleet] == [1] * 10


@pytest.mark.parametrize("behaviour", [closes_before_a_byte, resets_before_a_byte, dies_in_the_body, speaks_garbage])
@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_a_request_that_kills_its_workers_is_given_to_three_and_no_more(
    behaviour: Behaviour, body: dict[str, object]
) -> None:
    fleet = [FakeWorker(behaviour, name=f"chat-abc12-7f-x{number}") for number in range(6)]
    async with serving(*fleet) as gateway:
        got = await gateway.post(body)
    assert (got.status, got.error["code"]) == (502, "upstream_failed")
    assert "3 workers ended while they had this request" in got.error["message"]
    assert sum(len(one.asked) for one in fleet) == 3


async def test_a_worker_that_takes_no_new_connection_after_it_lost_an_idle_one_has_died() -> None:
    worker = FakeWorker()

    async def dies(exchange: Exchange) -> None:
        assert worker._server is not None
        worker._server.close()
        exchange.close()

    async with serving(worker) as gateway:
        await with_idle_connections(gateway, worker, 1)
        worker.behaviours = [dies]
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually_told(lambda: gateway.metric("retries_total", reason="closed"), "the worker's end is counted")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("status", [299, 520, 999])
async def test_a_status_that_nobody_knows_is_passed_on(status: int) -> None:
    async def answers_oddly(exchange: Exchange) -> None:
        await exchange.json(status, {"odd": True})

    async with serving(FakeWorker(answers_oddly)) as gateway:
        got = await gateway.post(ASK)
        assert (got.status, got.json) == (status, {"odd": True})


@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_a_worker_that_answers_nothing_at_all_is_not_taken_for_the_quickest(body: dict[str, object]) -> None:
    async def says_nothing(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with serving(FakeWorker(says_nothing)) as gateway:
        got = await gateway.post(body)
        assert (got.status, got.body) == (200, b"")
        (state,) = gateway.gateway._fleet
        latency_s = state.backends[0].latency_s
        assert latency_s is not None
        assert latency_s >= 0.0


async def test_a_killed_pod_under_load_loses_no_request() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)  # a worker that takes its time
        await answers(exchange)

    pods = [FakeWorker(slow, name=f"chat-r{number}-1-2") for number in range(3)]
    async with serving(*pods) as gateway:
        stop = asyncio.Event()
        statuses: list[int] = []

        async def client() -> None:
            while not stop.is_set():
                statuses.append((await gateway.post(ASK)).status)

        clients = [asyncio.create_task(client()) for _ in range(24)]
        await eventually(lambda: len(statuses) > 100, "100 requests were answered")
        await pods[0].stop()
        await eventually(lambda: len(statuses) > 300, "300 requests were answered")
        gateway.source.publish_services(service(*pods[1:]))
        await eventually(lambda: len(statuses) > 500, "500 requests were answered")
        stop.set()
        await asyncio.gather(*clients)
    assert set(statuses) == {200}


# --- streams that break midway ----------------------------------------------------------------------------------------


async def test_a_stream_broken_midway_ends_with_an_error_event_and_no_half_event() -> None:
    async def dies(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.event(0)
        await exchange.chunk(b'data: {"half": ')
        relays = gateway.gateway._proxy._relays
        await eventually(lambda: any(one._events.tail for one in relays), "the gateway has the half of an event")
        exchange.reset()

    worker = FakeWorker(dies)
    async with serving(worker) as gateway:
        got = await gateway.post(STREAM)
        assert got.status == 200
        first, error, rest = got.body.split(b"\n\n")
        assert orjson.loads(first.removeprefix(b"data: ")) == delta("t0 ")
        assert orjson.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
        assert rest == b""
        assert await gateway.metric("broken_streams_total") == 1
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as ai:
            stream = await ai.chat.completions.create(**STREAM)
            with pytest.raises(openai.APIError, match="worker was lost"):
                async for _ in stream:
                    pass


async def test_events_cut_anywhere_arrive_whole_and_in_order() -> None:
    async def cuts(exchange: Exchange) -> None:
        await exchange.begin_events()
        text = b"".join(b"data: %b\n\n" % orjson.dumps(delta(f"t{number} ")) for number in range(20))
        for start in range(0, len(text), 7):
            await exchange.chunk(text[start : start + 7])
            if start % 5 == 0:
                await asyncio.sleep(0.001)  # so that what was cut is read in pieces too
        await exchange.end_events()

    async with (
        serving(FakeWorker(cuts)) as gateway,
        gateway.session.post(
            f"{gateway.url}/v1/chat/completions", json=STREAM, headers={"Authorization": f"Bearer {KEY}"}
        ) as response,
    ):
        pieces = [data async for data, _ in response.content.iter_chunks()]
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    events = b"".join(pieces).split(b"\n\n")
    texts = [orjson.loads(one[6:])["choices"][0]["delta"]["content"] for one in events[:-2]]
    assert texts == [f"t{number} " for number in range(20)]


async def test_an_answer_too_large_to_hold_back_passes_and_is_cut_when_its_worker_dies() -> None:
    megabyte = b"x" * (1 << 20)

    async def large(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (20 << 20))
        for _ in range(20):
            await exchange.send(megabyte)

    async def large_and_dies(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (20 << 20))
        for _ in range(12):
            await exchange.send(megabyte)
        exchange.close()

    async with serving(FakeWorker(large, large_and_dies)) as gateway:
        assert len((await gateway.post(ASK)).body) == 20 << 20
        with pytest.raises(Exception, match=r"payload|reset|closed|disconnected"):
            await gateway.post(ASK)


# --- clients that leave, or read slowly -------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_a_client_that_leaves_ends_the_work(body: dict[str, object]) -> None:
    async def never_ends(exchange: Exchange) -> None:
        if exchange.asked.body == orjson.dumps(STREAM):
            await exchange.begin_events()
            while True:
                await exchange.event(0)
                await asyncio.sleep(0.01)  # between two tokens
        await exchange.hang()

    worker = FakeWorker(never_ends)
    async with serving(worker) as gateway:
        async with raw(gateway.port) as client:
            await client.send(request_bytes(body))
            await eventually(lambda: worker.asked, "the worker was asked")
        await eventually(lambda: worker.left == 1, "the worker saw the client leave")
        assert await gateway.metric("in_flight") == 0
        assert await gateway.metric("open_streams") == 0
        assert await gateway.metric("requests_total", code="499") == 1


async def test_a_slow_reader_holds_its_worker_back_and_costs_bounded_memory() -> None:
    sent = 0

    async def floods(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin_events()
        while True:
            await exchange.chunk(b"data: %b\n\n" % (b"x" * 10_000))
            sent += 10_000

    worker = FakeWorker(floods)
    async with serving(worker) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(STREAM))
        await eventually(lambda: sent > 0, "the stream has begun")
        (relay,) = gateway.gateway._proxy._relays

        def is_full() -> bool:
            return relay._connection._paused and not all(line.writable.is_set() for line in worker.lines)

        most = 30_000_000
        await eventually(lambda: sent > most or is_full(), "the full pipe stops the worker too")
        assert sent < most
        previous = sent
        assert (await gateway.post({"model": "nobody"})).status == 404, "others are served meanwhile"
        received = 0
        while received < previous + 1_000_000:
            received += len(await client.reader.read(1 << 16))
            assert sent - received < most
        assert sent > previous, "the worker goes on when the client reads"


async def test_whoever_reads_a_whole_answer_slowly_holds_up_nobody_who_comes_after_it_at_its_worker() -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.json(200, "x" * 7_500_000)

    worker = FakeWorker(large, answers)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        async with serving(worker) as gateway:
            slow.connect(("127.0.0.1", gateway.port))
            slow.sendall(request_bytes(ASK))
            (state,) = gateway.gateway._fleet
            await eventually(lambda: state.backends[0].pool.idle_connections, "the worker has answered")
            (connection,) = gateway.gateway._listener._shared.connections
            assert connection._transport.get_write_buffer_size() > 0, "and its client has not read that"
            assert (await gateway.post(ASK)).status == 200
            assert worker.connections == 1


async def test_a_client_that_reads_nothing_for_too_long_is_cut_off() -> None:
    async def floods(exchange: Exchange) -> None:
        await exchange.begin_events()
        while True:
            await exchange.chunk(b"data: %b\n\n" % (b"x" * 10_000))

    worker = FakeWorker(floods)
    impatient = replace(SETTINGS, limits=replace(SETTINGS.limits, write_stall_timeout_s=0.5))
    async with serving(worker, settings=impatient) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(STREAM))
        await eventually(lambda: worker.left == 1, "the worker was released")


# --- nobody ready -----------------------------------------------------------------------------------------------------


async def test_a_request_waits_for_a_worker_to_become_ready() -> None:
    worker = FakeWorker(answers)
    async with workers(worker), running(catalog(service())) as gateway:
        asking = asyncio.create_task(gateway.post(ASK))
        gateway.source.publish_services(replace(service(worker), endpoints=(worker.endpoint(ready=False),)))
        await eventually(lambda: gateway.gateway._proxy.in_flight == 1, "the request waits")
        assert not asking.done()
        gateway.source.publish_services(service(worker))
        assert (await asking).status == 200


async def test_without_a_worker_the_wait_ends_in_503_with_retry_after() -> None:
    brief = replace(SETTINGS, requests=RequestLimits(wait_s=0.3))
    async with running(catalog(service()), brief) as gateway:
        started_s = time.monotonic()
        got = await gateway.post(ASK)
    assert (got.status, got.error["code"], got.headers["retry-after"]) == (503, "no_endpoint", "5")
    assert "0 endpoints" in got.error["message"]
    assert 0.25 < time.monotonic() - started_s < 5


async def test_a_service_deleted_while_a_request_waits_for_it_is_404() -> None:
    async with running(catalog(service())) as gateway:
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually(lambda: gateway.gateway._proxy.in_flight == 1, "the request waits")
        gateway.source.publish_services()
        assert (await asking).status == 404


async def test_terminating_and_unready_endpoints_get_nothing() -> None:
    leaving, loading, good = (FakeWorker(answers, name=f"chat-{name}-1-2") for name in ("leaving", "loading", "good"))
    async with serving(leaving, loading, good) as gateway:
        endpoints = (leaving.endpoint(terminating=True), loading.endpoint(ready=False), good.endpoint())
        gateway.source.publish_services(replace(service(good), endpoints=endpoints))
        for _ in range(10):
            assert (await gateway.post(ASK)).headers["x-foretide-revision"] == "good"
    assert leaving.asked == loading.asked == []


async def test_a_draining_worker_is_left_alone_before_the_cluster_says_so() -> None:
    leaving, good = FakeWorker(drains, name="chat-leaving-1-2"), FakeWorker(answers, name="chat-good-1-2")
    async with serving(leaving, good) as gateway:
        for _ in range(20):
            assert (await gateway.post(ASK)).status == 200
        assert await gateway.metric("endpoints", state="draining") == 1
        assert await gateway.metric("ejections_total") == 0
    assert len(leaving.asked) == 1


async def test_a_failing_worker_is_ejected_and_the_last_one_never_is() -> None:
    bad = FakeWorker(resets_before_a_byte, name="chat-bad-1-2")
    good = FakeWorker(answers, name="chat-good-1-2")
    async with serving(bad, good) as gateway:
        for _ in range(20):
            assert (await gateway.post(ASK)).status == 200
        assert await gateway.metric("endpoints", state="ejected") == 1
        assert len(bad.asked) == 3
        good.behaviours[:] = [resets_before_a_byte] * 4 + [answers]
        assert [(await gateway.post(ASK)).status for _ in range(2)] == [502, 200]
        assert await gateway.metric("endpoints", state="ejected") == 1


async def test_the_deadline_ends_a_request_and_its_work() -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.hang()

    async def begins_and_hangs(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.event(0)
        await exchange.hang()

    worker = FakeWorker(hangs, begins_and_hangs)
    short = replace(SETTINGS, requests=RequestLimits(deadline_s=0.5))
    async with serving(worker, settings=short) as gateway:
        got = await gateway.post(ASK)
        assert (got.status, got.error["code"]) == (504, "deadline_exceeded")
        got = await gateway.post(STREAM)
        assert got.status == 200
        assert b"deadline_exceeded" in got.body
        await eventually(lambda: worker.left == 2, "the worker was released")


async def test_a_client_that_gives_too_little_time_speaks_against_no_worker() -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.hang()

    hurried = {"x-request-timeout": "0.05"}
    async with serving(FakeWorker(hangs), FakeWorker(hangs)) as gateway:
        got = await asyncio.gather(*(gateway.post(ASK, headers=hurried) for _ in range(12)))
        assert {one.status for one in got} == {504}
        assert await gateway.metric("ejections_total") == 0
        (state,) = gateway.gateway._fleet
        assert [one.errors for one in state.backends] == [0.0, 0.0]


async def test_the_gateway_serves_on_while_its_source_is_silent() -> None:
    async with serving(FakeWorker(answers)) as gateway:
        gateway.source.age_s = 3600.0
        assert (await gateway.post(ASK)).status == 200
        assert (await gateway.get("/health/ready", admin=True)).status == 200
        assert await gateway.metric("catalog_age_seconds") == 3600.0


async def test_what_is_held_against_a_worker_is_told_on_the_admin_port() -> None:
    bad, good = FakeWorker(resets_before_a_byte), FakeWorker(answers)
    async with workers(bad, good), running(catalog(service(bad, good))) as gateway:
        assert (await gateway.get(GATEWAY_PATH_ENDPOINTS, admin=True)).json == {}

        async def held() -> dict[str, dict[str, object]]:
            await gateway.post(ASK)
            told: dict[str, dict[str, dict[str, object]]] = (await gateway.get(GATEWAY_PATH_ENDPOINTS, admin=True)).json
            return told.get("demo/chat", {})

        found: dict[str, dict[str, object]] = {}
        for _ in range(200):
            found = await held()
            if found:
                break
        (said,) = found.values()
        assert said["state"] in ("ejected", "returning")
        assert (said["reason"], said["times"]) == ("Ejected", 1)
        assert "3 failures in a row" in str(said["message"])
