"""Policies whose rank is a point in time: arrival plus an allowance. So each of them ages by itself.

Whoever comes later than a request's own rank comes after it, whatever its class: nobody is overtaken for longer than
the largest allowance. That is all there is to starvation, and no timer is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import Final

from worker_image.engine.scheduler.queue import RankedQueue
from worker_image.engine.sequence import Sequence
from worker_image.engine.standing import CLASSES


def class_rank(sequence: Sequence, ageing_s: float) -> float:
    """Arrival plus `ageing_s` for each class below the best."""
    return sequence.arrived_at + ageing_s * sequence.standing.priority


class Ranked(ABC):
    reorders = True
    meters = False

    def __init__(self, ageing_s: float) -> None:
        self.ageing_s = ageing_s
        self._queue = RankedQueue()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._queue)

    def add(self, sequence: Sequence) -> None:
        self._queue.add(sequence, self.when(sequence))

    def take_back(self, sequence: Sequence) -> None:
        self._queue.add(sequence, self.when(sequence), back=True)

    def remove(self, sequence: Sequence) -> None:
        self._queue.remove(sequence)

    def forget(self, sequence: Sequence) -> None:
        return None

    def head(self, now: float) -> Sequence | None:
        return self._queue.head()

    def first(self, most: int) -> list[Sequence]:
        return self._queue.first(most)

    def oldest(self) -> Sequence | None:
        return self._queue.oldest()

    @abstractmethod
    def when(self, sequence: Sequence) -> float:
        """The point in time that it is ranked by."""

    def rank(self, sequence: Sequence) -> tuple[float, float]:
        return self.when(sequence), 0.0

    def displaces(self, waiting: Sequence, running: Sequence) -> bool:
        """A better class does, as long as the other has not aged into it."""
        return waiting.standing.priority < running.standing.priority and self.when(waiting) < self.when(running)

    def admitted(self, sequence: Sequence) -> None:
        return None

    def decoded(self, sequences: Many[Sequence]) -> None:
        raise AssertionError("nothing is metered")


class Priority(Ranked):
    """P0 before P1 before P2 before P3."""

    def when(self, sequence: Sequence) -> float:
        return class_rank(sequence, self.ageing_s)


class EarliestDeadline(Ranked):
    """Whose first token is due first; once that is out, whose deadline comes first.

    One that is late without a token goes behind those that can still be in time: under overload, plain
    earliest-deadline-first makes everybody late in turn (Jensen, Locke and Tokuda, RTSS 1985).
    """

    @property
    def longest_s(self) -> float:
        """No request waits for those who come later than this after it."""
        return self.ageing_s * len(CLASSES)

    def when(self, sequence: Sequence) -> float:
        standing = sequence.standing
        # Once it goes on, its own deadline is what is left to be in time for.
        end_s = standing.deadline_s if sequence.n_generated else None
        return sequence.arrived_at + min(standing.due_s if end_s is None else end_s, self.longest_s)

    def displaces(self, waiting: Sequence, running: Sequence) -> bool:
        """A better class does, where it is due earlier or the other's first token is out."""
        better = waiting.standing.priority < running.standing.priority
        return better and (running.n_generated > 0 or self.when(waiting) < self.when(running))

    def head(self, now: float) -> Sequence | None:
        while (head := self._queue.head()) is not None:
            late_rank = head.arrived_at + self.longest_s
            if now <= self.when(head) or self._queue.rank_of(head) >= late_rank:
                return head
            self._queue.rerank(head, late_rank)
        return None


LEVELS: Final = (64, 256, 1024)
"""Work after which a request sinks one level."""
PREFILL_DISCOUNT: Final = 8
"""So many prompt tokens are as much work as one that is generated: they share a step."""


class Feedback(Ranked):
    """Short work first, without knowing what is short: a request sinks as it is served (multi-level feedback).

    A long prompt begins where its prefill would have sunk it anyway (skip-join, FastServe, NSDI 2026).
    """

    def when(self, sequence: Sequence) -> float:
        return sequence.arrived_at + self.ageing_s * self.level(sequence)

    def level(self, sequence: Sequence) -> int:
        return bisect_right(LEVELS, sequence.n_prompt // PREFILL_DISCOUNT + sequence.n_generated)

    def displaces(self, waiting: Sequence, running: Sequence) -> bool:
        return self.level(waiting) < self.level(running) and self.when(waiting) < self.when(running)
