"""Many fluid runs side by side: each its own autoscaler, cold starts and seed, all of one profile and length.

The seconds are one vectorised step for all runs; what is rare (a replica starts, is ready, drains) is plain Python. The
autoscalers see the same views as in the exact simulation.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from scipy.special import ndtr

from forecasting.errors import BadSetting
from forecasting.simulator.arrivals import Lengths, SecondArrivals
from forecasting.simulator.autoscaler import Autoscaler
from forecasting.simulator.fluid import Pools, Second, step
from forecasting.simulator.outcome import WORST_WINDOW_S, Outcome, worst_of
from forecasting.simulator.requests import Floats
from forecasting.simulator.view import Scrape, View
from forecasting.simulator.world import Slo, World

TICK_S = 15
# Deviation of the mean token time between requests of one second, as a share of it: what the fluid averages away
# (measured against the exact simulation at 5 and 20 replicas).
BETWEEN_REQUESTS = 0.12


@dataclass(slots=True)
class Run:
    """One fleet under one autoscaler. `arrivals` is its index in the batch's list."""

    world: World
    autoscaler: Autoscaler
    seed: int
    replicas: int
    arrivals: int = 0


@dataclass(slots=True)
class _Fleet:
    """The rare part of one run."""

    starting: list[float] = field(default_factory=list)
    drains: list[float] = field(default_factory=list)
    starts: int = 0
    ups: int = 0
    downs: int = 0
    peak: int = 0


class _Column(Sequence[Scrape]):
    """The scrapes of one run out of rows of all runs."""

    __slots__ = ("_rows", "_run")

    def __init__(self, rows: list[list[Scrape]], run: int) -> None:
        self._rows, self._run = rows, run

    @overload
    def __getitem__(self, at: int) -> Scrape: ...
    @overload
    def __getitem__(self, at: slice) -> list[Scrape]: ...
    def __getitem__(self, at: int | slice) -> Scrape | list[Scrape]:
        if isinstance(at, slice):
            return [row[self._run] for row in self._rows[at]]
        return self._rows[at][self._run]

    def __len__(self) -> int:
        return len(self._rows)


class Batch:
    """All runs, second by second; `outcomes` after `run`."""

    def __init__(self, runs: Sequence[Run], arrivals: Sequence[SecondArrivals], *, keeps_course: bool = False) -> None:
        _check(runs, arrivals)
        self._keeps_course = keeps_course
        self._runs, self._seconds = runs, len(arrivals[0])
        self._profile, self._slo = runs[0].world.profile, runs[0].world.slo
        self._lengths = arrivals[0].lengths
        self._which = np.array([run.arrivals for run in runs])
        self._counts = np.stack([each.counts for each in arrivals], axis=1)
        self._inputs = np.stack([each.inputs for each in arrivals], axis=1)
        n = len(runs)
        self._pools = Pools.empty(n, self._profile)
        self._ready = np.array([float(run.replicas) for run in runs])
        self._allocated = self._ready.copy()
        self._gpu_s, self._asked_s = np.zeros(n), np.zeros(n)
        self._totals = np.zeros((4, n))  # requests, input tokens, output tokens, finished
        self._judged = np.zeros((2, n))  # requests, those of them that met both targets
        self._fleets = [_Fleet(peak=run.replicas) for run in runs]
        self._current = [run.replicas for run in runs]
        self._events: list[tuple[float, int, bool]] = []  # (time, run, is a replica that is ready)
        self._rows: list[list[Scrape]] = []
        self._good: list[Floats] = []
        self._came: list[Floats] = []
        self._course: list[tuple[list[int], list[float]]] = []
        self._at_s = 0
        self._spent: list[Floats] = []

    def run(self, progress: Callable[[float], None] | None = None) -> list[Outcome]:
        """Simulate all, from where it stopped; `progress` is told the share that is done after every ten minutes of the
        trace. A batch that is pickled then, and read back, goes on from there."""
        while self._at_s < self._seconds:
            end = min(self._at_s + int(WORST_WINDOW_S), self._seconds)
            self._window(self._at_s, end)
            self._at_s = end
            if progress is not None:
                progress(end / self._seconds)
        return [self._outcome(run) for run in range(len(self._runs))]

    def course(self) -> list[tuple[list[int], list[int]]]:
        """For every run the replicas asked for and those that served, at every tick."""
        return [
            ([row[0][run] for row in self._course], [int(row[1][run]) for row in self._course])
            for run in range(len(self._runs))
        ]

    def windows(self) -> tuple[Floats, Floats, Floats]:
        """(windows, runs) requests that came, that met their targets, and GPU-hours, per ten minutes."""
        spent = np.diff(np.array([np.zeros(len(self._runs)), *self._spent]), axis=0)
        return np.array(self._came), np.array(self._good), spent * self._profile.gpus / 3600

    # --- time ---------------------------------------------------------------------------------------------------------

    def _window(self, start: int, end: int) -> None:
        counts, inputs = self._counts[start:end][:, self._which], self._inputs[start:end][:, self._which]
        good, seen = np.zeros_like(counts), list[Second]()
        for at in range(end - start):
            now_s = start + at
            if now_s % TICK_S == 0:
                self._judge(seen, counts[:at], good[:at])
                self._tick(now_s)
            while self._events and self._events[0][0] <= now_s:
                self._happen(*heapq.heappop(self._events))
            second = step(self._pools, self._ready, counts[at], inputs[at], self._profile, self._lengths)
            self._gpu_s += self._allocated
            self._totals[2] += second.produced
            self._totals[3] += second.finished
            self._totals[0] += counts[at]
            self._totals[1] += inputs[at]
            seen.append(second)
        self._judge(seen, counts, good)
        self._good.append(good.sum(axis=0))
        self._came.append(counts.sum(axis=0))
        self._spent.append(self._gpu_s.copy())

    def _judge(self, seen: list[Second], counts: Floats, good: Floats) -> None:
        """Fill the end of `good`, the requests of each second that met both targets, and forget what was `seen`."""
        if seen:
            share = share_good(seen, self._slo, self._lengths, self._profile.request_s)
            good[-len(seen) :] = share * counts[-len(seen) :]
            self._judged += np.stack([counts[-len(seen) :].sum(axis=0), good[-len(seen) :].sum(axis=0)])
            seen.clear()

    def _tick(self, now_s: int) -> None:
        """Controllers that are due decide on the scrapes before this one; then comes this scrape."""
        for index, run in enumerate(self._runs):
            if now_s and now_s % run.autoscaler.period_s == 0:
                view = View(now_s, self._current[index], int(self._ready[index]), _Column(self._rows, index))
                self._resize(index, run.autoscaler.desired(view), now_s)
        self._asked_s += np.array(self._current) * TICK_S
        if self._keeps_course:
            self._course.append((list(self._current), self._ready.tolist()))
        self._scrape(now_s)

    def _scrape(self, now_s: int) -> None:
        pools, replicas = self._pools, np.maximum(self._ready, 1)
        running = pools.early + pools.late
        kv = running * self._lengths.resident / (replicas * self._profile.kv_tokens)
        # A prompt is admitted with the next iteration; what queues longer than that waits.
        waiting = np.maximum(pools.queued_requests, 0.0)
        at = [float(now_s)] * len(self._runs)
        gauges = (running.tolist(), waiting.tolist(), kv.tolist(), self._ready.tolist())
        columns = (at, *self._totals.tolist(), *gauges, *self._judged.tolist())
        self._rows.append([Scrape(*values) for values in zip(*columns, strict=True)])
        del self._rows[:-KEPT_SCRAPES]

    def _happen(self, at_s: float, index: int, is_ready: bool) -> None:
        fleet = self._fleets[index]
        if is_ready and at_s in fleet.starting:  # else it was given up before it was ready
            fleet.starting.remove(at_s)
            self._ready[index] += 1
        elif not is_ready:
            fleet.drains.remove(at_s)
        self._count(index)

    def _resize(self, index: int, wanted: int, now_s: float) -> None:
        run, fleet, current = self._runs[index], self._fleets[index], self._current[index]
        wanted = min(max(wanted, run.world.min_replicas), run.world.max_replicas)
        if wanted == current:
            return
        fleet.ups += wanted > current
        fleet.downs += wanted < current
        fleet.peak = max(fleet.peak, wanted)
        for _ in range(wanted - current):
            ready_s = now_s + run.world.cold_start.draw_s(run.seed, fleet.starts)
            fleet.starts += 1
            fleet.starting.append(ready_s)
            heapq.heappush(self._events, (ready_s, index, True))
        for _ in range(current - wanted):
            if fleet.starting:
                fleet.starting.remove(max(fleet.starting))
            else:
                self._drain_one(index, now_s)
        self._current[index] = wanted
        self._count(index)

    def _drain_one(self, index: int, now_s: float) -> None:
        """It takes its sequences along, and is gone when the longest of them ends."""
        pools, ready = self._pools, self._ready[index]
        leaving = (pools.early[index] + pools.late[index]) / ready
        self._totals[3, index] += leaving
        kept = (ready - 1) / ready
        pools.early[index] *= kept
        pools.late[index] *= kept
        lasts_s = min(self._lengths.outputs[-1] * pools.token_s[index], self._runs[index].world.drain_cap_s)
        self._ready[index] = ready - 1
        self._fleets[index].drains.append(now_s + lasts_s)
        heapq.heappush(self._events, (now_s + lasts_s, index, False))

    def _count(self, index: int) -> None:
        self._allocated[index] = self._current[index] + len(self._fleets[index].drains)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _outcome(self, index: int) -> Outcome:
        fleet, came = self._fleets[index], np.array([row[index] for row in self._came])
        good = np.array([row[index] for row in self._good])
        total = float(came.sum())
        return Outcome(
            requests=total,
            finished=float(self._totals[3, index]),
            attainment=float(good.sum() / total) if total else 1.0,
            worst_window=worst_of(came, good),
            ttft_p99_s=None,
            tpot_p99_s=None,
            gpu_hours=float(self._gpu_s[index]) * self._profile.gpus / 3600,
            scale_ups=fleet.ups,
            scale_downs=fleet.downs,
            mean_replicas=float(self._asked_s[index]) / (math.ceil(self._seconds / TICK_S) * TICK_S),
            peak_replicas=fleet.peak,
        )


KEPT_SCRAPES = 80
"""20 minutes: no controller looks further back."""


def share_good(seen: Sequence[Second], slo: Slo, lengths: Lengths, request_s: float) -> Floats:
    """(seconds, runs) share of the requests that come in a second and meet both targets."""
    wait_s = np.stack([each.wait_s for each in seen])
    token_s = np.stack([each.token_s for each in seen])
    spread_s = np.stack([each.token_sd_s for each in seen])
    prefill_s = np.stack([each.prefill_token_s for each in seen])
    good = np.ones_like(wait_s)
    # Far from both targets every request is good, which is most of the time: only the rest is reckoned.
    longest_s = wait_s + lengths.inputs[-1] * prefill_s + token_s
    near = (longest_s > slo.ttft_s / 2) | (
        token_s + 4 * spread_s / np.sqrt(max(lengths.outputs[0] - 1, 1)) > slo.tpot_s
    )
    if near.any():
        good[near] = _met_ttft(wait_s[near], prefill_s[near], token_s[near], slo, lengths, request_s) * _met_tpot(
            token_s[near], spread_s[near], slo, lengths
        )
    return good


def _met_ttft(
    wait_s: Floats, prefill_s: Floats, token_s: Floats, slo: Slo, lengths: Lengths, request_s: float
) -> Floats:
    """The own prefill, one iteration to wait for, and what is already queued must fit into the target."""
    share = np.zeros_like(wait_s)
    for length in lengths.inputs:
        own_s = length * prefill_s + request_s + token_s
        share += ndtr((slo.ttft_s - wait_s - own_s) / (0.25 * own_s + 0.05))
    return share / len(lengths.inputs)


def _met_tpot(token_s: Floats, spread_s: Floats, slo: Slo, lengths: Lengths) -> Floats:
    """A mean over the iterations of one answer: short answers meet more of one kind of iteration."""
    share = np.zeros_like(token_s)
    for length in lengths.outputs:
        deviation = np.sqrt(spread_s**2 / max(length - 1, 1) + (BETWEEN_REQUESTS * token_s) ** 2)
        share += ndtr((slo.tpot_s - token_s) / deviation) if length > 1.5 else 1.0
    return share / len(lengths.outputs)


def _check(runs: Sequence[Run], arrivals: Sequence[SecondArrivals]) -> None:
    if not runs or not arrivals:
        raise BadSetting("Batch: at least one run and one trace are needed.")
    if len({len(each) for each in arrivals}) != 1:
        raise BadSetting("Batch: all traces must last equally long; cut them to one length.")
    if any(run.world.profile != runs[0].world.profile or run.world.slo != runs[0].world.slo for run in runs):
        raise BadSetting("Batch: all runs share one profile and one SLO; make one batch for each.")
    if any(run.autoscaler.period_s % TICK_S for run in runs):
        raise BadSetting(f"Batch: autoscalers decide at multiples of {TICK_S} s.")
