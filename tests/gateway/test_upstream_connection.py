"""A connection that is gone before the request is written loses the request; it never fails the gateway."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from types import SimpleNamespace
from typing import cast

import pytest
import uvloop

from gateway.backend import Backend
from gateway.http1.client import Lost, UpstreamConnection
from gateway.http1.messages import Headers
from gateway.proxy import Proxy
from gateway.retries import RetryPolicy
from gateway.streams.journal import StreamLimits
from gateway.streams.streams import Streams
from tests.waiting import eventually


class Heard:
    """A receiver that notes what it hears."""

    def __init__(self) -> None:
        self.lost: list[Lost] = []

    def on_head(self, status: int, headers: Headers) -> None:
        raise AssertionError("nobody answers")

    def on_data(self, data: bytes) -> None:
        raise AssertionError("nobody answers")

    def on_end(self) -> None:
        raise AssertionError("nobody answers")

    def on_lost(self, lost: Lost) -> None:
        self.lost.append(lost)


async def _sent_too_late() -> list[Lost]:
    gone = asyncio.Event()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: UpstreamConnection(lambda _: None, lambda _: gone.set()), "127.0.0.1", port
    )
    await asyncio.wait_for(gone.wait(), 30)
    heard = Heard()
    connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", heard)
    server.close()
    await server.wait_closed()
    return heard.lost


def test_a_request_on_a_connection_that_has_gone_is_lost_and_nothing_is_raised() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_sent_too_late()) == [Lost.CLOSED]


class _Quick:
    """A pool whose connections come in the same moment in which their request is given up."""

    def __init__(self) -> None:
        self.given_up: asyncio.Task[UpstreamConnection] | None = None
        self.aborted = 0

    async def connect(self) -> _Quick:
        assert self.given_up is not None
        asyncio.get_running_loop().call_soon(self.given_up.cancel)
        return self

    def abort(self) -> None:
        self.aborted += 1


async def test_a_connection_that_comes_when_its_request_is_given_up_is_closed() -> None:
    pool = _Quick()
    proxy = Proxy(RetryPolicy(), random.Random(0), Streams(StreamLimits()))
    pool.given_up = asyncio.create_task(proxy._connect(cast(Backend, SimpleNamespace(pool=pool))))
    with pytest.raises(asyncio.CancelledError):
        await pool.given_up
    assert pool.aborted == 1


async def _closed_without_the_collector() -> None:
    gone = asyncio.Event()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: UpstreamConnection(lambda _: None, lambda _: gone.set()), *server.sockets[0].getsockname()[:2]
        )
        await asyncio.wait_for(gone.wait(), 30)
        held = weakref.ref(connection)
        del connection
        await eventually(lambda: held() is None, "the connection to be freed")
    finally:
        server.close()
        await server.wait_closed()


def test_a_closed_connection_is_freed_at_once_and_not_by_the_garbage_collector() -> None:
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_closed_without_the_collector())
    finally:
        gc.enable()
