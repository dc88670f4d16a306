"""One attempt: what one worker answers, on its way to one client.

Holds back until an answer can no longer fail unseen: a whole body where the client asked for no stream, the first
whole event where it did. From then on every chunk goes through as it comes, in whole events, so that a client never
sees half of one. A stream that another worker has begun goes on where it stopped. Never retries; it tells in `done` why
there was no answer.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from crds.contract import (
    HEADER_DRAINING,
    HEADER_ENGINE_ENDED,
    HEADER_PROMPT_TOKENS,
    HEADER_REQUEST_ID,
    HEADER_REVISION,
    HEADER_STREAM,
    HEADER_TIMING,
    LEFT_DRAINING,
)
from gateway.backend import Backend
from gateway.flight import Flight
from gateway.http1.client import Lost, UpstreamConnection
from gateway.http1.messages import HOP_BY_HOP, Headers, Reply, render
from gateway.requests import HEADER_DECISION
from gateway.retries import Failure
from gateway.service_state import ServiceState
from gateway.settlement import Outcome
from gateway.streams.journal import Journal
from gateway.streams.moving import Moving
from gateway.streams.streams import Streams
from gateway.usage import Usage, estimated, events_in, told_tokens, usage_in

if TYPE_CHECKING:
    pass

BUFFER_BYTES = 8 * 1024 * 1024
"""An answer that is no stream is held back up to this size, and so can be retried until its last byte."""
EVENT_BYTES = 1024 * 1024
"""A longer event is passed on in parts."""

_DRAINING = HEADER_DRAINING.encode()
_ENGINE_ENDED = HEADER_ENGINE_ENDED.encode()
_PROMPT_TOKENS = HEADER_PROMPT_TOKENS.encode()
_TIMING = HEADER_TIMING.encode()
_STREAM = HEADER_STREAM.encode()
_OURS = {
    HEADER_REQUEST_ID.encode(),
    HEADER_REVISION.encode(),
    _DRAINING,
    _ENGINE_ENDED,
    _PROMPT_TOKENS,
    _STREAM,
    _TIMING,
}
_DECISION = HEADER_DECISION + b": %b\r\n"
_DROPPED = HOP_BY_HOP | {b"content-length", b"server"} | _OURS
_REFUSALS = {503: (_DRAINING, Failure.DRAINING), 500: (_ENGINE_ENDED, Failure.CLOSED)}
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_FAILURES = {lost: Failure(lost.value) for lost in Lost}


class Relay:
    """Receives one response (see `gateway.http1.client.Receiver`)."""

    __slots__ = (
        "_backend",
        "_connection",
        "_continues",
        "_events",
        "_flight",
        "_headers",
        "_held",
        "_held_bytes",
        "_journal",
        "_last",
        "_live",
        "_now_s",
        "_refusal",
        "_reply",
        "_silent",
        "_status",
        "_streams",
        "_tail",
        "_usage",
        "done",
        "first_s",
        "heard",
        "heard_s",
        "sent_s",
    )

    def __init__(
        self,
        flight: Flight,
        reply: Reply,
        backend: Backend,
        connection: UpstreamConnection,
        loop: asyncio.AbstractEventLoop,
        streams: Streams,
    ) -> None:
        self.done: asyncio.Future[Failure | None] = loop.create_future()
        self.heard = False
        """The worker has answered at all."""
        self.sent_s = self.first_s = 0.0
        """By `time.perf_counter`: when it was asked, and when the first byte of its answer came; 0 before."""
        self._flight = flight
        self._reply = reply
        self._backend = backend
        self._connection = connection
        self._status = 0
        self._headers: Headers = []
        self._refusal: Failure | None = None
        """Why its answer is none: another worker is asked."""
        self._live = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._tail = b""
        self._events = 0
        self._usage: Usage | None = None
        self._streams = streams
        self._now_s = loop.time
        self.heard_s = loop.time()
        """When it last said something of a stream."""
        self._continues = self._silent = flight.begun
        self._journal: Journal | None = None
        self._last = b""

    @property
    def status(self) -> int:
        return self._status

    @property
    def backend(self) -> Backend:
        return self._backend

    @property
    def state(self) -> ServiceState:
        return self._flight.state

    def outcome(self, failure: Failure | None) -> Outcome:
        """What it says of its worker, once it is done."""
        drains = failure is Failure.DRAINING or (self._journal is not None and self._journal.left == LEFT_DRAINING)
        return Outcome(self._status, failure, self.first_s - self.sent_s, self._live, drains)

    def send(self, traced: bytes = b"") -> None:
        """`traced`: rendered headers of the attempt's span."""
        flight = self._flight
        moving, body, extra = flight.moving, flight.body, flight.extra + traced
        if moving is not None:
            lines, body = moving.asks(body)
            extra += lines
        head = (
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\nx-request-id: %b\r\n"
            b"content-length: %d\r\n%b\r\n" % (flight.path, self._backend.host, flight.request_id, len(body), extra)
        )
        self.sent_s = time.perf_counter()
        self._connection.send(head, body, self)

    def expire_if_due(self, now_s: float) -> None:
        if now_s >= self._flight.deadline_s and not self.done.done():
            self._connection.abort()
            self.done.set_result(Failure.TIMEOUT)

    def lose(self) -> None:
        """The worker was found to do nothing: what it owes will not come. A stream stays where it could go nowhere."""
        if self._flight.is_pinned or self.done.done() or (self.movable and not self._elsewhere()):
            return
        self._connection.abort()
        self.done.set_result(Failure.LOST)

    @property
    def timing(self) -> str:
        """Where the worker's time went, as it told; empty where it did not."""
        if self._journal is not None:
            return self._journal.timing.decode("latin-1")
        return next((value.decode("latin-1") for name, value in self._headers if name == _TIMING), "")

    @property
    def movable(self) -> bool:
        """It is a stream that has begun and can go on elsewhere."""
        moving = self._flight.moving
        return self._flight.begun and moving is not None and moving.possible

    def may_leave(self, now_s: float) -> bool:
        """It is a stream, waits for its first token and has not waited elsewhere, or can go on and has not left a
        worker that hung lately."""
        flight, moving = self._flight, self._flight.moving
        if not flight.begun:
            return flight.stream and not flight.retries
        return self.movable and moving is not None and now_s - moving.left_s >= moving.policy.rest_s

    def _elsewhere(self) -> bool:
        moving = self._flight.moving
        assert moving is not None
        other = self._flight.state.pick_of(moving.revision, (self._backend,), self._now_s())
        return other is not None and other is not self._backend

    def close(self) -> None:
        """Whatever came of it, this worker has nothing more to do with the stream."""
        journal, moving = self._journal, self._flight.moving
        if journal is None or moving is None:
            return
        if journal is moving.journal:
            self._flight.heard_s = self.heard_s
        else:
            journal.close()  # the client has heard nothing of it

    def _claim(self) -> None:
        """The client hears this attempt from now on, and no other one."""
        flight = self._flight
        flight.begun = True
        flight.backend = self._backend
        if len(flight.relays) > 1:
            for other in flight.relays:
                if other is not self:
                    other._outrun()
            self._reply.govern(self._connection)

    def _outrun(self) -> None:
        if not self.done.done():
            self._connection.abort()
            self.done.set_result(Failure.OUTRUN)

    # --- Receiver -----------------------------------------------------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        self.heard = True
        self._status = status
        self._headers = headers
        self._live = self._flight.stream and status == 200
        self._refusal = _refused(status, headers)
        if self._live and self._flight.moving is not None:
            self._take_journal(self._flight.moving)

    def _take_journal(self, moving: Moving) -> None:
        """The worker's promise of a journal; a stream goes on in none but the one that it has."""
        promised = next((value for name, value in self._headers if name == _STREAM), None)
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
        heard_s = self._backend.heard_s = self._now_s()
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
            data = self._whole_events(data)
            if not data:
                return
            self._measure(data)
        flight = self._flight
        if flight.begun:
            flight.bytes_out += len(data)
            self._reply.write(data)
        elif self._live:
            self._begin(data)
        else:
            self._hold(data)

    def on_end(self) -> None:
        if self._refusal is not None:
            self._finish(self._refusal)
            return
        flight, journal = self._flight, self._journal
        if journal is not None and not journal.complete:
            self._finish(Failure.CLOSED if journal.left is None else Failure.LEFT)
            return
        if self._continues and journal is None:
            self._finish(Failure.REFUSED if self._status == 400 else Failure.ANSWER)
            return
        if self._status >= 500 and len(flight.relays) > 1:
            self._finish(Failure.OUTRUN)  # the other one may do better
            return
        if self._live and self._tail:
            self._held.append(self._tail)
        rest = b"".join(self._held)
        if not flight.begun:
            flight.status = self._status
            flight.bytes_out = len(rest)
            self._claim()
            self._reply.respond(self._status, self._block(), rest)
        else:
            if self._live and rest:
                self._reply.write(rest)
            self._reply.end()
        if self._status == 200:
            flight.usage = self._usage or usage_in(self._last or rest) or self._estimate()
        self._finish(None)

    def on_lost(self, lost: Lost) -> None:
        if self._journal is not None and self._journal.complete and self._flight.begun:
            self.on_end()  # nothing is missing but the end of the connection
            return
        self._finish(_FAILURES[lost])

    # --- passing on ---------------------------------------------------------------------------------------------

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > BUFFER_BYTES:
            held, self._held = b"".join(self._held), []
            self._begin(held)

    def _begin(self, first: bytes) -> None:
        """From here on the client has part of the answer, and there is no other attempt."""
        flight = self._flight
        self._claim()
        flight.status = self._status
        flight.bytes_out = len(first)
        if self._live:
            flight.ttft_s = time.perf_counter() - flight.started_s
            state = flight.state
            if not flight.is_copy:
                state.open_streams += 1
                state.metrics.first_token(flight.ttft_s, state.service.ttft_target_s)
            if flight.moving is not None:
                flight.moving.journal = self._journal
                flight.moving.revision = self._backend.revision
        self._reply.begin(self._status, self._block(), self._length(), first)

    def _speak(self) -> None:
        """The first that is heard of a worker that took over."""
        self._silent = False
        moving = self._flight.moving
        if moving is not None and moving.why is not None:
            self._flight.state.metrics.moved(moving.why, moving.taken_over(self.heard_s))

    def _whole_events(self, data: bytes) -> bytes:
        """As many whole events as there are; the beginning of the next one waits for its end."""
        if self._tail:
            data, self._tail = self._tail + data, b""
        if data.endswith(_EVENT_ENDS):
            return data
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _EVENT_ENDS)
        if len(data) - end > EVENT_BYTES:
            return data
        self._tail = data[end:]
        return data[:end]

    def _measure(self, data: bytes) -> None:
        events = events_in(data)
        self._events += events
        self._flight.events += events
        if b'"usage"' in data:
            self._usage = usage_in(data) or self._usage

    def _estimate(self) -> Usage:
        said = next((value for name, value in self._headers if name == _PROMPT_TOKENS), b"")
        prompt_tokens = told_tokens(said)
        if self._journal is not None:
            return Usage(estimated(prompt_tokens, len(self._flight.body), 0).prompt, self._journal.n_tokens)
        return estimated(prompt_tokens, len(self._flight.body), self._events)

    def _block(self) -> bytes:
        flight = self._flight
        decision = b"" if flight.decision is None or not flight.explain else _DECISION % flight.decision.encode()
        kept = render([header for header in self._headers if header[0] not in _DROPPED])
        return b"%b%b%b%bx-request-id: %b\r\nx-foretide-revision: %b\r\n" % (
            kept,
            flight.told,
            flight.notes,
            decision,
            flight.request_id,
            self._backend.revision,
        )

    def _length(self) -> int | None:
        if self._live:
            return None
        return next((int(value) for name, value in self._headers if name == b"content-length"), None)

    def _finish(self, failure: Failure | None) -> None:
        if not self.done.done():
            self.done.set_result(failure)


def _refused(status: int, headers: Headers) -> Failure | None:
    """Why an answer is none: the worker drains, or its engine has ended under the request."""
    header, failure = _REFUSALS.get(status, (b"", None))
    return failure if any(name == header for name, _ in headers) else None
