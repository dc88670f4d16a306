"""The protocol's edges: malformed, slow, huge and pipelined requests, each held to its bound without harm to others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.asked import RequestLimits
from gateway.errors import SettingsError, Unauthenticated, answer_for
from gateway.http1.client import UpstreamConnection
from gateway.http1.limits import MIB, Limits
from gateway.http1.server import ServerConnection
from gateway.settings import Settings, parse
from tests.gateway.harness import (
    KEY,
    SETTINGS,
    Exchange,
    FakeWorker,
    Running,
    answers,
    raw,
    request_bytes,
    serving,
)
from tests.waiting import eventually

ASK = {"model": "chat", "messages": []}
AUTH = f"Authorization: Bearer {KEY}\r\n".encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + AUTH


def limited(**limits: float) -> Settings:
    return replace(SETTINGS, limits=replace(Limits(), **limits))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),  # TLS on a plain port
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),  # request smuggling
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (POST + b"Folded: a\r\n b\r\n\r\n", 400),
        (POST + b"Bad Name: a\r\n\r\n", 400),
        (POST + b"Expect: a-miracle\r\nContent-Length: 2\r\n\r\n{}", 417),
        (POST + b"Content-Length: 99999999\r\n\r\n", 413),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    ],
)
async def test_what_is_not_valid_http_is_refused_in_openai_shape_and_closed(sent: bytes, status: int) -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway, raw(gateway.port) as client:
        await client.send(sent)
        got = await client.response()
        assert (got.status, got.headers["connection"]) == (status, "close")
        assert got.error["message"].endswith(".")
        assert await client.at_end()
    assert worker.asked == []


async def test_a_body_over_the_limit_is_413_even_in_chunks_and_the_client_reads_it() -> None:
    async with serving(FakeWorker(answers), settings=limited(body_bytes=10_000)) as gateway:
        assert (await gateway.post({**ASK, "pad": "x" * 20_000})).status == 413
        async with raw(gateway.port) as client:
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                await client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
            assert (await client.response()).status == 413


@pytest.mark.parametrize(
    "head",
    [
        POST + b"".join(b"x-%d: y\r\n" % number for number in range(150)) + b"\r\n",
        POST + b"x: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_too_many_or_too_long_headers_are_431(head: bytes) -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        await client.send(head)
        assert (await client.response()).status == 431


@pytest.mark.parametrize(
    "begin",
    [
        POST + b"x: ",
        b"GET /",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx: ",
    ],
)
async def test_a_head_extension_or_trailer_that_never_ends_is_cut(begin: bytes) -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        await client.send(begin)
        with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012 - the cut comes at some write
            for _ in range(500):
                await client.send(b"y" * 10_000)
                if client.reader.at_eof() or client.reader._buffer:  # type: ignore[attr-defined]
                    raise ConnectionResetError
                await asyncio.sleep(0)
        assert (await client.response()).status == 431


async def test_a_client_that_dribbles_its_headers_gets_408() -> None:
    async with serving(FakeWorker(answers), settings=limited(head_timeout_s=0.5)) as gateway, raw(gateway.port) as slow:
        asking = asyncio.create_task(slow.response())
        for byte in POST:
            if asking.done():
                break
            await slow.send(bytes([byte]))
            await asyncio.sleep(0.02)
        assert asking.done(), "the bytes that trickled in put the end off"
        assert (await asking).status == 408


async def test_a_body_that_stops_coming_gets_408() -> None:
    async with serving(FakeWorker(answers), settings=limited(body_timeout_s=0.3)) as gateway, raw(gateway.port) as slow:
        await slow.send(POST + b"Content-Length: 100\r\n\r\n{")
        assert (await slow.response()).status == 408


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serving(FakeWorker(answers), settings=limited(idle_timeout_s=0.3)) as gateway, raw(gateway.port) as idle:
        await idle.send(request_bytes(ASK))
        assert (await idle.response()).status == 200
        assert await idle.at_end()


async def _hangs_up_amid_a_stream(port: int) -> None:
    async with raw(port) as client:
        await client.send(request_bytes({**ASK, "stream": True}))
        await client.reader.readuntil(b"data:")


async def test_connections_on_both_sides_are_freed_at_once_and_not_by_the_garbage_collector() -> None:
    async def never_ends(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.event(0, "a")
        await exchange.hang()

    def closed() -> int:
        # By type: `isinstance` asks each object for its class, and some of other libraries warn when asked.
        found = gc.get_objects()
        clients = sum(one.closed for one in found if type(one) is ServerConnection)
        return clients + sum(not one.usable for one in found if type(one) is UpstreamConnection)

    async with serving(FakeWorker(never_ends)) as gateway:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await _hangs_up_amid_a_stream(gateway.port)
            await eventually(lambda: closed() == 0, "all connections to be freed")
        finally:
            gc.enable()


async def test_connections_beyond_the_limit_are_told_so() -> None:
    async with serving(FakeWorker(answers), settings=limited(connections=2)) as gateway:
        async with raw(gateway.port) as first, raw(gateway.port), raw(gateway.port) as third:
            assert (await third.response()).status == 503
            await first.send(request_bytes(ASK))
            assert (await first.response()).status == 200
        await eventually(lambda: gateway.gateway._listener.open_connections == 0, "the connections have ended")
        assert (await gateway.post(ASK)).status == 200


async def test_requests_beyond_the_limit_are_503_with_retry_after() -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.hang()

    worker = FakeWorker(hangs)
    few = replace(SETTINGS, requests=RequestLimits(in_flight=1))
    async with serving(worker, settings=few) as gateway, raw(gateway.port) as first:
        await first.send(request_bytes(ASK))
        await eventually(lambda: worker.asked, "the first request is on its way")
        got = await gateway.post(ASK)
        assert (got.status, got.error["code"], got.headers["retry-after"]) == (503, "overloaded", "1")


async def test_bodies_of_all_connections_together_are_bounded_and_given_back() -> None:
    async with serving(FakeWorker(answers), settings=limited(buffered_bytes=5_000)) as gateway:
        async with raw(gateway.port) as hoarder:
            await hoarder.send(POST + b"Content-Length: 4900\r\n\r\n" + b"x" * 4_800)
            await eventually(lambda: gateway.gateway._listener.buffered_bytes == 4_800, "the gateway holds the part")
            got = await gateway.post({**ASK, "pad": "x" * 1_000})
            assert (got.status, got.headers["retry-after"]) == (503, "1")
        await eventually(lambda: gateway.gateway._listener.buffered_bytes == 0, "the memory was given back")
        assert (await gateway.post({**ASK, "pad": "x" * 1_000})).status == 200
        assert gateway.gateway._listener.buffered_bytes == 0


async def test_what_was_read_of_a_body_is_let_go_of_before_its_worker_answers() -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.hang()

    def lists() -> int:
        return sum(type(one) is list for one in gc.get_objects())

    worker = FakeWorker(hangs)
    async with serving(worker) as gateway, raw(gateway.port) as client:
        before = lists()
        await client.send(request_bytes({**ASK, "pad": [[]] * 100_000}))
        await eventually(lambda: worker.asked, "the request is on its way")
        assert lists() - before < 50_000


async def test_a_wrong_key_is_refused_before_its_body_is_read() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer no\r\nContent-Length: 5000\r\n\r\n"
        )
        got = await client.response()
        assert (got.status, got.headers["connection"]) == (401, "close")


# --- HTTP/1.1 in full -------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        models = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n"
        wrong = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
        await client.send(request_bytes(ASK) + models + wrong + request_bytes({**ASK, "stream": True}) + models)
        got = [await client.response() for _ in range(5)]
        assert [one.status for one in got] == [200, 200, 404, 200, 200]
        assert got[3].body.endswith(b"data: [DONE]\n\n")


async def test_thousands_of_requests_in_one_write_are_answered_one_by_one() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        wrong = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
        sending = asyncio.create_task(client.send(wrong * 5_000))
        for _ in range(5_000):
            assert (await client.response()).status == 404
        await sending


async def test_a_request_in_single_bytes_is_understood() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        for byte in request_bytes(ASK):
            await client.send(bytes([byte]))
        assert (await client.response()).status == 200


async def test_a_chunked_body_with_trailers_reaches_the_worker_whole() -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway, raw(gateway.port) as client:
        body = b'{"model":"chat"}'
        chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nAuthorization: evil\r\n\r\n")
        assert (await client.response()).status == 200
    assert worker.asked[0].body == body


async def test_a_client_that_asks_before_sending_is_told_to_continue() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        head, mark, body = request_bytes(ASK, extra="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        await client.send(head + mark)
        assert (await client.response()).status == 100
        await client.send(body)
        assert (await client.response()).status == 200


async def test_a_target_with_its_origin_is_the_same_target() -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(ASK, path="http://gateway:8080/v1/chat/completions?a=http://b/"))
        assert (await client.response()).status == 200
        await client.send(b"GET HTTPS://x/v1/models/chat HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n")
        assert (await client.response()).json["id"] == "chat"
        await client.send(b"GET http://x HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n")
        assert (await client.response()).status == 404
    assert worker.asked[0].line == "POST /v1/chat/completions HTTP/1.1"


@pytest.mark.parametrize(("path", "status", "allow"), [("/v1/models", 405, b"allow: GET\r\n"), ("/", 404, b"")])
async def test_a_head_is_refused_without_a_body_and_the_next_request_is_read(
    path: str, status: int, allow: bytes
) -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        await client.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + request_bytes(ASK))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert allow in head
        assert (await client.response()).status == 200


async def test_an_upgrade_is_ignored_and_the_next_request_is_read() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        upgrade = request_bytes(
            ASK, extra="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
        )
        await client.send(upgrade + request_bytes(ASK))
        assert [(await client.response()).status for _ in range(2)] == [200, 200]
        for byte in upgrade:
            await client.send(bytes([byte]))
        assert (await client.response()).status == 200


async def test_a_tunnel_is_refused() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        await client.send(b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.response()).status == 400
        assert await client.at_end()


async def test_http_1_0_gets_a_stream_that_ends_with_its_connection() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes({**ASK, "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0"))
        got = await client.response()
        assert got.status == 200
        assert "transfer-encoding" not in got.headers
        assert got.body.endswith(b"data: [DONE]\n\n")


async def test_connection_close_is_honoured() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(ASK, extra="Connection: close\r\n"))
        got = await client.response()
        assert (got.status, got.headers["connection"]) == (200, "close")
        assert await client.at_end()


async def test_an_answer_is_not_cut_by_the_linger_while_its_reader_is_slow() -> None:
    size = 7_500_000

    async def large(exchange: Exchange) -> None:
        await exchange.json(200, "x" * size)

    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        async with serving(FakeWorker(large)) as gateway:
            small.connect(("127.0.0.1", gateway.port))
            reader, writer = await asyncio.open_connection(sock=small)
            writer.write(request_bytes(ASK, extra="Connection: close\r\n"))
            connections = gateway.gateway._listener._shared.connections
            await eventually(lambda: any(one._lingering for one in connections), "the answer was handed to the socket")
            (connection,) = connections
            assert connection._transport.get_write_buffer_size() > 0, "and waits for its reader"
            for _ in range(3):
                assert connection._deadline_s is not None
                connection.check(connection._deadline_s)
            assert await reader.readuntil(b"\r\n\r\n")
            assert len(await reader.readexactly(size + 2)) == size + 2
            writer.close()


async def test_a_client_that_reads_slowly_keeps_its_answer_and_one_that_reads_no_more_is_cut() -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.json(200, "x" * 7_500_000)

    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        async with serving(FakeWorker(large), settings=limited(idle_timeout_s=1000.0)) as gateway:
            small.connect(("127.0.0.1", gateway.port))
            reader, writer = await asyncio.open_connection(sock=small)
            listener = gateway.gateway._listener
            assert listener._tick is not None
            listener._tick.cancel()  # the clock is ours
            connections = listener._shared.connections
            await eventually(lambda: connections, "the connection is there")
            (connection,) = connections
            own: socket.socket = connection._transport.get_extra_info("socket")
            own.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384
            )  # else it grows, until it holds all that is unread
            writer.write(request_bytes(ASK))
            await eventually(lambda: connection._stalled, "the answer waits for its reader")
            now_s = asyncio.get_running_loop().time()
            for _ in range(3):
                unsent_bytes = connection._transport.get_write_buffer_size()
                while connection._transport.get_write_buffer_size() == unsent_bytes:
                    await reader.readexactly(10_000)
                now_s += 0.7 * Limits().write_stall_timeout_s
                connection.check(now_s)
            assert not connection._transport.is_closing()
            assert connection._stalled, "most of the answer is unread still"
            connection.check(now_s + Limits().write_stall_timeout_s + 1.0)
            await eventually(lambda: not connections, "the connection has ended")
            writer.transport.abort()


@contextlib.asynccontextmanager
async def unread(gateway: Running) -> AsyncIterator[tuple[socket.socket, ServerConnection]]:
    """A client, and the gateway's side of it, between which little fits that is not read; its clock is the test's."""
    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.connect(("127.0.0.1", gateway.port))
        small.setblocking(False)
        listener = gateway.gateway._listener
        connections = listener._shared.connections
        await eventually(lambda: connections, "the connection is there")
        (connection,) = connections
        own: socket.socket = connection._transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert listener._tick is not None
        listener._tick.cancel()
        yield small, connection


async def test_a_client_that_pipelines_and_reads_nothing_is_neither_answered_nor_read_until_it_does() -> None:
    loop = asyncio.get_running_loop()
    async with serving(FakeWorker(answers)) as gateway, unread(gateway) as (client, connection):
        asking = asyncio.create_task(loop.sock_sendall(client, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000))
        transport = connection._transport
        await eventually(lambda: connection._read_paused or transport.get_write_buffer_size() > MIB, "it is stalled")
        assert connection._read_paused
        answered = b""
        while answered.count(b"HTTP/1.1 401") < 10_000:
            answered += await asyncio.wait_for(loop.sock_recv(client, 65_536), 10)
        await asking


async def test_a_client_that_reads_nothing_is_cut_though_more_is_written_for_it() -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.json(200, "x" * 1_000_000)

    loop = asyncio.get_running_loop()
    async with serving(FakeWorker(large)) as gateway, unread(gateway) as (client, connection):
        await loop.sock_sendall(client, request_bytes(ASK))
        await eventually(lambda: connection._stalled, "the answer waits for its reader")
        now_s = loop.time()
        connection.check(now_s)
        connection.write(b"more")
        connection.check(now_s + Limits().write_stall_timeout_s)
        await eventually(lambda: connection.closed, "the connection has ended")


def test_thousands_of_refusals_that_wait_take_little_more_than_their_text() -> None:
    tracemalloc.start()
    waiting = [answer_for(Unauthenticated("The API key is not valid."), b"req-1") for _ in range(1000)]
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 1000 * (len(waiting[0].body) + 1000)


async def test_an_idle_connection_is_freed_though_its_client_never_reads_what_it_asked_for() -> None:
    async def short(exchange: Exchange) -> None:
        await exchange.json(200, "x" * 60_000)  # less than what stalls a connection

    async with serving(FakeWorker(short)) as gateway, unread(gateway) as (client, connection):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, request_bytes(ASK))
        await eventually(connection._transport.get_write_buffer_size, "a part of the answer waits for its reader")
        await eventually(lambda: connection._request is None, "nothing is asked any more")
        assert not connection._stalled
        now_s = loop.time()
        for _ in range(4):
            now_s += Limits().idle_timeout_s
            connection.check(now_s)
        await eventually(lambda: connection.closed, "the connection has ended")


async def test_a_linger_ends_where_nothing_is_read_at_all() -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.json(200, "x" * 7_500_000)

    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        async with serving(FakeWorker(large)) as gateway:
            small.connect(("127.0.0.1", gateway.port))
            small.sendall(request_bytes(ASK, extra="Connection: close\r\n"))
            connections = gateway.gateway._listener._shared.connections
            await eventually(lambda: any(one._lingering for one in connections), "the answer was handed to the socket")
            (connection,) = connections
            assert connection._deadline_s is not None
            connection._end_linger(connection._deadline_s)
            connection._end_linger(connection._deadline_s + Limits().write_stall_timeout_s)
            await eventually(lambda: not connections, "the connection has ended")


async def test_a_client_that_is_refused_at_once_is_not_idle() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        loop = asyncio.get_running_loop()
        closing_s = []
        for _ in range(2):
            asked_s = loop.time()
            await eventually(lambda: loop.time() > asked_s, "the clock goes on")  # noqa: B023
            await client.send(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.response()).status == 404
            (connection,) = gateway.gateway._listener._shared.connections
            closing_s.append(connection._deadline_s or 0.0)
        assert closing_s[1] > closing_s[0]


@pytest.mark.parametrize("flag", ["--max-body-mib", "--max-buffered-mib", "--queue-mib", "--journal-mib"])
def test_memory_of_less_than_one_byte_is_refused(flag: str) -> None:
    with pytest.raises(SettingsError, match=f"{flag} is 1e-07; that is less than one byte"):
        parse([f"{flag}=1e-7"])
    assert parse(["--journal-mib=0"]).streams.journal_bytes == 0


def test_bodies_that_may_together_take_less_than_one_of_them_are_refused() -> None:
    with pytest.raises(SettingsError, match="--max-buffered-mib is 4, less than --max-body-mib, 8"):
        parse(["--max-buffered-mib=4"])
    assert parse(["--max-buffered-mib=4", "--max-body-mib=4"]).limits.buffered_bytes == 4 * MIB
