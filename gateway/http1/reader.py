"""From bytes to requests: the httptools callbacks of one client connection, held to the limits.

Collects and never acts: what was read waits in `ready`, in order, until the connection takes it. A refusal by the
protocol is the last entry there will ever be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

import httptools

from gateway.http1.limits import ByteBudget, Limits, Problem
from gateway.http1.messages import Answer, Request, render

_UPGRADING = frozenset({b"connection", b"upgrade", b"http2-settings"})


class Reading(Enum):
    """How far into a request the bytes read so far go."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


_NOTHING, _HEAD, _BODY = Reading


class RequestReader:
    """Feed it bytes; take requests, and answers that need no handling, from `ready`."""

    def __init__(
        self,
        limits: Limits,
        memory: ByteBudget,
        admit: Callable[[Request], Answer | None],
        refuse: Callable[[Problem], Answer],
    ) -> None:
        self.ready: deque[Request | Answer] = deque()
        self.phase = _NOTHING
        self.finished = False
        """Nothing more will be read from this connection."""
        self._limits = limits
        self._memory = memory
        self._admit = admit
        self._refuse = refuse
        self._parser = httptools.HttpRequestParser(self)
        self._problem: Problem | None = None
        self._request: Request | None = None
        self._early: Answer | None = None
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_count = 0
        self._head_bytes = 0
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._progressed = False
        self._fruitless_bytes = 0

    def feed(self, data: bytes) -> None:
        if self.finished:
            return
        received_bytes = len(data)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._problem = self._problem or Problem.MALFORMED
                break
        if self.phase is not _NOTHING:
            self._count_fruitless(received_bytes)
        if self._problem is not None or self._early is not None:
            self._settle()

    def fail(self, problem: Problem) -> None:
        """The connection's own reason to end, such as a client that is too slow."""
        self._problem = self._problem or problem
        self._settle()

    def wants_continue(self) -> bool:
        """True, once, when the client waits for a 100 before it sends the body."""
        request = self._request
        if self.finished or request is None or self._parts or not request.minor_version:
            return False
        return request.headers.pop(b"expect", None) is not None

    def forget(self) -> None:
        """Gives the memory of everything unfinished back."""
        self.finished = True
        self._drop_body()
        for entry in self.ready:
            if isinstance(entry, Request):
                self._memory.give_back(len(entry.body))
        self.ready.clear()

    def close(self) -> None:
        """The connection is gone."""
        self.forget()
        del self._parser  # It holds us: without this each closed connection waits for the garbage collector.

    # --- httptools callbacks ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.phase = _HEAD
        self._target = b""
        self._headers = {}
        self._header_count = self._head_bytes = self._fruitless_bytes = 0
        self._progressed = True

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is not _HEAD:
            return  # trailers are dropped
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        name = name.lower()
        if name in self._headers:
            value = self._headers[name] + b", " + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self.phase = _BODY
        parser = self._parser
        minor_version = 0 if parser.get_http_version() == "1.0" else 1
        request = Request(parser.get_method(), self._target, self._headers, minor_version, parser.should_keep_alive())
        self._request = request
        if parser.should_upgrade():
            return
        self._problem = self._problem or self._head_problem(request)
        if self._problem is None:
            early = self._early = self._admit(request)
            if early is not None and request.method == b"HEAD":
                self._early = replace(early, is_to_head=True)

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        if self._early is not None or self._problem is not None:
            return
        size = len(body)
        if self._body_bytes + size > self._limits.body_bytes:
            self._problem = Problem.BODY_TOO_LARGE
        elif not self._memory.take(size):
            self._problem = Problem.MEMORY
        else:
            self._body_bytes += size
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        self.phase = _NOTHING
        request, self._request = self._request, None
        early, self._early = self._early, None
        if self._problem is not None or request is None:
            return
        if early is not None:
            self._drop_body()
            self.ready.append(replace(early, close=early.close or not request.keep_alive))
            return
        if self._parts:
            request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._body_bytes = 0  # from here on the request carries the count
        self.ready.append(request)

    def _head_without_upgrade(self) -> bytes:
        """The head once more, as if no upgrade had been asked for, which a server may always pretend (RFC 9110, 7.8).

        The parser gives up at such a head and takes no body, so without this a body would be read as a request.
        """
        request = self._request
        if request is None or request.method == b"CONNECT":
            self._problem = Problem.MALFORMED
            return b""
        self._parser = httptools.HttpRequestParser(self)
        kept = [one for one in request.headers.items() if one[0] not in _UPGRADING]
        if not request.keep_alive:
            kept.append((b"connection", b"close"))
        line = b"%b %b HTTP/1.%d\r\n" % (request.method, request.target, request.minor_version)
        return line + render(kept) + b"\r\n"

    # --- limits -------------------------------------------------------------------------------------------------

    def _head_problem(self, request: Request) -> Problem | None:
        headers = request.headers
        if self._head_bytes > self._limits.head_bytes or self._header_count > self._limits.header_count:
            return Problem.HEAD_TOO_LARGE
        if request.minor_version and (b"host" not in headers or b"," in headers[b"host"]):
            return Problem.NO_HOST
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            return Problem.BODY_TOO_LARGE
        expectation = headers.get(b"expect")
        if expectation is not None and expectation.lower() != b"100-continue":
            return Problem.EXPECTATION
        return None

    def _count_fruitless(self, received_bytes: int) -> None:
        """A header, chunk extension or trailer that never ends fires no callback, so it is counted here."""
        if self._progressed:
            self._progressed = False
            self._fruitless_bytes = 0
        else:
            self._fruitless_bytes += received_bytes
        if self._fruitless_bytes > self._limits.head_bytes or self._head_bytes > self._limits.head_bytes:
            self._problem = self._problem or Problem.HEAD_TOO_LARGE

    def _settle(self) -> None:
        """A refusal, or an early answer to a request whose body has not arrived, ends the reading."""
        last = self._refuse(self._problem) if self._problem is not None else self._early
        if last is not None and not self.finished:
            self.finished = True
            self._drop_body()
            self.ready.append(replace(last, close=True))

    def _drop_body(self) -> None:
        self._memory.give_back(self._body_bytes)
        self._body_bytes = 0
        self._parts.clear()
