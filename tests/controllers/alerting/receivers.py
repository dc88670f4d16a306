"""Receivers on the loopback: servers that take what is posted, and can be told to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Receiver:
    """What came, in order."""

    port: int = 0
    status: int = 200
    """0: the connection ends without an answer."""
    headers: dict[str, str] = field(default_factory=dict)
    came: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of each request, refused ones included."""
    gate: asyncio.Event | None = None
    """While set and not raised, answers wait."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def told(self) -> list[tuple[str, str]]:
        """(status, group) of each message that was taken."""
        return [(one["status"], one["groupLabels"]["incident"]) for one in self.came]

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append(dict(request.headers))
        body = await request.json()
        if self.gate is not None:
            await self.gate.wait()
        if 200 <= self.status < 300:
            self.came.append(body)
        if not self.status:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(status=self.status, headers=self.headers)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/{tail:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        if receiver.gate is not None:
            receiver.gate.set()
        await runner.cleanup()
