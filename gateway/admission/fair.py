"""Who is next: strict between classes but for age, fair in tokens between tenants, earliest due first inside a tenant.

Between classes a waiting request grows older by what it has waited ÷ what its class is due within: the class whose
oldest request has the lowest `class − age` is next, so that whatever waits long enough is served. Between tenants a
virtual token counter each (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): the lowest is next
and pays what it is given ÷ its weight; who comes back after a pause is lifted to those who were served meanwhile, so
that nobody saves up a claim to crowd the others out. Pure: `now_s` is an argument.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from gateway.admission.terms import FIRST_TOKEN_S, Priority

COUNTERS_KEPT: Final = 4096


class Ask:
    """One request that waits."""

    __slots__ = ("bytes", "came_s", "deadline_s", "due_s", "priority", "seq", "tenant", "tokens", "waits", "weight")

    def __init__(
        self,
        tenant: str,
        weight: float,
        priority: Priority,
        tokens: float,
        came_s: float,
        deadline_s: float,
        size: int = 0,
    ) -> None:
        self.tenant = tenant
        self.weight = weight
        self.priority = priority
        self.tokens = tokens
        self.came_s = came_s
        self.due_s = came_s + FIRST_TOKEN_S[priority]
        """When its first token is due."""
        self.deadline_s = deadline_s
        """When its answer is of no more use."""
        self.bytes = size
        self.waits = True
        self.seq = 0


class Meter:
    """The virtual token counters of one class."""

    __slots__ = ("_counters", "_floor")

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self._floor = 0.0
        """Where the one that was served last stood."""

    def counter(self, tenant: str) -> float:
        return self._counters.get(tenant, 0.0)

    def lift(self, tenant: str, waiting: dict[str, list[tuple[float, int, Ask]]]) -> None:
        """`tenant` comes back: it stands no lower than those who wait, or than who was served last."""
        lowest = min((self.counter(one) for one in waiting), default=self._floor)
        self._counters[tenant] = max(self.counter(tenant), lowest)

    def serve(self, tenant: str, weight: float, tokens: float) -> None:
        """Out of the queue."""
        self._floor = self._counters[tenant]
        self._counters[tenant] = self._floor + tokens / weight
        if len(self._counters) > COUNTERS_KEPT:
            self._counters = {one: value for one, value in self._counters.items() if value >= self._floor}

    def pass_by(self, tenant: str, weight: float, tokens: float) -> None:
        """Served at once while nobody waits: the same as through the queue, for less."""
        floor = self._floor
        own = self._counters.get(tenant, 0.0)
        if own > floor:
            floor = self._floor = own
        self._counters[tenant] = floor + tokens / weight

    def correct(self, tenant: str, weight: float, tokens: float) -> None:
        """What it was given turned out to be so much more, or less."""
        if tenant in self._counters:
            self._counters[tenant] += tokens / weight


class _Class:
    """The requests of one class that wait."""

    __slots__ = ("arrivals", "count", "counts", "meter", "newest_of", "tenants")

    def __init__(self) -> None:
        self.meter = Meter()
        self.count = 0
        self.counts: Counter[str] = Counter()
        """By tenant."""
        self.tenants: dict[str, list[tuple[float, int, Ask]]] = {}
        self.arrivals: deque[Ask] = deque()
        self.newest_of: dict[str, deque[Ask]] = {}
        """By tenant, in the order of arrival."""

    def oldest(self) -> Ask:
        while not self.arrivals[0].waits:
            self.arrivals.popleft()
        return self.arrivals[0]

    def newest(self) -> Ask:
        """Of the tenant that has most here for its weight: a flood displaces its own."""
        own = self.newest_of[max(self.tenants, key=self.load)]
        while not own[-1].waits:
            own.pop()
        return own[-1]

    def load(self, tenant: str) -> float:
        """How many of a tenant wait, for its weight."""
        return self.counts[tenant] / self.tenants[tenant][0][2].weight

    def sweep(self) -> None:
        """Lets go of those that left from the middle."""
        self.arrivals = deque(one for one in self.arrivals if one.waits)
        for tenant, heap in self.tenants.items():
            self.tenants[tenant] = sorted(entry for entry in heap if entry[2].waits)
            self.newest_of[tenant] = deque(one for one in self.newest_of[tenant] if one.waits)


class FairQueue:
    """`push`, `pop`, `discard`; and `meter` for what needs no queue."""

    def __init__(self) -> None:
        self._classes = tuple(_Class() for _ in Priority)
        self._order = itertools.count()
        self._count = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._count

    def waiting(self, priority: Priority) -> int:
        return self._classes[priority].count

    def meter(self, priority: Priority) -> Meter:
        return self._classes[priority].meter

    def push(self, ask: Ask) -> None:
        ask.seq = next(self._order)
        row = self._classes[ask.priority]
        if ask.tenant not in row.tenants:
            row.meter.lift(ask.tenant, row.tenants)
            row.tenants[ask.tenant], row.newest_of[ask.tenant] = [], deque()
        heapq.heappush(row.tenants[ask.tenant], (ask.due_s, ask.seq, ask))
        row.arrivals.append(ask)
        row.newest_of[ask.tenant].append(ask)
        row.count += 1
        row.counts[ask.tenant] += 1
        self._count += 1
        self.bytes += ask.bytes

    def pop(self, now_s: float) -> Ask | None:
        """Who is next; it is paid for."""
        if not self._count:
            return None
        row = self._classes[min(self._occupied(), key=lambda one: self.rank(one, now_s))]
        tenant = min(row.tenants, key=row.meter.counter)
        _, _, ask = row.tenants[tenant][0]
        row.meter.serve(tenant, ask.weight, ask.tokens)
        self.discard(ask)
        return ask

    def rank(self, priority: Priority, now_s: float) -> float:
        """Of an occupied class: the lower, the sooner."""
        return priority - (now_s - self._classes[priority].oldest().came_s) / FIRST_TOKEN_S[priority]

    def discard(self, ask: Ask) -> None:
        """It waits no longer, whatever the reason; twice is once."""
        if not ask.waits:
            return
        ask.waits = False
        row = self._classes[ask.priority]
        row.count -= 1
        row.counts[ask.tenant] -= 1
        self._count -= 1
        self.bytes -= ask.bytes
        heap, arrived = row.tenants[ask.tenant], row.newest_of[ask.tenant]
        while heap and not heap[0][2].waits:
            heapq.heappop(heap)
        while arrived and not arrived[0].waits:
            arrived.popleft()
        if not heap:
            del row.tenants[ask.tenant], row.newest_of[ask.tenant], row.counts[ask.tenant]
        if len(row.arrivals) > 2 * row.count + 16:
            row.sweep()

    # --- looking ------------------------------------------------------------------------------------------------

    def ahead(self, tenant: str, weight: float, priority: Priority) -> float:
        """How many would be served before one more: all that stand higher, or its own at its tenant's share."""
        higher = sum(self._classes[one].count for one in Priority if one < priority)
        row = self._classes[priority]
        own = row.counts[tenant]
        others = sum(heap[0][2].weight for name, heap in row.tenants.items() if name != tenant)
        return higher + min(row.count, own * (weight + others) / weight + len(row.tenants))

    def gives_way(self, tenant: str, weight: float, priority: Priority) -> Ask | None:
        """Who goes when there is no room for one more: the newest of the lowest class, or of a tenant that has more
        of the same class for its weight. None: the newcomer itself."""
        lowest = max(self._occupied(), default=None)
        if lowest is None or lowest < priority:
            return None
        row = self._classes[lowest]
        newest = row.newest()
        if lowest > priority:
            return newest
        return newest if row.load(newest.tenant) > (row.counts[tenant] + 1) / weight else None

    def newest(self, priority: Priority) -> Ask | None:
        row = self._classes[priority]
        return row.newest() if row.count else None

    def all(self) -> Iterator[Ask]:
        for row in self._classes:
            yield from (one for one in row.arrivals if one.waits)

    def _occupied(self) -> Iterator[Priority]:
        return (one for one in Priority if self._classes[one].count)
