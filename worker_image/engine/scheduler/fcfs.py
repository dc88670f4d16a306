"""First come, first served: the default, and what everything else is measured against."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Many
from itertools import islice

from worker_image.engine.sequence import Sequence


class FirstComeFirstServed:
    """The order of arrival; one that had to give way comes before all who never had a place."""

    reorders = False
    meters = False

    def __init__(self) -> None:
        self._waiting: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def take_back(self, sequence: Sequence) -> None:
        self._waiting.appendleft(sequence)

    def remove(self, sequence: Sequence) -> None:
        if self._waiting[0] is sequence:
            self._waiting.popleft()
        else:
            self._waiting.remove(sequence)

    def forget(self, sequence: Sequence) -> None:
        pass

    def head(self, now: float) -> Sequence | None:
        return self._waiting[0] if self._waiting else None

    def first(self, most: int) -> list[Sequence]:
        return list(islice(self._waiting, most))

    def oldest(self) -> Sequence | None:
        return self._waiting[0] if self._waiting else None

    def rank(self, sequence: Sequence) -> tuple[float, float]:
        return sequence.arrived_at, 0.0

    def displaces(self, waiting: Sequence, running: Sequence) -> bool:
        return False

    def admitted(self, sequence: Sequence) -> None:
        pass

    def decoded(self, sequences: Many[Sequence]) -> None:
        raise AssertionError("nothing is metered")
