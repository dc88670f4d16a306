"""A connection that is gone before the request is written loses the request; it never fails the gateway."""

from __future__ import annotations

import asyncio

import uvloop

from gateway.http1.client import Lost, UpstreamConnection
from gateway.http1.messages import Headers


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
