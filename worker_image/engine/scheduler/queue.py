"""Those who wait, lowest rank first. Ranks do not change while one waits, so that finding the first costs little."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from itertools import count

from worker_image.engine.sequence import Sequence

_Entry = tuple[float, int, Sequence]


class RankedQueue:
    """Equal ranks in order of their coming."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Sequence, _Entry] = OrderedDict()
        """Oldest first, but for those that came back."""
        self._heap: list[_Entry] = []
        """Entries of those who have left are thrown away when they come up."""
        self._ticks = count()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._entries)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._entries

    def add(self, sequence: Sequence, rank: float, *, back: bool = False) -> None:
        """back: it has waited before."""
        entry = (rank, next(self._ticks), sequence)
        self._entries[sequence] = entry
        if back:
            self._entries.move_to_end(sequence, last=False)
        heapq.heappush(self._heap, entry)

    def remove(self, sequence: Sequence) -> None:
        del self._entries[sequence]
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def rank_of(self, sequence: Sequence) -> float:
        return self._entries[sequence][0]

    def rerank(self, sequence: Sequence, rank: float) -> None:
        """Keeps its age."""
        entry = (rank, next(self._ticks), sequence)
        self._entries[sequence] = entry
        heapq.heappush(self._heap, entry)

    def head(self) -> Sequence | None:
        heap, entries = self._heap, self._entries
        while heap:
            entry = heap[0]
            if entries.get(entry[2]) is entry:
                return entry[2]
            heapq.heappop(heap)
        return None

    def first(self, most: int) -> list[Sequence]:
        """Up to so many, best first."""
        return [sequence for _, _, sequence in heapq.nsmallest(most, self._entries.values())]

    def oldest(self) -> Sequence | None:
        return next(iter(self._entries), None)
