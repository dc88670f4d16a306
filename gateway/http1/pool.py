"""Keep-alive connections to one upstream address, the warmest first.

Losing keep-alive costs four times the CPU of a whole request. Never holds more than it was told to, and never an idle
connection long enough for the upstream to close it first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.http1.client import UpstreamConnection
from gateway.http1.sockets import probe_when_silent


@dataclass(frozen=True, slots=True)
class PoolLimits:
    idle_connections: int = 128
    idle_timeout_s: float = 15.0
    """Below the worker's own keep-alive time, so that it is we who close."""
    connect_timeout_s: float = 2.0


class ConnectError(Exception):
    """No connection to an address: refused, unreachable, or too slow."""


class Pool:
    def __init__(self, host: str, port: int, limits: PoolLimits, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._port = port
        self._limits = limits
        self._loop = loop
        self._idle: list[UpstreamConnection] = []
        self._closed = False

    def take(self) -> UpstreamConnection | None:
        """An idle connection, the last one used."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            ConnectError: there was none to be had within the connect timeout.
        """
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                transport, connection = await self._loop.create_connection(self._new, self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise ConnectError(f"{self._host}:{self._port}: {str(error) or 'timed out'}") from error
        probe_when_silent(transport)
        return connection

    def sweep(self, now_s: float) -> None:
        """Closes what has been idle for too long; the list is in order of use, the oldest first."""
        while self._idle and now_s - self._idle[0].idle_since_s > self._limits.idle_timeout_s:
            self._idle.pop(0).abort()

    def close(self) -> None:
        """Closes what is idle; what carries a response closes when it has carried it."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    def _new(self) -> UpstreamConnection:
        return UpstreamConnection(self._keep, self._forget)

    def _keep(self, connection: UpstreamConnection) -> None:
        if self._closed or len(self._idle) >= self._limits.idle_connections:
            connection.abort()
            return
        connection.idle_since_s = self._loop.time()
        self._idle.append(connection)

    def _forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
