"""A fleet on a virtual clock that the gateway's own pure modules choose from: the same arrivals for every policy.

A worker has slots, a queue, a speed and a cache of prompt beginnings. What a policy sees is what a gateway sees: its
own requests in flight at once, the rest by reports that are up to 250 ms old.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.routing import scoring
from gateway.routing.choosing import choose
from gateway.routing.keys import Keys
from gateway.routing.ring import Ring
from gateway.routing.scoring import Facts, Line
from gateway.routing.terms import Policy, RoutingTerms

REPORT_S = 0.25
SLOTS = 16
CACHED = 12
"""Beginnings that one worker's KV cache keeps."""
PREFILL_S, HIT_SHARE, DECODE_S = 0.4, 0.1, 2.0
"""Of a prompt whose beginning is not cached; the part of it that is left where it is; of an answer."""


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    prefix: int
    length: float
    """Of the answer, relative to the mean."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is simulated."""

    name: str
    speeds: tuple[float, ...]
    prefixes: int
    rate: float
    """Requests a second, over what the fleet could do with every beginning cached."""


@dataclass(slots=True)
class Worker:
    speed: float
    in_flight: int = 0
    share: float = 1.0
    cost: float = 1.0
    capacity: int = SLOTS
    line: Line = field(default_factory=lambda: Line(1.0, 1.0))
    running: int = 0
    latency_s: float | None = None
    seen_running: int = 0
    queue: deque[Arrival] = field(default_factory=deque)
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class Outcome:
    p50_s: float
    p99_s: float
    hits: float


def arrivals(fleet: Fleet, count: int, seed: int) -> list[Arrival]:
    rng = random.Random(seed)
    best_s = PREFILL_S * HIT_SHARE + DECODE_S * 1.5
    per_s = fleet.rate * sum(fleet.speeds) * SLOTS / best_s
    weights = [1.0 / (number + 1) ** 0.7 for number in range(fleet.prefixes)]
    at_s, made = 0.0, []
    for prefix in rng.choices(range(fleet.prefixes), weights, k=count):
        at_s += rng.expovariate(per_s)
        made.append(Arrival(at_s, prefix, rng.lognormvariate(-0.32, 0.8)))
    return made


def simulate(fleet: Fleet, policy: Policy, requests: Sequence[Arrival]) -> Outcome:
    workers = [Worker(speed) for speed in fleet.speeds]
    ring, terms = Ring([f"w{number}" for number in range(len(workers))]), RoutingTerms(policy)
    ends: list[tuple[float, int, int]] = []
    waits: list[float] = []
    hits = 0
    next_report_s = 0.0
    for turn, request in enumerate(requests):
        while ends and ends[0][0] <= request.at_s:
            at_s, _, index = heapq.heappop(ends)
            hits += _finish(workers[index], at_s, ends, waits, index)
        if request.at_s >= next_report_s:
            next_report_s = request.at_s + REPORT_S
            _report(workers, policy)
        key = request.prefix * 0x9E3779B97F4A7C15 % (1 << 64)
        chosen = choose(terms, workers, ring, Keys(key, key), turn).at
        worker = workers[chosen]
        worker.in_flight += 1
        worker.cost = worker.line.at(worker.in_flight)
        worker.queue.append(request)
        if worker.running < SLOTS:
            hits += _start(worker, request.at_s, ends, waits, chosen)
    waits.sort()
    count = len(waits)
    return Outcome(waits[count // 2], waits[int(count * 0.99)], hits / count)


def _start(worker: Worker, now_s: float, ends: list[tuple[float, int, int]], waits: list[float], index: int) -> bool:
    """The next of the queue gets a slot; True where its beginning was cached."""
    request = worker.queue.popleft()
    worker.running += 1
    hit = request.prefix in worker.cache
    worker.cache[request.prefix] = None
    worker.cache.move_to_end(request.prefix)
    if len(worker.cache) > CACHED:
        worker.cache.popitem(last=False)
    crowd = 0.5 + worker.running / SLOTS
    first_s = PREFILL_S * (HIT_SHARE if hit else 1.0) * crowd / worker.speed
    ttft_s = now_s - request.at_s + first_s
    waits.append(ttft_s)
    worker.latency_s = ttft_s if worker.latency_s is None else 0.9 * worker.latency_s + 0.1 * ttft_s
    heapq.heappush(ends, (now_s + first_s + DECODE_S * request.length * crowd / worker.speed, len(waits), index))
    return hit


def _finish(worker: Worker, now_s: float, ends: list[tuple[float, int, int]], waits: list[float], index: int) -> bool:
    worker.running -= 1
    worker.in_flight -= 1
    worker.cost = worker.line.at(worker.in_flight)
    return bool(worker.queue) and _start(worker, now_s, ends, waits, index)


def _report(workers: Sequence[Worker], policy: Policy) -> None:
    facts = [Facts(1.0, SLOTS, 0, min(one.running / SLOTS, 1.0), one.running / SLOTS, one.latency_s) for one in workers]
    load = scoring.fleet_load(facts, [one.in_flight for one in workers])
    for one, line in zip(workers, scoring.lines(policy, facts, load), strict=True):
        one.line = line
        one.cost = line.at(one.in_flight)
