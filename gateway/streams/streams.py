"""What all streams of one gateway share: the memory for their journals, and the rules."""

from __future__ import annotations

from gateway.http1.limits import ByteBudget
from gateway.streams.journal import Journal, StreamLimits
from gateway.streams.moving import MovePolicy, Moving


class Streams:
    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._memory = ByteBudget(limits.journal_bytes)
        self._policy = MovePolicy()

    @property
    def journal_bytes(self) -> int:
        return self._memory.held_bytes

    def moving(self) -> Moving | None:
        """For a stream that begins; None where none is to be moved."""
        return Moving(self._policy) if self._limits.journal_bytes else None

    def journal(self, fingerprint: bytes) -> Journal:
        return Journal(fingerprint, self._limits, self._memory)
