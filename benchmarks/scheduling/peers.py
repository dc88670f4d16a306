"""The peers, written after their sources: vLLM v1's scheduler (`v1/core/sched/scheduler.py`) with its two policies,
and the virtual token counter as published (Sheng et al., OSDI 2024, algorithm 2) in the same loop.

vLLM's loop: running requests first, in order, each with as many tokens as it lacks; where blocks run out, the last of
them gives its blocks back (under priority: the worst by class and arrival) and is computed again later. New requests
come in only in steps in which nobody was preempted, while there are places, tokens and blocks for their chunk.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.scheduling.machine import BLOCK_TOKENS, Step
from benchmarks.scheduling.workloads import Asked
from forecasting.profile import Profile


@dataclass(eq=False, slots=True)
class Request:
    index: int
    asked: Asked
    tokens: int
    """Prompt and generated."""
    computed: int = 0
    blocks: int = 0
    begun: bool = False

    @property
    def order(self) -> tuple[int, float, int]:
        return self.asked.priority, self.asked.at_s, self.index


class Waiting(Protocol):
    """Who comes next."""

    by_priority: bool

    def __len__(self) -> int: ...

    def add(self, request: Request) -> None: ...

    def put_back(self, request: Request) -> None: ...

    def peek(self) -> Request: ...

    def pop(self) -> None: ...

    def made(self, request: Request) -> None:
        """It got a token by decoding."""


class Fcfs:
    by_priority = False

    def __init__(self) -> None:
        self._queue: deque[Request] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, request: Request) -> None:
        self._queue.append(request)

    def put_back(self, request: Request) -> None:
        self._queue.appendleft(request)

    def peek(self) -> Request:
        return self._queue[0]

    def pop(self) -> None:
        self._queue.popleft()

    def made(self, request: Request) -> None:
        return None


class ByPriority(Fcfs):
    by_priority = True

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, float, int], Request]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: Request) -> None:
        heapq.heappush(self._heap, (request.order, request))

    put_back = add

    def peek(self) -> Request:
        return self._heap[0][1]

    def pop(self) -> None:
        heapq.heappop(self._heap)


@dataclass(slots=True)
class VirtualTokenCounter:
    """Counters by client; no weights, no classes."""

    by_priority: bool = False
    counters: dict[str, float] = field(default_factory=dict)
    queues: dict[str, deque[Request]] = field(default_factory=dict)
    last: str | None = None

    def __len__(self) -> int:
        return sum(map(len, self.queues.values()))

    def add(self, request: Request) -> None:
        client = request.asked.tenant
        self.counters.setdefault(client, 0.0)
        if client not in self.queues:
            waiting = [self.counters[each] for each in self.queues]
            floor = min(waiting) if waiting else self.counters.get(self.last or "", 0.0)
            self.counters[client] = max(self.counters[client], floor)
        self.queues.setdefault(client, deque()).append(request)

    def put_back(self, request: Request) -> None:
        self.queues.setdefault(request.asked.tenant, deque()).appendleft(request)

    def peek(self) -> Request:
        return self.queues[min(self.queues, key=lambda client: self.counters[client])][0]

    def pop(self) -> None:
        request = self.peek()
        client = request.asked.tenant
        queue = self.queues[client]
        queue.popleft()
        if not queue:
            del self.queues[client]
        self.last = client
        if not request.begun:
            self.counters[client] += request.asked.input_tokens

    def made(self, request: Request) -> None:
        self.counters[request.asked.tenant] += 2.0


class VllmLike:
    def __init__(self, waiting: Waiting, profile: Profile) -> None:
        self._waiting = waiting
        self._profile = profile
        self._running: list[Request] = []
        self._free = profile.kv_tokens // BLOCK_TOKENS
        self._total = self._free
        self.preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self._running or len(self._waiting))

    def wakes_in_s(self, now: float) -> float | None:
        return None

    def add(self, index: int, asked: Asked) -> None:
        self._waiting.add(Request(index, asked, asked.input_tokens))

    def step(self, now: float) -> Step | None:
        budget, planned, preempted = self._profile.chunk_tokens, list[tuple[Request, int]](), self.preemptions
        at = 0
        while at < len(self._running) and budget:
            request = self._running[at]
            count = min(request.tokens - request.computed, budget)
            if not self._allocate(request, count):
                victim = self._victim()
                # One that was planned already in this step gives its tokens back.
                for i, (each, n_tokens) in enumerate(planned):
                    if each is victim:
                        budget += n_tokens
                        del planned[i]
                        at -= 1
                        break
                if victim is request:
                    break
                continue
            planned.append((request, count))
            budget -= count
            at += 1
        decodes = sum(1 for request, count in planned if count == 1 and request.computed >= request.asked.input_tokens)
        admitted = self._admit(planned, budget) if self.preemptions == preempted else 0
        if not planned:
            return None
        prefill_tokens = sum(count for _, count in planned) - decodes
        kv_tokens = (self._total - self._free) * BLOCK_TOKENS
        return Step(decodes, prefill_tokens, admitted, kv_tokens, self._commit(planned))

    def _allocate(self, request: Request, count: int) -> bool:
        new = -(-(request.computed + count) // BLOCK_TOKENS) - request.blocks
        if new > self._free:
            return False
        self._free -= new
        request.blocks += new
        return True

    def _victim(self) -> Request:
        if self._waiting.by_priority:
            victim = max(self._running, key=lambda request: request.order)
            self._running.remove(victim)
        else:
            victim = self._running.pop()
        self._free += victim.blocks
        victim.blocks = victim.computed = 0
        self._waiting.put_back(victim)
        self.preemptions += 1
        return victim

    def _admit(self, planned: list[tuple[Request, int]], budget: int) -> int:
        """Returns how many begin for the first time."""
        n_new = 0
        while budget and len(self._waiting) and len(self._running) < self._profile.max_sequences:
            request = self._waiting.peek()
            count = min(request.tokens - request.computed, budget)
            if not self._allocate(request, count):
                break
            self._waiting.pop()
            n_new += not request.begun
            request.begun = True
            self._running.append(request)
            planned.append((request, count))
            budget -= count
        return n_new

    def _commit(self, planned: list[tuple[Request, int]]) -> list[int]:
        sampled = []
        for request, count in planned:
            decodes = request.computed >= request.asked.input_tokens
            request.computed += count
            if request.computed < request.tokens:
                continue
            request.tokens += 1
            sampled.append(request.index)
            if decodes:
                self._waiting.made(request)
            if request.tokens == request.asked.input_tokens + request.asked.output_tokens:
                self._running.remove(request)
                self._free += request.blocks
        return sampled
