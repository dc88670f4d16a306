"""The admin port takes what is posted to a hook, within its bounds and of those who may, and nothing elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import pytest

from controllers.runtime.health import Health
from controllers.runtime.interface import Answer, Hook
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.server import BODIES_AT_ONCE, AdminServer
from tests.waiting import eventually

MAY = {"Authorization": "Bearer x"}


class Gate:
    """Lets those by who have the token, and counts them."""

    def __init__(self) -> None:
        self.let_by = 0

    async def refuse(self, headers: Mapping[str, str]) -> Answer | None:
        if headers.get("authorization") != MAY["Authorization"]:
            return Answer(401, "Who are you?")
        self.let_by += 1
        return None


async def echo(body: bytes) -> Answer:
    return Answer(200, f"{len(body)}")


@asynccontextmanager
async def serving(gate: Gate | None = None) -> AsyncIterator[AdminServer]:
    hooks = (Hook("/hook", 1_000, (gate or Gate()).refuse, echo),)
    server = AdminServer("127.0.0.1", 0, Health(ReconcileQueue(), {}), Metrics(), hooks=hooks)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("path", "size", "status", "says"),
    [("/hook", 10, 200, "10"), ("/hook", 2_000, 413, ""), ("/metrics", 10, 405, ""), ("/other", 10, 404, "")],
)
async def test_a_hook_gets_a_bounded_body(path: str, size: int, status: int, says: str) -> None:
    async with serving() as server, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}{path}"
        async with session.post(url, data=b"x" * size, headers=MAY) as answer:
            assert answer.status == status
            assert says in await answer.text()


async def begun(server: AdminServer, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request all of whose body but the last byte has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = ["POST /hook HTTP/1.1", "Host: a", "Content-Length: 10", *headers]
    writer.write("\r\n".join([*head, "", ""]).encode() + b"x" * 9)
    await writer.drain()
    return reader, writer


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(5):
        return int((await reader.readline()).split()[1])


async def test_a_stranger_is_refused_before_his_body_is_read() -> None:
    async with serving() as server:
        reader, writer = await begun(server)
        assert await status(reader) == 401
        writer.close()


async def test_only_a_few_bodies_are_read_at_once_and_the_next_waits_for_its_turn() -> None:
    gate = Gate()
    async with serving(gate) as server:
        held = [await begun(server, "Authorization: Bearer x") for _ in range(BODIES_AT_ONCE)]
        await eventually(lambda: gate.let_by == BODIES_AT_ONCE, "they are being read")
        reader, writer = await begun(server, "Authorization: Bearer x")
        writer.write(b"x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readline()
        held[0][1].write(b"x")
        assert await status(held[0][0]) == 200
        assert await status(reader) == 200
        for _, one in [*held, (reader, writer)]:
            one.close()
