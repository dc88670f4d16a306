"""One connection to an upstream: a request out, the response to a receiver, and then idle for the next.

Tells what happened in the receiver's words and never retries; whether a loss matters is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

import httptools

from gateway.http1.messages import Headers

HEAD_LIMIT_BYTES = 64 * 1024


class Lost(Enum):
    """How a response can fail."""

    CLOSED = "closed"
    """The upstream ended the connection before the response was whole."""
    RESET = "reset"
    MALFORMED = "malformed"
    """What it sent is not HTTP/1.1."""
    TIMEOUT = "timeout"


class Receiver(Protocol):
    def on_head(self, status: int, headers: Headers) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_lost(self, lost: Lost) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """Also the `Flow` of the response that it carries."""

    def __init__(self, on_idle: Callable[[UpstreamConnection], None], on_closed: Callable[[UpstreamConnection], None]):
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # until connection_made
        self._receiver: Receiver | None = None
        self._headers: Headers = []
        self._status = 0
        self._head_bytes = 0
        self._head_done = False
        self._head_told = False
        self._framed = False
        self._complete = False
        self._surplus = False
        self._keep_alive = False
        self._parts: list[bytes] = []
        self._paused = False
        self.reused = False
        """It has carried a response before, so the upstream may have been closing it while we wrote."""
        self.idle_since_s = 0.0

    # --- use ----------------------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes, receiver: Receiver) -> None:
        """Sends one request; the receiver hears of everything until `on_end` or `on_lost`."""
        self._receiver = receiver
        self._headers = []
        self._head_bytes = 0
        self._head_done = self._head_told = self._framed = self._complete = self._keep_alive = False
        if self._transport.is_closing():
            # It went between being opened, or taken, and now; uvloop takes no more writes then.
            self._lose(Lost.CLOSED)
        elif len(body) < 8192:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    def abort(self) -> None:
        """Leaves at once; the upstream sees the connection end and stops working."""
        self._receiver = None
        self._transport.abort()

    def pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self._transport.abort()  # bytes that nobody asked for
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._lose(Lost.MALFORMED)
            return
        if self._head_bytes > HEAD_LIMIT_BYTES and not self._head_done:
            self._lose(Lost.MALFORMED)
            return
        self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        del self._parser  # It holds us: without this each closed connection waits for the garbage collector.
        self._on_closed(self)
        if self._receiver is None:
            return
        if exc is not None:
            self._lose(Lost.RESET)
        elif self._head_done and not self._framed:
            self._end()  # such a body ends with its connection
        else:
            self._lose(Lost.CLOSED)

    # --- httptools callbacks: collect, never act ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            name = name.lower()
            if name == b"content-length" or name == b"transfer-encoding":
                self._framed = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._head_done = True
            self._framed = self._framed or self._status in (204, 304)

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._status < 200:
            self._headers = []  # an interim response; the real one follows
            return
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()

    # --- telling the receiver -----------------------------------------------------------------------------------

    def _deliver(self) -> None:
        receiver = self._receiver
        if receiver is None or not self._head_done:
            return
        if not self._head_told:
            self._head_told = True
            receiver.on_head(self._status, self._headers)
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            receiver.on_data(data)
        if self._complete:
            self._end()

    def _end(self) -> None:
        receiver, self._receiver = self._receiver, None
        if self._keep_alive and not self._surplus and not self._transport.is_closing():
            self.resume()
            self.reused = True
            self._on_idle(self)
        else:
            self._transport.abort()
        if receiver is not None:
            receiver.on_end()

    def _lose(self, lost: Lost) -> None:
        receiver, self._receiver = self._receiver, None
        self._transport.abort()
        if receiver is not None:
            receiver.on_lost(lost)
