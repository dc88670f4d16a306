"""A replica on a virtual clock: the real scheduler plans each step, a cost model says how long it takes.

No step is computed and no time is slept. What it takes in CPU time is the scheduler's own, and is measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.scheduling.workloads import Asked
from forecasting.profile import Profile
from worker_image.engine.batch import Sampled
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.messages import Sampling
from worker_image.engine.prefix_cache import LeastRecentlyUsed
from worker_image.engine.scheduler.core import Limits, Outcome, Scheduler
from worker_image.engine.scheduler.settings import Scheduling
from worker_image.engine.sequence import Sequence
from worker_image.engine.standing import Standing

BLOCK_TOKENS = 16
SHORTEST_WAIT_S = 1e-4


@dataclass(frozen=True, slots=True)
class Step:
    """What a step computes, and who got a token by it."""

    decodes: int
    prefill_tokens: int
    admitted: int
    """For the first time."""
    kv_tokens: int
    sampled: list[int]
    """Indexes of requests."""


class Subject(Protocol):
    """A scheduler under test; requests are known by their index."""

    def add(self, index: int, asked: Asked) -> None: ...

    def step(self, now: float) -> Step | None:
        """None where nothing can be done before `wakes_in_s`, or before the next arrival."""

    def wakes_in_s(self, now: float) -> float | None: ...

    @property
    def has_work(self) -> bool: ...

    @property
    def preemptions(self) -> int: ...


@dataclass(slots=True)
class Fate:
    """What became of a request; None where it did not come so far. `served`: its prompt once begun, and its tokens."""

    asked: Asked
    first_s: float | None = None
    done_s: float | None = None
    tokens: int = 0
    served: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    fates: list[Fate]
    ended_s: float
    busy_s: float
    steps: int
    cpu_s: float
    """The scheduler's own time."""
    preemptions: int


@dataclass(slots=True)
class _Books:
    fates: list[Fate]
    left: set[int] = field(default_factory=set)

    def sampled(self, indexes: Many[int], now: float) -> None:
        for index in indexes:
            fate = self.fates[index]
            if fate.first_s is None:
                fate.first_s = now
                fate.served = fate.asked.input_tokens
            fate.tokens += 1
            fate.served += 1
            if fate.tokens == fate.asked.output_tokens:
                fate.done_s = now


def run(subject: Subject, asked: Many[Asked], profile: Profile, until_s: float | None = None) -> Run:
    """To the end of all requests, or to `until_s`."""
    books, arrivals = _Books([Fate(each) for each in asked]), 0
    now = busy_s = cpu_s = 0.0
    steps = 0
    while (arrivals < len(asked) or subject.has_work) and (until_s is None or now < until_s):
        while arrivals < len(asked) and asked[arrivals].at_s <= now:
            subject.add(arrivals, asked[arrivals])
            arrivals += 1
        started_s = time.process_time()
        step = subject.step(now)
        cpu_s += time.process_time() - started_s
        if step is None:
            now = _later(subject, asked, arrivals, now)
            continue
        length_s = profile.iteration_s(step.decodes, step.prefill_tokens, step.kv_tokens, step.admitted)
        now, busy_s, steps = now + length_s, busy_s + length_s, steps + 1
        books.sampled(step.sampled, now)
    return Run(books.fates, now, busy_s, steps, cpu_s, subject.preemptions)


def _later(subject: Subject, asked: Many[Asked], arrivals: int, now: float) -> float:
    times = [asked[arrivals].at_s] if arrivals < len(asked) else []
    if (wakes_in_s := subject.wakes_in_s(now)) is not None:
        times.append(now + max(wakes_in_s, SHORTEST_WAIT_S))
    assert times, "work is left, and nothing will ever happen"
    return max(min(times), now)


class Ours:
    """The worker's scheduler, as it is."""

    def __init__(self, scheduling: Scheduling, profile: Profile) -> None:
        n_blocks = profile.kv_tokens // BLOCK_TOKENS
        limits = Limits(profile.max_sequences, profile.chunk_tokens, BLOCK_TOKENS, profile.kv_tokens)
        kv = KvBlocks(n_blocks, BLOCK_TOKENS, b"benchmark", LeastRecentlyUsed())
        self._scheduler = Scheduler(limits, kv, scheduling)
        self._known: set[int] = set()

    def add(self, index: int, asked: Asked) -> None:
        # Nothing is shared: the first token is nobody else's.
        prompt = [index, *([0] * (asked.input_tokens - 1))]
        limit = asked.input_tokens + asked.output_tokens
        standing = Standing(asked.priority, asked.tenant)
        sampling = Sampling(asked.output_tokens, seed=0)
        self._scheduler.add(
            Sequence(
                index, prompt, sampling, limit, asked.input_tokens, standing=standing, arrived_at=asked.at_s
            )
        )  # fmt: skip

    def step(self, now: float) -> Step | None:
        scheduler = self._scheduler
        batch = scheduler.schedule(now)
        if batch is None:
            return None
        joined = {sequence.request_id for sequence in batch.joined} - self._known
        self._known |= joined
        pool = scheduler.kv.pool
        kv_tokens = (pool.n_blocks - pool.n_free) * BLOCK_TOKENS
        sampled = [sequence.request_id for sequence in batch.sampling]
        decodes = len(batch.decodes)
        scheduler.commit(batch, Sampled([1] * len(sampled)), Outcome())
        return Step(decodes, batch.n_tokens - decodes, len(joined), kv_tokens, sampled)

    def wakes_in_s(self, now: float) -> float | None:
        return self._scheduler.opens_in_s(now) or None

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def preemptions(self) -> int:
        return sum(self._scheduler.n_preemptions)
