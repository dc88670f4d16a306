"""The server's end of the engine at the moment when the engine's process ends."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest
import uvloop

from tests.worker_image.scripted import EngineProcess
from worker_image.engine.client import EngineClient, TokenStream
from worker_image.engine.messages import Sampling
from worker_image.errors import EngineEnded

MOST_REQUESTS = 10_000


async def requests(client: EngineClient, accepted: list[TokenStream]) -> None:
    """Raises EngineEnded once one is refused."""
    for _ in range(MOST_REQUESTS):
        accepted.append(client.submit([1], Sampling(max_tokens=1)))
        await asyncio.sleep(0)


async def requests_until_one_is_refused() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    process = EngineProcess()
    client = EngineClient(cast("asyncio.subprocess.Process", process), reader, writer, lambda _: None)
    theirs.close()  # As the kernel does that ends a process for its memory; nobody was told of its end yet.
    streams: list[TokenStream] = []
    with pytest.raises(EngineEnded):
        await requests(client, streams)
    assert not client.gone.done(), "it is the socket that says so"
    async with streams.pop():
        """A client that leaves now disturbs nobody."""
    process.ended.set()
    await client.stop()
    for stream in streams:
        with pytest.raises(EngineEnded):
            await anext(aiter(stream))


def test_a_request_between_the_engines_end_and_its_notice_may_be_answered_by_another_worker() -> None:
    uvloop.run(requests_until_one_is_refused())
