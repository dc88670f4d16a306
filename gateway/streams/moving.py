"""A stream that may be moved: its ticket, what asks the next worker to go on, and whether to ask once more.

Decides on values; sends nothing. A move adds no load that the lost worker did not have, so the retry budget never stops
one, but every move counts in it: other retries wait until streams have what they need.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from crds.contract import HEADER_CONTINUE, HEADER_STREAM
from gateway.retries import Failure
from gateway.streams.journal import Journal

_STREAM, _CONTINUE = HEADER_STREAM.encode(), HEADER_CONTINUE.encode()
_NOT_ITS_FAULT = frozenset({Failure.CONNECT, Failure.DRAINING, Failure.LOST})
"""Nothing was begun, or the worker hung: no stream does that to a worker, so asking again is only a matter of time."""


@dataclass(frozen=True, slots=True)
class MovePolicy:
    fruitless_most: int = 6
    """Workers in a row that took the stream up and ended without a token: the next one would too."""
    rest_s: float = 0.5
    """After it has left a worker that hung, a stream leaves none that is only suspected; short enough that two workers
    that hang one after the other make no gap of a second."""
    base_s: float = 0.05
    most_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Again:
    """Ask the next worker, after a time."""

    delay_s: float
    message: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    message: str


class Moving:
    """One stream from its first worker to its last."""

    __slots__ = ("_failures", "_fruitless", "_seen_tokens", "gap_s", "journal", "left_s", "lost_s", "moves", "policy",
                 "revision", "ticket", "why")  # fmt: skip

    def __init__(self, policy: MovePolicy) -> None:
        self.ticket = new_ticket()
        self.policy = policy
        self.journal: Journal | None = None
        """Once a worker has promised one."""
        self.revision = b""
        """Of the first worker; no other can go on."""
        self.moves = 0
        self.left_s = float("-inf")
        """When another worker last took over from one that hung, by the loop's clock."""
        self.lost_s: float | None = None
        """When the last worker fell silent, by the loop's clock, while no other has taken over."""
        self.why: Failure | None = None
        """What became of it."""
        self.gap_s = 0.0
        """The longest that the client has waited for another worker."""
        self._failures = self._fruitless = self._seen_tokens = 0

    @property
    def possible(self) -> bool:
        """There is a journal that says all that the client has."""
        return self.journal is not None and not self.journal.lost

    def lost(self, silent_since_s: float, why: Failure) -> None:
        """The worker is gone or silent; the first of these moments in a row counts."""
        if self.lost_s is None:
            self.lost_s, self.why = silent_since_s, why

    def taken_over(self, now_s: float) -> float:
        """The next worker has spoken; for how long nobody had."""
        assert self.lost_s is not None
        gap_s = now_s - self.lost_s
        if self.why is Failure.LOST:
            self.left_s = now_s
        self.lost_s = self.why = None
        self.moves += 1
        self.gap_s = max(self.gap_s, gap_s)
        return gap_s

    def after(self, failure: Failure) -> Again | GiveUp:
        """What to do when a worker has failed amid the stream."""
        journal = self.journal
        if journal is None or journal.lost:
            return GiveUp("no journal")
        if failure is Failure.REFUSED:
            return GiveUp("a worker does not understand the journal")
        n_tokens = journal.n_tokens
        if n_tokens > self._seen_tokens or self._failures == 0:
            self._seen_tokens, self._failures, self._fruitless = n_tokens, 0, 0
        elif failure not in _NOT_ITS_FAULT:
            self._fruitless += 1
        if self._fruitless >= self.policy.fruitless_most:
            return GiveUp(f"{self._fruitless} workers in a row gave no token ≥ {self.policy.fruitless_most}")
        self._failures += 1
        if self._failures == 1:
            return Again(0.0, f"'{failure.value}' after {n_tokens} tokens")
        delay_s = min(self.policy.base_s * 2.0 ** (self._failures - 2), self.policy.most_s)
        return Again(delay_s, f"failure {self._failures} in a row, '{failure.value}', after {n_tokens} tokens")

    def asks(self, body: bytes) -> tuple[bytes, bytes]:
        """Header lines, and the body, for the next worker."""
        journal = self.journal
        if journal is None:
            return b"%b: %b\r\n" % (_STREAM, self.ticket), body
        lines = b"%b: %b\r\n%b: %b %d\r\n" % (
            _STREAM, self.ticket, _CONTINUE, journal.fingerprint, len(body),
        )  # fmt: skip
        return lines, body + journal.content


def new_ticket() -> bytes:
    """Seed, id and time of a stream that nobody else has."""
    drawn = os.urandom(24)
    return b"%d %b %d" % (int.from_bytes(drawn[:8]), drawn[8:].hex().encode(), int(time.time()))
