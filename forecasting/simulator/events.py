"""The exact simulation: replicas iterate, requests are routed, replicas start cold and drain.

The router gives each request to the ready replica with the fewest outstanding requests-and-prompt tokens, the same for
every autoscaler. Requests without a ready replica wait in the gateway. Nothing is dropped but a request that no replica
could ever hold.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

from forecasting.simulator.replica import FOREVER, Replica
from forecasting.simulator.requests import Requests
from forecasting.simulator.view import Scrape
from forecasting.simulator.world import World


@dataclass(slots=True, eq=False)
class _Place:
    """A replica and its life: asked for, ready, draining, gone."""

    replica: Replica
    asked_s: float
    ready_s: float
    load: int = 0  # tokens outstanding, as the router counts them
    drains_from_s: float | None = None
    gone_s: float | None = None
    noticed: bool = False  # has an entry in the queue of ends


class EventFleet:
    """A fleet that serves one trace. Advance it with `run_until`, resize it, scrape it."""

    def __init__(self, world: World, requests: Requests, replicas: int, seed: int) -> None:
        self._world = world
        self._arrival: list[float] = requests.arrival_s.tolist()
        self._input: list[int] = requests.input_tokens.tolist()
        self._output: list[int] = requests.output_tokens.tolist()
        self.first_s = [math.nan] * len(requests)
        self.done_s = [math.nan] * len(requests)
        self._where: dict[int, _Place] = {}
        self._next = 0
        self._queue: deque[int] = deque()
        self._starting: list[_Place] = []
        self._ready: list[_Place] = []
        self._draining: list[_Place] = []
        self._gone: list[_Place] = []
        self._ends: list[tuple[float, int, _Place]] = []
        self._seed, self._starts, self._ties = seed, 0, 0
        self._input_total = self._gone_output_total = 0
        self.finished_total = self._good_total = 0
        self.refused: list[int] = []
        self.now_s = 0.0
        for _ in range(replicas):
            self._ready.append(self._place(0.0, 0.0))

    # --- size ---------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> int:
        """Replicas asked for."""
        return len(self._starting) + len(self._ready)

    @property
    def ready(self) -> int:
        return len(self._ready)

    def resize(self, replicas: int) -> None:
        """Ask for `replicas`: more start cold; of fewer, those that start go first, then the least loaded drain."""
        while self.current < replicas:
            cold_s = self._world.cold_start.draw_s(self._seed, self._starts)
            self._starts += 1
            self._starting.append(self._place(self.now_s, self.now_s + cold_s))
        while self.current > replicas and self._starting:
            youngest = max(self._starting, key=lambda each: each.ready_s)
            self._starting.remove(youngest)
            self._bury(youngest, self.now_s)
        while self.current > replicas:
            leaving = min(self._ready, key=lambda each: each.load)
            self._ready.remove(leaving)
            leaving.drains_from_s = self.now_s
            self._draining.append(leaving)
        self._end_drains()

    def gpu_seconds(self, end_s: float) -> float:
        """Allocated time of all replicas, loading and draining included, times GPUs each."""
        places = [*self._starting, *self._ready, *self._draining, *self._gone]
        spans = (min(each.gone_s or end_s, end_s) - each.asked_s for each in places)
        return self._world.profile.gpus * sum(max(span, 0.0) for span in spans)

    @property
    def preemptions(self) -> int:
        places = [*self._ready, *self._draining, *self._gone]
        return sum(each.replica.preemptions for each in places)

    # --- time ---------------------------------------------------------------------------------------------------------

    def run_until(self, until_s: float) -> None:
        """Everything up to `until_s` happens: arrivals, iterations, replicas that become ready, drains that end."""
        arrival, n = self._arrival, len(self._arrival)
        while True:
            ready_s = min((each.ready_s for each in self._starting), default=FOREVER)
            arrives_s = arrival[self._next] if self._next < n else FOREVER
            if min(ready_s, arrives_s) > until_s:
                break
            if ready_s <= arrives_s:
                self._open(ready_s)
            else:
                self._route(self._next, arrives_s)
                self._next += 1
        self.now_s = until_s
        for place in (*self._ready, *self._draining):
            place.replica.advance(until_s)
            self._settle(place)
        self._end_drains()

    def scrape(self) -> Scrape:
        """Counters and gauges as of `now_s`."""
        open_places = (*self._ready, *self._draining)
        kv = sum(each.replica.kv_tokens for each in self._ready)
        whole = self._world.profile.kv_tokens * max(len(self._ready), 1)
        return Scrape(
            at_s=self.now_s,
            requests_total=self._next,
            input_tokens_total=self._input_total,
            output_tokens_total=self._gone_output_total + sum(each.replica.output_tokens for each in open_places),
            finished_total=self.finished_total,
            running=sum(each.replica.running for each in open_places),
            waiting=len(self._queue) + sum(each.replica.waiting for each in open_places),
            kv_use=kv / whole,
            ready=len(self._ready),
            judged_total=self.finished_total,
            good_total=self._good_total,
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _place(self, asked_s: float, ready_s: float) -> _Place:
        return _Place(Replica(self._world.profile, self.first_s, self.done_s), asked_s, ready_s)

    def _open(self, at_s: float) -> None:
        """The next starting replica is ready and takes its part of what waits in the gateway."""
        place = min(self._starting, key=lambda each: each.ready_s)
        self._starting.remove(place)
        self._ready.append(place)
        waiting, self._queue = self._queue, deque()
        for index in waiting:
            self._dispatch(index, at_s)

    def _route(self, index: int, at_s: float) -> None:
        if not self._world.profile.holds(self._input[index], self._output[index]):
            self.refused.append(index)
            return
        self._input_total += self._input[index]
        self._dispatch(index, at_s)

    def _dispatch(self, index: int, at_s: float) -> None:
        if not self._ready:
            self._queue.append(index)
            return
        self._advance_ends(at_s)
        place = min(self._ready, key=lambda each: each.load)
        place.replica.advance(at_s)
        self._settle(place)
        place.load += self._weight(index)
        self._where[index] = place
        place.replica.add(index, self._input[index], self._output[index], at_s)
        if not place.noticed:
            self._notice(place, at_s)

    def _weight(self, index: int) -> int:
        # A request's own share besides its prompt: the router does not know how long the answer will be.
        return self._input[index] + 256

    def _advance_ends(self, at_s: float) -> None:
        """Replicas of which a request may have ended by now are advanced, so that the router sees them as they are."""
        ends = self._ends
        while ends and ends[0][0] <= at_s:
            place = heapq.heappop(ends)[2]
            place.noticed = False
            place.replica.advance(at_s)
            self._settle(place)
            next_s = place.replica.next_end_s()
            if next_s < FOREVER:
                self._notice(place, max(next_s, math.nextafter(at_s, FOREVER)))

    def _notice(self, place: _Place, at_s: float) -> None:
        self._ties += 1
        place.noticed = True
        heapq.heappush(self._ends, (at_s, self._ties, place))

    def _settle(self, place: _Place) -> None:
        for index in place.replica.finished:
            place.load -= self._weight(index)
            del self._where[index]
            self.finished_total += 1
            self._good_total += self._met(index)
        place.replica.finished.clear()

    def _met(self, index: int) -> bool:
        """As `outcome.met` judges it."""
        first_s, slo = self.first_s[index], self._world.slo
        tpot_s = (self.done_s[index] - first_s) / max(self._output[index] - 1, 1)
        return first_s - self._arrival[index] <= slo.ttft_s and tpot_s <= slo.tpot_s

    def _end_drains(self) -> None:
        cap_s = self._world.drain_cap_s
        for place in list(self._draining):
            since_s = place.drains_from_s if place.drains_from_s is not None else self.now_s
            if place.replica.is_idle:
                self._draining.remove(place)
                self._bury(place, max(place.replica.clock_s, since_s))
            elif self.now_s >= since_s + cap_s:
                self._draining.remove(place)
                self._bury(place, since_s + cap_s)
                self._start_again(place)

    def _start_again(self, place: _Place) -> None:
        """What a drain cut off begins anew on another replica."""
        for index in place.replica.abandon():
            del self._where[index]
            self._dispatch(index, self.now_s)

    def _bury(self, place: _Place, at_s: float) -> None:
        place.gone_s = at_s
        self._gone_output_total += place.replica.output_tokens
        self._gone.append(place)
