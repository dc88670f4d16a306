"""A stream whose worker writes no journal: passed on in whole events, which are counted.

Keeps the beginning of an event until its end has come, and the last `usage`; never an event that is whole.
"""

from __future__ import annotations

from gateway.usage import Usage, events_in, usage_in

EVENT_BYTES = 1024 * 1024
"""A longer event is passed on in parts."""
_ENDS = (b"\n\n", b"\r\n\r\n")


class Events:
    __slots__ = ("count", "tail", "usage")

    def __init__(self) -> None:
        self.tail = b""
        """An event that has not ended yet."""
        self.count = 0
        self.usage: Usage | None = None
        """The last that was told."""

    def take(self, data: bytes) -> bytes:
        """As many whole events as there are; the beginning of the next one waits for its end."""
        if self.tail:
            data, self.tail = self.tail + data, b""
        if not data.endswith(_ENDS):
            data = self._cut(data)
        if data:
            self.count += events_in(data)
            if b'"usage"' in data:
                self.usage = usage_in(data) or self.usage
        return data

    def _cut(self, data: bytes) -> bytes:
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _ENDS)
        if len(data) - end > EVENT_BYTES:
            return data
        self.tail = data[end:]
        return data[:end]
