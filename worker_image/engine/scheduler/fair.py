"""Weighted fair shares in tokens: the virtual token counter of Sheng et al. (OSDI 2024, algorithm 2), with weights.

The tenant who was served least, by weight, comes next. A tenant who was away does not come back with credit: its
counter is lifted to the least of those who wait. Inside a tenant: by class, aged. Between two tenants that wait all the
time, service differs by a constant, however long they do.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as Many
from itertools import count
from typing import Final

from worker_image.engine.scheduler.queue import RankedQueue
from worker_image.engine.scheduler.ranked import class_rank
from worker_image.engine.sequence import Sequence

INPUT_PRICE: Final = 1.0
OUTPUT_PRICE: Final = 2.0
"""Of a token, as published."""
MOST_IDLE_ACCOUNTS: Final = 4096


class Account:
    """One tenant's: `counter` is tokens × price ÷ weight, and never falls."""

    __slots__ = ("counter", "listed", "n_here", "queue", "weight")

    def __init__(self) -> None:
        self.counter = 0.0
        self.weight = 1.0
        self.n_here = 0
        """Sequences that wait or run."""
        self.queue = RankedQueue()
        self.listed = False
        """It is in the heap of those who wait."""


class WeightedFair:
    reorders = True
    meters = True

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._accounts: dict[str, Account] = {}
        self._heap: list[tuple[float, int, Account]] = []
        """Counters as they were; a stale one is put right when it comes up, as counters only grow."""
        self._ticks = count()
        self._waiting: OrderedDict[Sequence, None] = OrderedDict()
        """Oldest first, but for those that came back."""
        self._last: Account | None = None
        """Who left last, where nobody waits."""
        self._decodes: Many[Sequence] = ()
        self._increments: list[tuple[Account, float]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting)

    def service(self, tenant: str) -> float:
        """Tokens × price ÷ weight, lifts included."""
        account = self._accounts.get(tenant)
        return 0.0 if account is None else account.counter

    def add(self, sequence: Sequence) -> None:
        account = self._account(sequence)
        if account.weight != sequence.standing.weight:
            account.weight = sequence.standing.weight
            self._decodes = ()
        account.n_here += 1
        self._wait(sequence, account, back=False)

    def take_back(self, sequence: Sequence) -> None:
        self._wait(sequence, self._account(sequence), back=True)

    def _wait(self, sequence: Sequence, account: Account, *, back: bool) -> None:
        # One that gave its place away was not idle, so nothing is lifted for it.
        if not account.queue and not back:
            account.counter = max(account.counter, self._floor())
        account.queue.add(sequence, class_rank(sequence, self._ageing_s), back=back)
        self._waiting[sequence] = None
        if back:
            self._waiting.move_to_end(sequence, last=False)
        if not account.listed:
            account.listed = True
            heapq.heappush(self._heap, (account.counter, next(self._ticks), account))

    def _floor(self) -> float:
        """The least counter of those who wait, or of who was the last to."""
        least = self._least()
        if least is not None:
            return least.counter
        return 0.0 if self._last is None else self._last.counter

    def remove(self, sequence: Sequence) -> None:
        account = self._account(sequence)
        account.queue.remove(sequence)
        del self._waiting[sequence]
        self._last = account

    def forget(self, sequence: Sequence) -> None:
        self._account(sequence).n_here -= 1
        if len(self._accounts) > MOST_IDLE_ACCOUNTS:
            self._forget_idle()

    def _forget_idle(self) -> None:
        """Those of the least service: what a lift would not give back anyway."""
        idle = [name for name, account in self._accounts.items() if not account.n_here]
        idle.sort(key=lambda name: self._accounts[name].counter)
        for name in idle[: max(len(idle) // 2, 1)] if idle else ():
            del self._accounts[name]

    def head(self, now: float) -> Sequence | None:
        account = self._least()
        return None if account is None else account.queue.head()

    def _least(self) -> Account | None:
        heap = self._heap
        while heap:
            counter, _, account = heap[0]
            if not account.queue:
                account.listed = False
                heapq.heappop(heap)
            elif account.counter > counter:
                heapq.heapreplace(heap, (account.counter, next(self._ticks), account))
            else:
                return account
        return None

    def first(self, most: int) -> list[Sequence]:
        waiting = heapq.nsmallest(most, (a for a in self._accounts.values() if a.queue), key=lambda a: a.counter)
        each = -(-most // len(waiting)) if waiting else 0
        return [sequence for account in waiting for sequence in account.queue.first(each)][:most]

    def oldest(self) -> Sequence | None:
        return next(iter(self._waiting), None)

    def rank(self, sequence: Sequence) -> tuple[float, float]:
        """Fairness is in who comes in; those who are in are ranked by class, so that none is pushed out by turns."""
        return class_rank(sequence, self._ageing_s), 0.0

    def displaces(self, waiting: Sequence, running: Sequence) -> bool:
        """A tenant's urgent work takes places of its own lower classes, never of others: they would take them back."""
        mine, theirs = waiting.standing, running.standing
        if mine.tenant != theirs.tenant or mine.priority >= theirs.priority:
            return False
        return class_rank(waiting, self._ageing_s) < class_rank(running, self._ageing_s)

    def admitted(self, sequence: Sequence) -> None:
        account = self._account(sequence)
        account.counter += INPUT_PRICE * len(sequence.tokens) / account.weight

    def decoded(self, sequences: Many[Sequence]) -> None:
        if sequences is not self._decodes:
            self._decodes = sequences
            increments: dict[Account, float] = {}
            for sequence in sequences:
                account = self._account(sequence)
                increments[account] = increments.get(account, 0.0) + OUTPUT_PRICE / account.weight
            self._increments = list(increments.items())
        for account, increment in self._increments:
            account.counter += increment

    def _account(self, sequence: Sequence) -> Account:
        tenant = sequence.standing.tenant
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account()
        return account
