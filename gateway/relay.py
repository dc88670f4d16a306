"""One attempt: what one worker answers, on its way to one client.

Holds back until an answer can no longer fail unseen: a whole body where the client asked for no stream, the first
whole event where it did. From then on every chunk goes through as it comes, in whole events, so that a client never
sees half of one. A stream that another worker has begun goes on where it stopped. Never retries; it tells in `done` why
there was no answer.
"""

from __future__ import annotations

import asyncio
import time

from crds.contract import LEFT_DRAINING
from gateway import heads
from gateway.backend import Backend
from gateway.flight import Flight
from gateway.http1.client import Lost, UpstreamConnection
from gateway.http1.messages import Headers, Reply
from gateway.retries import Failure
from gateway.settlement import Outcome
from gateway.streams.events import Events
from gateway.streams.journal import Journal
from gateway.streams.moving import Moving
from gateway.streams.streams import Streams
from gateway.usage import TAIL_BYTES, Usage, estimated, told_tokens, usage_in

BUFFER_BYTES = 8 * 1024 * 1024
"""An answer that is no stream is held back up to this size, and so can be retried until its last byte."""
_FAILURES = {lost: Failure(lost.value) for lost in Lost}


class Relay:
    """Receives one response (see `gateway.http1.client.Receiver`)."""

    __slots__ = (
        "_connection", "_continues", "_events", "_headers", "_held", "_held_bytes", "_journal", "_last", "_live",
        "_now_s", "_refusal", "_reply", "_silent", "_streams", "backend", "done", "first_s", "flight", "heard",
        "heard_s", "sent_s", "status",
    )  # fmt: skip

    def __init__(
        self, flight: Flight, reply: Reply, backend: Backend, connection: UpstreamConnection,
        loop: asyncio.AbstractEventLoop, streams: Streams,
    ) -> None:  # fmt: skip
        self.done: asyncio.Future[Failure | None] = loop.create_future()
        self.heard = False
        """The worker has answered at all."""
        self.sent_s = self.first_s = 0.0
        """By `time.perf_counter`: when it was asked, and when the first byte of its answer came; 0 before."""
        self.flight = flight
        self._reply = reply
        self.backend = backend
        self._connection = connection
        self.status = 0
        self._headers: Headers = []
        self._refusal: Failure | None = None
        """Why its answer is none: another worker is asked."""
        self._live = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._events = Events()
        self._streams = streams
        self._now_s = loop.time
        self.heard_s = loop.time()
        """When it last said something of a stream."""
        self._continues = self._silent = flight.begun
        self._journal: Journal | None = None
        self._last = b""

    def outcome(self, failure: Failure | None) -> Outcome:
        """What it says of its worker, once it is done."""
        drains = failure is Failure.DRAINING or (self._journal is not None and self._journal.left == LEFT_DRAINING)
        return Outcome(self.status, failure, self.first_s - self.sent_s, self._live, drains)

    def send(self, traced: bytes = b"") -> None:
        """`traced`: rendered headers of the attempt's span."""
        flight, lines = self.flight, b""
        body, moving = flight.body, flight.moving
        if moving is not None:
            lines, body = moving.asks(body)
        head = heads.request_head(flight, self.backend.host, len(body), traced + lines)
        self.sent_s = time.perf_counter()
        if flight.asked_s is None:
            flight.asked_s = self.sent_s
        self._connection.send(head, body, self)

    def expire_if_due(self, now_s: float) -> None:
        if now_s >= self.flight.deadline_s and not self.done.done():
            self._connection.abort()
            self.done.set_result(Failure.TIMEOUT)

    def lose(self) -> None:
        """The worker was found to do nothing: what it owes will not come. A stream stays where it could go nowhere."""
        if self.flight.is_pinned or self.done.done() or (self.flight.movable and not self._elsewhere()):
            return
        self._connection.abort()
        self.done.set_result(Failure.LOST)

    @property
    def timing(self) -> str:
        """Where the worker's time went, as it told; empty where it did not."""
        if self._journal is not None:
            return self._journal.timing.decode("latin-1")
        return (heads.told(self._headers, heads.TIMING) or b"").decode("latin-1")

    def _elsewhere(self) -> bool:
        moving = self.flight.moving
        assert moving is not None
        other = self.flight.state.pick_of(moving.revision, (self.backend,), self._now_s())
        return other is not None and other is not self.backend

    def close(self) -> None:
        """Whatever came of it, this worker has nothing more to do with the stream."""
        journal, moving = self._journal, self.flight.moving
        if journal is None or moving is None:
            return
        if journal is moving.journal:
            self.flight.heard_s = self.heard_s
        else:
            journal.close()  # the client has heard nothing of it

    def _claim(self) -> None:
        """The client hears this attempt from now on, and no other one."""
        flight = self.flight
        flight.begun = True
        flight.backend = self.backend
        if len(flight.relays) > 1:
            for other in flight.relays:
                if other is not self:
                    other._outrun()
            self.take_hold()

    def take_hold(self) -> None:
        """The client's reading, or not, holds up this worker and no other."""
        self._reply.govern(self._connection)

    def _outrun(self) -> None:
        if not self.done.done():
            self._connection.abort()
            self.done.set_result(Failure.OUTRUN)

    # --- Receiver -----------------------------------------------------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        self.heard = True
        self.status = status
        self._headers = headers
        self._live = self.flight.stream and status == 200
        self._refusal = heads.refused(status, headers)
        if self._live and self.flight.moving is not None:
            self._take_journal(self.flight.moving)

    def _take_journal(self, moving: Moving) -> None:
        """The worker's promise of a journal; a stream goes on in none but the one that it has."""
        promised = heads.told(self._headers, heads.STREAM)
        if not self._continues:
            self._journal = None if promised is None else self._streams.journal(promised)
        elif moving.journal is not None and promised == moving.journal.fingerprint:
            self._journal = moving.journal
            self._journal.next_worker()
        else:
            # It did not understand that it should go on, and begins anew.
            self._connection.abort()
            self._finish(Failure.ANSWER)

    def on_data(self, data: bytes) -> None:
        heard_s = self.backend.heard_s = self._now_s()
        if self._refusal is not None:
            return
        if not self.first_s:
            self.first_s = time.perf_counter()
        journal = self._journal
        if journal is not None:
            self.heard_s = heard_s
            data = journal.take(data)
            if self._silent and (data or journal.complete):
                self._speak()
            if not data:
                return
            self._last = data
        elif self._continues:
            return  # the text of a refusal
        elif self._live:
            data = self._events.take(data)
            if not data:
                return
            self.flight.events = self._events.count
        flight = self.flight
        if flight.begun:
            flight.bytes_out += len(data)
            if not self._live:
                self._last = (self._last + data)[-TAIL_BYTES:]
            self._reply.write(data)
        elif self._live:
            self._begin(data)
        else:
            self._hold(data)

    def on_end(self) -> None:
        if not self.first_s:
            self.first_s = time.perf_counter()  # an empty answer begins with its end
        if self._refusal is not None:
            self._finish(self._refusal)
            return
        flight, journal = self.flight, self._journal
        if journal is not None and not journal.complete:
            self._finish(Failure.CLOSED if journal.left is None else Failure.LEFT)
            return
        if self._continues and journal is None:
            self._finish(Failure.REFUSED if self.status == 400 else Failure.ANSWER)
            return
        if self.status >= 500 and len(flight.relays) > 1:
            self._finish(Failure.OUTRUN)  # the other one may do better
            return
        if self._events.tail:
            self._held.append(self._events.tail)
        rest = b"".join(self._held)
        begun = flight.begun
        if not begun:
            self._claim()
        # The next request may have this connection by now: how its client reads is no reason any more to hold it up.
        self._reply.govern(None)
        if not begun:
            flight.status = self.status
            flight.bytes_out = len(rest)
            self._reply.respond(self.status, self._block(), rest)
        else:
            if self._live and rest:
                self._reply.write(rest)
            self._reply.end()
        if self.status == 200:
            flight.usage = self._events.usage or usage_in(self._last or rest) or self._estimate()
        self._finish(None)

    def on_lost(self, lost: Lost) -> None:
        if self._journal is not None and self._journal.complete and self.flight.begun:
            self.on_end()  # nothing is missing but the end of the connection
            return
        self._finish(_FAILURES[lost])

    # --- passing on ---------------------------------------------------------------------------------------------

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > BUFFER_BYTES:
            held, self._held = b"".join(self._held), []
            self._last = held[-TAIL_BYTES:]
            self._begin(held)

    def _begin(self, first: bytes) -> None:
        """From here on the client has part of the answer, and there is no other attempt."""
        flight = self.flight
        self._claim()
        flight.status = self.status
        flight.bytes_out = len(first)
        if self._live:
            flight.ttft_s = time.perf_counter() - flight.started_s
            state = flight.state
            if not flight.is_copy:
                state.open_streams += 1
                state.metrics.first_token(flight.ttft_s, state.service.ttft_target_s)
            if flight.moving is not None:
                flight.moving.journal = self._journal
                flight.moving.revision = self.backend.revision
        self._reply.begin(self.status, self._block(), self._length(), first)

    def _speak(self) -> None:
        """The first that is heard of a worker that took over."""
        self._silent = False
        moving = self.flight.moving
        if moving is not None and moving.why is not None:
            self.flight.state.metrics.moved(moving.why, moving.taken_over(self.heard_s))

    def _estimate(self) -> Usage:
        prompt_tokens = told_tokens(heads.told(self._headers, heads.PROMPT_TOKENS) or b"")
        if self._journal is not None:
            return Usage(estimated(prompt_tokens, len(self.flight.body), 0).prompt, self._journal.n_tokens)
        return estimated(prompt_tokens, len(self.flight.body), self._events.count)

    def _block(self) -> bytes:
        return heads.response_block(self.flight, self._headers, self.backend.revision)

    def _length(self) -> int | None:
        if self._live:
            return None
        length = heads.told(self._headers, b"content-length")
        return None if length is None else int(length)

    def _finish(self, failure: Failure | None) -> None:
        if not self.done.done():
            self.done.set_result(failure)
