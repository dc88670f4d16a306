"""One client connection: requests to the application one after the other, responses out.

An `asyncio.Protocol` that is its own `Reply`, so that no object is made per request but the `Request`. Pipelined
requests are answered in order, and reading stops while one waits. Never blocks, never routes, and never keeps taking
bytes from a worker for a client that does not read.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from gateway.http1.limits import ByteBudget, Limits, Problem
from gateway.http1.messages import STATUS_LINES, Answer, Application, Flow, Request, render_answer
from gateway.http1.reader import Reading, RequestReader
from gateway.http1.sockets import probe_when_silent, start_task

log = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class Shared:
    """What the connections of one listener share."""

    def __init__(self, app: Application, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.limits = limits
        self.loop = loop
        self.memory = ByteBudget(limits.buffered_bytes)
        self.connections: set[ServerConnection] = set()
        self.draining = False
        """Answers ask their clients to connect anew."""
        self.leaving = False
        """No connection outlives its answer any more, whether or not the answer could say so."""
        self.emptied = asyncio.Event()
        """Set whenever the last connection ends."""


class ServerConnection(asyncio.Protocol):
    """See the module's docstring. The methods from `answer` to `govern` are the `Reply`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._loop = shared.loop
        self._reader = RequestReader(shared.limits, shared.memory, shared.app.admit, shared.app.refuse)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # until connection_made
        self._request: Request | None = None
        self._held_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._flow: Flow | None = None
        self._chunked = False
        self._begun = False
        self._ended = False
        self._keep_alive = True
        self._pumping = False
        self._lingering = False
        self._read_paused = False
        self._awaited: Reading | None = None
        self._deadline_s: float | None = None
        self._stalled = False
        """More is unsent than the transport wants to hold."""
        self._unsent_bytes = 0
        self._unsent_since_s = 0.0
        """Since when it is no less, while stalled or lingering."""
        self.closed = False

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        connections = self._shared.connections
        if len(connections) >= self._limits.connections:
            self._keep_alive = False
            self.answer(self._shared.app.refuse(Problem.CROWDED))
            self._transport.close()
            return
        connections.add(self)
        probe_when_silent(self._transport)
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._shared.connections.discard(self)
        if not self._shared.connections:
            self._shared.emptied.set()
        self._reader.close()
        self._give_back()
        if self._task is not None:
            self._task.cancel()

    def eof_received(self) -> None:
        """A client that ends its side has left; the transport closes, which cancels what was asked for."""

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        if reader.ready:
            self._pump()
        elif self._request is None and not self._lingering:
            self._expect_more()

    def pause_writing(self) -> None:
        self._stalled = True
        self._unsent_bytes = 0
        if self._flow is not None:
            self._flow.pause()

    def resume_writing(self) -> None:
        self._stalled = False
        if self._flow is not None:
            self._flow.resume()
        self._pump()

    # --- one request after the other ----------------------------------------------------------------------------

    def _pump(self) -> None:
        """Starts what is ready, while the client reads what it is answered; a loop and not a recursion, since thousands
        may be ready and answered at once."""
        if self._pumping:
            return
        self._pumping = True
        ready = self._reader.ready
        while ready and self._request is None and not (self._stalled or self.closed or self._lingering):
            entry = ready.popleft()
            if isinstance(entry, Answer):
                self._answer_at_once(entry)
            else:
                self._start(entry)
        self._pumping = False
        if self.closed or self._lingering:
            return
        self._read_while(not ready)
        if self._request is None and not ready:
            self._expect_more()

    def _start(self, request: Request) -> None:
        self._request = request
        self._held_bytes = len(request.body)
        self._awaited = self._deadline_s = None
        self._begun = self._ended = self._chunked = False
        self._keep_alive = request.keep_alive and not self._shared.draining
        task = start_task(self._run(request), self._loop)
        if self._request is request:
            self._task = task

    async def _run(self, request: Request) -> None:
        app = self._shared.app
        try:
            await app.handle(request, self)
        except Exception:
            log.exception("The application failed on a request to %r.", request.target[:100])
            if self._begun:
                self.abort()
            else:
                self.answer(app.refuse(Problem.BROKEN))
        finally:
            self._done()

    def _done(self) -> None:
        self._give_back()
        self._task = self._request = self._flow = None
        if self.closed:
            return
        if not self._ended:
            self._transport.abort()
        elif not self._keep_alive or self._shared.leaving:
            self._linger()
        else:
            self._pump()

    def _answer_at_once(self, answer: Answer) -> None:
        self._chunked = False
        self._awaited = self._deadline_s = None
        self._keep_alive = not answer.close and not self._shared.draining
        self.answer(answer)
        if not self._keep_alive:
            self._linger()

    def _linger(self) -> None:
        """Ends our side and drops what still comes, until the client ends its own or has had its answer for `linger_s`.

        Closing with unread bytes would reset the connection, and the client would lose the answer it was just sent.
        """
        self._lingering = True
        self._reader.forget()
        self._deadline_s = self._loop.time() + self._limits.linger_s
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._read_while(True)

    def _give_back(self) -> None:
        self._shared.memory.give_back(self._held_bytes)
        self._held_bytes = 0

    # --- reading ------------------------------------------------------------------------------------------------

    def _read_while(self, wanted: bool) -> None:
        if wanted is not self._read_paused or self._transport.is_closing():
            return
        self._read_paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _expect_more(self) -> None:
        """Nothing is being answered: how long the client may take. The clock starts once per phase, not per byte."""
        phase = self._reader.phase
        if phase is self._awaited:
            return
        self._awaited = phase
        limits = self._limits
        if phase is Reading.BODY:
            self._deadline_s = self._loop.time() + limits.body_timeout_s
            if self._reader.wants_continue():
                self._transport.write(_CONTINUE)
        else:
            wait_s = limits.head_timeout_s if phase is Reading.HEAD else limits.idle_timeout_s
            self._deadline_s = self._loop.time() + wait_s

    def check(self, now_s: float) -> None:
        """Asked by the listener now and then: ends the connection when the client kept us waiting for too long."""
        if self._stalled and self._reads_nothing(now_s):
            self._transport.abort()
        elif self._deadline_s is not None and now_s >= self._deadline_s:
            self._deadline_s = None
            if self._lingering:
                self._end_linger(now_s)
            elif self._reader.phase is Reading.NOTHING:
                self._linger()
            else:
                self._reader.fail(Problem.SLOW)
                self._pump()

    def _end_linger(self, now_s: float) -> None:
        """Not yet where the client still takes its answer, slowly as it may be."""
        if self._reads_nothing(now_s) or not self._unsent_bytes:
            self._transport.abort()
        else:
            self._deadline_s = now_s + self._limits.linger_s

    def _reads_nothing(self, now_s: float) -> bool:
        """For too long, of what it was sent. That more is unsent than before says nothing of it."""
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes < self._unsent_bytes or not self._unsent_bytes:
            self._unsent_since_s = now_s
        self._unsent_bytes = unsent_bytes
        return now_s - self._unsent_since_s >= self._limits.write_stall_timeout_s

    def close_if_idle(self) -> None:
        if self._request is None and self._reader.phase is Reading.NOTHING and not self._lingering:
            self._transport.close()

    # --- Reply --------------------------------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        if answer.close:
            self._keep_alive = False
        self.respond(answer.status, render_answer(answer), answer.body, is_to_head=answer.is_to_head)

    def respond(self, status: int, block: bytes, body: bytes, *, is_to_head: bool = False) -> None:
        self._begun = self._ended = True
        if not self.closed:
            line = self._connection_line()
            head = b"%b%bcontent-length: %d\r\n%b\r\n" % (STATUS_LINES[status], block, len(body), line)
            self._transport.write(head if is_to_head else head + body)

    def begin(self, status: int, block: bytes, length: int | None, first: bytes) -> None:
        self._begun = True
        if self.closed:
            return
        framing = b""
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self._request is not None and not self._request.minor_version:
            self._keep_alive = False  # HTTP/1.0 knows no chunks: the end of the connection ends the body
        else:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        head = b"%b%b%b%b\r\n" % (STATUS_LINES[status], block, framing, self._connection_line())
        self._transport.write(head + (b"%x\r\n%b\r\n" % (len(first), first) if self._chunked else first))

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        self._ended = True
        if self._chunked and not self.closed:
            self._transport.write(_LAST_CHUNK)

    def abort(self) -> None:
        self._ended = True
        self._keep_alive = False
        self._transport.abort()

    def govern(self, flow: Flow | None) -> None:
        self._flow = flow
        if flow is not None and self._stalled:
            flow.pause()

    def _connection_line(self) -> bytes:
        if not self._keep_alive:
            return b"connection: close\r\n"
        if self._request is not None and not self._request.minor_version:
            return b"connection: keep-alive\r\n"
        return b""
