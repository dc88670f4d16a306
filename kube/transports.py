"""Ends what an aiohttp session of a loop that is about to end has left open.

A stream over TLS that was closed before its end waits for the server's goodbye, which may come after the loop is gone.
The connector forgets such a connection, so the session's close does not reach it. It is remembered here instead, as
a middleware of the session. Remembers nothing that somebody else has let go of.
"""

from __future__ import annotations

import asyncio
import weakref

import aiohttp


class Transports:
    """`aiohttp.ClientSession(middlewares=(…, transports))`, and `abort` after its close."""

    def __init__(self) -> None:
        self._used: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.connection is not None and response.connection.transport is not None:
            self._used.add(response.connection.transport)
        return response

    def abort(self) -> None:
        """The loop must still turn once."""
        for transport in self._used:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
