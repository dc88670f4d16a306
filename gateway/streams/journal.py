"""What a worker writes down of a stream beside it: kept here, and taken out of what the client sees.

The format is in `crds.contract`; of it only the ends of the comments and the two marks are understood here. A worker's
events and the comment after them are passed on together or not at all, so the journal is exactly what the client has.
Bounded per stream and for all together: a stream without room loses its journal, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from crds.contract import JOURNAL_COMPLETE, JOURNAL_LEFT
from gateway.http1.limits import MIB, ByteBudget

BLOCK_BYTES = 512
"""Memory is counted in these: most answers need a few."""
_COLON = ord(":")


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How much is kept so that streams can go on elsewhere."""

    journal_bytes: int = 256 * MIB
    """Of all streams together; 0 asks no worker for a journal."""
    stream_bytes: int = 4 * MIB
    """Of one: a token takes about 5, so this is more than any model's context."""
    unit_bytes: int = 1 * MIB
    """Of what a worker writes at once; with more, the rest passes unread and the stream cannot be moved."""


class Journal:
    """Of one stream on its way through its workers."""

    __slots__ = ("_bytes", "_counted_bytes", "_dropped_tokens", "_limits", "_memory", "_tail",
                 "complete", "fingerprint", "left", "lost", "parting", "timing")  # fmt: skip

    def __init__(self, fingerprint: bytes, limits: StreamLimits, memory: ByteBudget) -> None:
        self.fingerprint = fingerprint
        """Of the worker that began; any other that takes over has the same."""
        self.complete = False
        """The worker has said that nothing follows."""
        self.timing = b""
        """Where the time of the last worker went, if it was asked."""
        self.left: bytes | None = None
        """Why the present worker cannot go on, in its own word."""
        self.parting = b""
        """What it would tell the client about that."""
        self.lost = False
        """There was no room: the stream cannot go on elsewhere."""
        self._bytes = bytearray()
        self._counted_bytes = 0
        self._dropped_tokens = 0
        self._limits = limits
        self._memory = memory
        self._tail = b""

    def take(self, data: bytes) -> bytes:
        """The part of what has come by now that the client may see; the rest waits for the end of its comment."""
        if self._tail:
            data, self._tail = self._tail + data, b""
        at = data.find(b"\n:") + 1
        # Nearly always: one write of the worker, whole.
        if at and data[0] != _COLON and data.find(b"\n\n", at) == len(data) - 2:
            return data[:at] if self._note(data[at + 1 : -1]) else self._part(data[:at])
        return self._take_apart(data)

    def _take_apart(self, data: bytes) -> bytes:
        shown = []
        start, size = 0, len(data)
        while start < size:
            at = start if data[start] == _COLON else data.find(b"\n:", start) + 1
            end = data.find(b"\n\n", at) if at or data[start] == _COLON else -1
            if end < 0:
                break
            events = data[start:at]
            shown.append(events if self._note(data[at + 1 : end + 1]) else self._part(events))
            start = end + 2
        self._tail = data[start:]
        if len(self._tail) > self._limits.unit_bytes:
            self._lose()
            shown.append(self._tail)
            self._tail = b""
        return b"".join(shown)

    def _note(self, comment: bytes) -> bool:
        """Keeps a comment, which ends with its line; False where the worker leaves with it."""
        if len(comment) < 2:
            return True
        if comment.startswith(JOURNAL_LEFT):
            self.left = comment[1:-1]
            return False
        if comment.startswith(JOURNAL_COMPLETE):
            self.complete = True
            self.timing = comment[1:-1]
        elif self.lost:
            self._dropped_tokens += tokens_in(comment)
        else:
            self._bytes += comment
            if len(self._bytes) > self._counted_bytes:
                self._count()
        return True

    def _part(self, events: bytes) -> bytes:
        self.parting = events
        return b""

    def _count(self) -> None:
        more = -(-(len(self._bytes) - self._counted_bytes) // BLOCK_BYTES) * BLOCK_BYTES
        if len(self._bytes) > self._limits.stream_bytes or not self._memory.take(more):
            self._lose()
        else:
            self._counted_bytes += more

    def _lose(self) -> None:
        self.lost = True
        self._dropped_tokens += tokens_in(self._bytes)
        self.close()

    def close(self) -> None:
        """Gives the memory back."""
        self._memory.give_back(self._counted_bytes)
        self._counted_bytes = 0
        self._bytes = bytearray()

    def next_worker(self) -> None:
        """What the last one began and did not end counts for nothing."""
        self._tail = self.parting = b""
        self.left = None

    @property
    def content(self) -> bytes:
        """For the next worker."""
        return bytes(self._bytes)

    @property
    def n_tokens(self) -> int:
        """Of the answer so far."""
        return self._dropped_tokens + tokens_in(self._bytes)


def tokens_in(journal: bytes | bytearray) -> int:
    """Token ids in lines of a journal."""
    separators = journal.count(b"\n") + journal.count(b" ") + journal.count(b";")
    return separators - journal.count(b"@")
