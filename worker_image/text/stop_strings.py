"""Watches a stream of text for stop strings; text that may yet become one is held back."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """`push` gives the text that is safe to show; once `stopped`, everything from the stop string on is dropped."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._take(min(found))
        return self._take(len(self._held) - self._longest_beginning())

    def flush(self) -> str:
        """What was held back for nothing, when no text follows."""
        return "" if self.stopped else self._take(len(self._held))

    def _take(self, length: int) -> str:
        safe, self._held = self._held[:length], self._held[length:]
        return safe

    def _longest_beginning(self) -> int:
        """Length of the longest end of the held text with which some stop string begins."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
