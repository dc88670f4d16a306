"""The listening socket, the tick that enforces every deadline, and the drain.

One tick for all connections: a timer per request would cost more than all the checks together. Never cuts a request
that is being answered; whoever drains decides for how long to wait.
"""

from __future__ import annotations

import asyncio
import socket

from gateway.http1.limits import ByteBudget, Limits
from gateway.http1.messages import Application
from gateway.http1.server import ServerConnection, Shared

TICK_S = 0.25
BACKLOG = 2048


class Listener:
    def __init__(self, app: Application, limits: Limits) -> None:
        self._loop = asyncio.get_running_loop()
        self._shared = Shared(app, limits, self._loop)
        self._server: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int, sock: socket.socket | None = None) -> int:
        """Listens, on `sock` where it is given, and returns the port (which matters where 0 was asked for)."""

        def new() -> ServerConnection:
            return ServerConnection(self._shared)

        if sock is not None:
            self._server = await self._loop.create_server(new, sock=sock, backlog=BACKLOG)
        else:
            self._server = await self._loop.create_server(new, host, port, backlog=BACKLOG, reuse_address=True)
        self._tick = self._loop.call_later(TICK_S, self._check)
        own: socket.socket = self._server.sockets[0]
        return int(own.getsockname()[1])

    @property
    def open_connections(self) -> int:
        return len(self._shared.connections)

    @property
    def memory(self) -> ByteBudget:
        """For request bodies, whoever holds them."""
        return self._shared.memory

    @property
    def buffered_bytes(self) -> int:
        return self.memory.held_bytes

    def begin_drain(self) -> None:
        """Still accepts, but every answer from now on asks its client to connect anew, which is elsewhere."""
        self._shared.draining = True

    def stop_accepting(self) -> None:
        self._shared.draining = self._shared.leaving = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._shared.connections):
            connection.close_if_idle()

    async def wait_empty(self) -> None:
        """Returns when no connection is open."""
        while self._shared.connections:
            self._shared.emptied.clear()
            await self._shared.emptied.wait()

    def stop(self) -> None:
        """Ends everything, open responses too."""
        self.stop_accepting()
        if self._tick is not None:
            self._tick.cancel()
        for connection in list(self._shared.connections):
            connection.abort()

    def _check(self) -> None:
        now_s = self._loop.time()
        for connection in list(self._shared.connections):
            connection.check(now_s)
        self._tick = self._loop.call_later(TICK_S, self._check)
