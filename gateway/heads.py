"""The heads of an exchange with a worker: what it is sent, and what the client gets to see of its answer's.

Pure: bytes in, bytes out. Nothing that the gateway and its workers tell each other passes to a client.
"""

from __future__ import annotations

from crds.contract import (
    HEADER_DRAINING,
    HEADER_ENGINE_ENDED,
    HEADER_PROMPT_TOKENS,
    HEADER_REQUEST_ID,
    HEADER_REVISION,
    HEADER_STREAM,
    HEADER_TIMING,
)
from gateway.flight import Flight
from gateway.http1.messages import HOP_BY_HOP, Headers, render
from gateway.requests import HEADER_DECISION
from gateway.retries import Failure

PROMPT_TOKENS = HEADER_PROMPT_TOKENS.encode()
STREAM = HEADER_STREAM.encode()
TIMING = HEADER_TIMING.encode()
_DRAINING = HEADER_DRAINING.encode()
_ENGINE_ENDED = HEADER_ENGINE_ENDED.encode()
_OURS = {
    HEADER_REQUEST_ID.encode(),
    HEADER_REVISION.encode(),
    PROMPT_TOKENS,
    STREAM,
    TIMING,
    _DRAINING,
    _ENGINE_ENDED,
}
_DROPPED = HOP_BY_HOP | {b"content-length", b"server"} | _OURS
_DECISION = HEADER_DECISION + b": %b\r\n"
_REFUSALS = {503: (_DRAINING, Failure.DRAINING), 500: (_ENGINE_ENDED, Failure.CLOSED)}


def request_head(flight: Flight, host: bytes, body_bytes: int, lines: bytes) -> bytes:
    """`lines`: rendered headers of this attempt."""
    return (
        b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\nx-request-id: %b\r\n"
        b"content-length: %d\r\n%b%b\r\n" % (flight.path, host, flight.request_id, body_bytes, flight.extra, lines)
    )


def response_block(flight: Flight, headers: Headers, revision: bytes) -> bytes:
    """The header lines of the client's answer, without framing."""
    decision = b"" if flight.decision is None or not flight.explain else _DECISION % flight.decision.encode()
    kept = render([header for header in headers if header[0] not in _DROPPED])
    return b"%b%b%b%bx-request-id: %b\r\nx-foretide-revision: %b\r\n" % (
        kept, flight.told, flight.notes, decision, flight.request_id, revision,
    )  # fmt: skip


def refused(status: int, headers: Headers) -> Failure | None:
    """Why an answer is none: the worker drains, or its engine has ended under the request."""
    header, failure = _REFUSALS.get(status, (b"", None))
    return None if failure is None or told(headers, header) is None else failure


def told(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header; None without one."""
    return next((value for one, value in headers if one == name), None)
