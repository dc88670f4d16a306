"""Requests as the server hands them on, answers as it writes them, and the rendering of heads.

Pure values and bytes: nothing here touches a socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from gateway.http1.limits import Problem

Headers = list[tuple[bytes, bytes]]

_PHRASES: Final[Mapping[int, str]] = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES: Final[Mapping[int, bytes]] = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(200, 1000)
}
"""Of all that a worker can say, also without a phrase for it."""
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that speak of one connection and must not cross a proxy (RFC 9110, section 7.6.1)."""


class Request:
    """One request, complete. Header names are lower case; values of repeated headers are joined by a comma."""

    __slots__ = ("body", "head", "headers", "keep_alive", "method", "minor_version", "target")

    def __init__(
        self, method: bytes, target: bytes, headers: dict[bytes, bytes], minor_version: int, keep_alive: bool
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.minor_version = minor_version
        self.keep_alive = keep_alive
        self.body = b""
        self.head: object = None
        """What the application read of the head, for its own use when the body is there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response that needs no upstream."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    close: bool = False
    is_to_head: bool = False
    """The body is told of and not sent."""


class Flow(Protocol):
    """A source of bytes that can be told to wait."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Reply(Protocol):
    """Where the response to one request is written."""

    @property
    def closed(self) -> bool:
        """The client is gone; what is written goes nowhere."""

    def answer(self, answer: Answer) -> None: ...
    def respond(self, status: int, block: bytes, body: bytes) -> None:
        """The whole response. `block` is rendered headers without framing."""

    def begin(self, status: int, block: bytes, length: int | None, first: bytes) -> None:
        """The head and the first bytes of a body of `length` bytes, or of unknown length."""

    def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def abort(self) -> None:
        """Cuts the connection, so that the client cannot take a part for the whole."""

    def govern(self, flow: Flow | None) -> None:
        """`flow` is paused while the client does not read."""


class Application(Protocol):
    """What the server serves."""

    def admit(self, request: Request) -> Answer | None:
        """Asked when the headers are there and the body is not: an answer here spares reading the body."""

    async def handle(self, request: Request, reply: Reply) -> None: ...
    def refuse(self, problem: Problem) -> Answer:
        """The text of a refusal by the protocol layer."""


def render(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header lines, each with its line end. Values must have come out of a parser or be our own."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def render_answer(answer: Answer) -> bytes:
    """The header lines of an answer, without framing."""
    lines = b"content-type: %b\r\n" % answer.content_type if answer.body else b""
    return lines + render(answer.headers)
