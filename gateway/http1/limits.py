"""The bounds that every connection is held to, and the one memory budget that all of them share.

Without these a slow, huge or silent peer would cost the others. Never decides what a refusal looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client connection may ask for, and for how long it may keep us waiting."""

    head_bytes: int = 32 * 1024
    header_count: int = 100
    body_bytes: int = 8 * MIB
    buffered_bytes: int = 512 * MIB
    """Request bodies held by all connections together."""
    connections: int = 20_000
    head_timeout_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_timeout_s: float = 60.0
    """From the end of the headers to the end of the body."""
    idle_timeout_s: float = 75.0
    write_stall_timeout_s: float = 60.0
    """A client that reads nothing for this long while we have something for it is gone."""
    linger_s: float = 2.0
    """After a refusal, what the client still sends is read and dropped for this long: closing at once would reset
    the connection and take the refusal's text with it."""


class Problem(Enum):
    """Why the protocol layer refuses a request: status, and a sentence for the client."""

    MALFORMED = (400, "The request is not valid HTTP/1.1.")
    NO_HOST = (400, "An HTTP/1.1 request needs exactly one Host header.")
    SLOW = (408, "The request did not arrive in time.")
    BODY_TOO_LARGE = (413, "The request body is larger than this gateway accepts.")
    EXPECTATION = (417, "The only expectation that this gateway meets is 100-continue.")
    HEAD_TOO_LARGE = (431, "The request line and headers are larger, or more in number, than this gateway accepts.")
    BROKEN = (500, "The gateway failed on this request.")
    CROWDED = (503, "The gateway has no room for another connection.")
    MEMORY = (503, "The gateway holds as many request bodies as it has memory for.")

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        self.sentence = sentence


class ByteBudget:
    """A count of bytes held, refused past a total."""

    __slots__ = ("held_bytes", "total_bytes")

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.held_bytes = 0

    def take(self, count: int) -> bool:
        """True, and counted, when `count` more bytes fit."""
        if self.held_bytes + count > self.total_bytes:
            return False
        self.held_bytes += count
        return True

    def give_back(self, count: int) -> None:
        self.held_bytes -= count
