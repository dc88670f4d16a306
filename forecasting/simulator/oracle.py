"""What could have been: a lower bound that no autoscaler reaches, and a clairvoyant one that comes near the best.

LB: the work of each minute over the most that a replica carries, in fractions, without cold starts. UB: all arrivals
are known; per minute the number of replicas that is worth it at a price for a missed request, found by simulating
candidates from the same state; then gaps that are cheaper to keep than to start again are filled, short peaks are
pruned, and the cheapest schedule that holds the attainment is taken. Near the best, never "optimal".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.errors import ForecastingError
from forecasting.simulator.arrivals import SecondArrivals
from forecasting.simulator.fluid import Pools, step
from forecasting.simulator.many import Batch, Run, share_good
from forecasting.simulator.outcome import Outcome
from forecasting.simulator.requests import Ints
from forecasting.simulator.view import View
from forecasting.simulator.world import ColdStart, World

SLOT_S = 60
# Replica-seconds that a missed request is worth; the search takes the lowest that holds the attainment.
PRICES = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 5.0)
# Peaks up to so many slots may be left out.
PRUNED_SLOTS = (0, 1, 2, 4)
CANDIDATES = (-3, -2, -1, 0, 1, 2, 4)


class NoSchedule(ForecastingError):
    """No schedule holds the attainment within the bounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Clairvoyant:
    """schedule: (slots,) replicas that serve in each minute. gpu_hours: with cold starts and drains."""

    schedule: Ints
    attainment: float
    gpu_hours: float
    starts: int


class Scheduled:
    """Asks for what a schedule says, minute by minute."""

    name = "schedule"
    period_s = SLOT_S

    def __init__(self, schedule: Sequence[int]) -> None:
        self._schedule = schedule

    def desired(self, view: View) -> int:
        return self._schedule[min(int(view.now_s // SLOT_S), len(self._schedule) - 1)]


def lower_bound_gpu_hours(arrivals: SecondArrivals, requests_per_s: float, gpus: int) -> float:
    """GPU-hours of the bare work at the most that a replica carries within its targets."""
    return float(arrivals.counts.sum()) / requests_per_s * gpus / 3600


def clairvoyant(arrivals: SecondArrivals, world: World, requests_per_s: float) -> Clairvoyant:
    """The cheapest schedule found that keeps the attainment of `world.slo`.

    Raises:
        NoSchedule: none does within the world's bounds.
    """
    best = best_schedules(search(arrivals, world, requests_per_s), arrivals, [world])[0]
    if best is None:
        raise NoSchedule(
            f"Oracle: no schedule of at most {world.max_replicas} replicas reaches {world.slo.attainment:.1%}."
            " Raise max_replicas."
        )
    return best


def best_schedules(wished: Ints, arrivals: SecondArrivals, worlds: Sequence[World]) -> list[Clairvoyant | None]:
    """Fill, prune and judge the schedules of `search` under the cold starts of each world; None when none holds."""
    tried = [_variants(wished, arrivals, world) for world in worlds]
    outcomes = iter(judge([schedule for each in tried for schedule in each], arrivals, worlds[0]))
    return [
        _cheapest([(each, next(outcomes).attainment) for each in schedules], arrivals, world)
        for world, schedules in zip(worlds, tried, strict=True)
    ]


def _variants(wished: Ints, arrivals: SecondArrivals, world: World) -> list[Ints]:
    gap_slots = int(np.ceil((mean_cold_s(world.cold_start) + _drain_s(arrivals, world)) / SLOT_S))
    return [
        pruned(filled(wished[:, price], gap_slots), keep, world.min_replicas)
        for price in range(wished.shape[1])
        for keep in PRUNED_SLOTS
    ]


def _cheapest(judged: Sequence[tuple[Ints, float]], arrivals: SecondArrivals, world: World) -> Clairvoyant | None:
    found = [
        Clairvoyant(schedule, attainment, _gpu_hours(schedule, arrivals, world), _starts(schedule))
        for schedule, attainment in judged
        if attainment >= world.slo.attainment
    ]
    return min(found, key=lambda each: each.gpu_hours) if found else None


def judge(schedules: Sequence[Ints], arrivals: SecondArrivals, world: World) -> list[Outcome]:
    """What each schedule attains when its replicas serve exactly when it says."""
    warm = World(
        world.profile,
        ColdStart(0.0, spread=0.0),
        world.slo,
        0,
        max(world.max_replicas, 1),
        drain_cap_s=world.drain_cap_s,
    )
    runs = [Run(warm, Scheduled(each.tolist()), 0, int(each[0])) for each in schedules]
    return Batch(runs, [arrivals]).run()


def search(arrivals: SecondArrivals, world: World, requests_per_s: float) -> Ints:
    """(slots, PRICES) replicas: in each slot the candidate with the lowest replicas + price × misses, then the next."""
    slots, lengths, profile = len(arrivals) // SLOT_S, arrivals.lengths, world.profile
    offsets = np.array(CANDIDATES)
    n, prices = len(offsets), np.repeat(np.array(PRICES), len(offsets))
    pools = Pools.empty(len(prices), profile)
    chosen = np.zeros((slots, len(PRICES)), dtype=np.int64)
    for slot in range(slots):
        counts = arrivals.counts[slot * SLOT_S : (slot + 1) * SLOT_S]
        inputs = arrivals.inputs[slot * SLOT_S : (slot + 1) * SLOT_S]
        middle = int(np.ceil(counts.mean() / requests_per_s))
        ready = np.clip(middle + np.tile(offsets, len(PRICES)), max(world.min_replicas, 1), world.max_replicas)
        seen = [
            step(pools, ready.astype(np.float64), counts[at : at + 1], inputs[at : at + 1], profile, lengths)
            for at in range(SLOT_S)
        ]
        good = share_good(seen, world.slo, lengths, profile.request_s)
        missed = ((1 - good) * counts[:, None]).sum(axis=0)
        # What is left in the queue will be missed in the next slot.
        missed += np.maximum(pools.queued_requests - counts[-1], 0.0)
        best = (ready * SLOT_S + prices * missed).reshape(len(PRICES), n).argmin(axis=1) + np.arange(len(PRICES)) * n
        chosen[slot] = ready[best]
        _continue_from(pools, np.repeat(best, n))
    return chosen


def _continue_from(pools: Pools, which: Ints) -> None:
    """Every candidate goes on from the state of the chosen one of its price."""
    for name in ("queued_requests", "queued_tokens", "early", "late", "token_s", "biased_s"):
        setattr(pools, name, getattr(pools, name)[which])


def filled(schedule: Ints, gap_slots: int) -> Ints:
    """Gaps in which a replica would be gone for at most `gap_slots` are cheaper to keep than to start again."""
    out = schedule.copy()
    for level in range(1, int(schedule.max(initial=0)) + 1):
        for start, end in _runs(out < level):
            if start > 0 and end < len(out) and end - start <= gap_slots:
                out[start:end] = np.maximum(out[start:end], level)
    return out


def pruned(schedule: Ints, slots: int, least: int) -> Ints:
    """Peaks of at most `slots` are left out: they cost a cold start each."""
    out = schedule.copy()
    for level in range(int(schedule.max(initial=0)), max(least, 1), -1):
        for start, end in _runs(out >= level):
            if end - start <= slots:
                out[start:end] = np.minimum(out[start:end], level - 1)
    return out


def _runs(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[tuple[int, int]]:
    """[start, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def mean_cold_s(cold: ColdStart) -> float:
    """Mean of the drawn cold starts."""
    return (1 - cold.warm_share) * (cold.node_min_s + cold.node_max_s) / 2 + cold.load_s


def _drain_s(arrivals: SecondArrivals, world: World) -> float:
    return min(float(arrivals.lengths.outputs[-1]) * world.slo.tpot_s / 2, world.drain_cap_s)


def _starts(schedule: Ints) -> int:
    return int(np.maximum(np.diff(schedule), 0).sum())


def _gpu_hours(schedule: Ints, arrivals: SecondArrivals, world: World) -> float:
    ends = int(np.maximum(-np.diff(schedule), 0).sum())
    serving_s = float(schedule.sum()) * SLOT_S + max(len(arrivals) - len(schedule) * SLOT_S, 0) * float(schedule[-1])
    allocated_s = serving_s + _starts(schedule) * mean_cold_s(world.cold_start) + ends * _drain_s(arrivals, world)
    return float(allocated_s * world.profile.gpus / 3600)
