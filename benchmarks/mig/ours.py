"""The planner over a simulated fleet: plans each step, moves what the plan moves, and counts what that costs."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from benchmarks.mig.fleet import Fleet, Gpu, Kind, places_of
from controllers.plans.mig.demand import Plan, PlanSettings, Unit, Want, worth
from controllers.plans.mig.geometry import WHOLE_GPU, Family
from controllers.plans.mig.layouts import (
    WHOLE,
    Layout,
    Place,
    Placement,
    completions,
    layout_of,
    maximal_placements,
)
from controllers.plans.mig.planner import plan_layouts


@dataclass(slots=True)
class Step:
    """What one step cost."""

    plan: Plan
    cpu_s: float
    moved: Counter[Kind]


class Planned:
    """A fleet that the planner cuts. Slices in use stay at their places unless their GPU is cut anew."""

    def __init__(self, fleet: Fleet, settings: PlanSettings) -> None:
        self.fleet, self.settings = fleet, settings

    def step(self, demand: Mapping[Kind, int], rng: random.Random) -> Step:
        """From what stands to what is wanted now."""
        family = self.fleet.family
        units = [_unit(index, gpu, family, self.settings) for index, gpu in enumerate(self.fleet.gpus)]
        wants = [
            Want(f"{name}/{priority}", name, count, priority) for (name, priority), count in sorted(demand.items())
        ]
        started = time.process_time()
        plan = plan_layouts(wants, units, {family.name: family}, self.settings)
        cpu_s = time.process_time() - started
        return Step(plan, cpu_s, self._apply(plan, rng))

    def _apply(self, plan: Plan, rng: random.Random) -> Counter[Kind]:
        family, moved = self.fleet.family, Counter[Kind]()
        for index in (int(name) for name in plan.recut):
            for place, priority in self.fleet.gpus[index].used:
                kind = place.profile.name, priority
                moved[kind] += 1
                self.fleet.where[kind].remove(index)
            self.fleet.gpus[index].used = []
        free: dict[str, list[tuple[int, Place]]] = {}
        for name, layout in plan.stays.items():
            self._offer(free, int(name), self.fleet.gpus[int(name)], layout)
        fresh = [layout for layout, count in plan.pool.get(family.name, ()) for _ in range(count)]
        for name, layout in zip(plan.recut, fresh, strict=True):
            self._offer(free, int(name), Gpu(), layout)
        self._fill(plan, free, rng)
        return moved

    def _offer(self, free: dict[str, list[tuple[int, Place]]], index: int, gpu: Gpu, layout: Layout) -> None:
        standing = tuple(place for place, _ in gpu.used)
        for place in realise(self.fleet.family, standing, layout):
            free.setdefault(place.profile.name, []).append((index, place))

    def _fill(self, plan: Plan, free: dict[str, list[tuple[int, Place]]], rng: random.Random) -> None:
        wanted = {(one.want.profile, one.want.priority): one.replicas for one in plan.served}
        held = self.fleet.held()
        for kind, count in held.items():
            for _ in range(count - wanted.get(kind, 0)):
                index = self.fleet.take(kind, rng)
                gone = _free_place(self.fleet, index, kind[0], free)
                free.setdefault(kind[0], []).append((index, gone))
        for kind, count in sorted(wanted.items(), key=lambda item: item[0][1]):
            for _ in range(count - held.get(kind, 0)):
                index, place = free[kind[0]].pop()
                self.fleet.put(index, place, kind[1])


def _free_place(fleet: Fleet, index: int, profile: str, free: dict[str, list[tuple[int, Place]]]) -> Place:
    """The place that a worker just left."""
    taken = [place for place, _ in fleet.gpus[index].used]
    taken += [place for places in free.values() for at, place in places if at == index]
    used = sum(place.mask for place in taken)
    return next(place for place in places_of(fleet.family, profile) if not used & place.mask)


def _unit(index: int, gpu: Gpu, family: Family, settings: PlanSettings) -> Unit:
    standing = tuple(sorted(place for place, _ in gpu.used))
    return Unit(
        name=str(index),
        families={family.name: 1},
        stays=_stays(family, standing, settings.allowed),
        used_slices=gpu.compute,
        used_worth=float(sum(worth(priority) * place.profile.compute for place, priority in gpu.used)),
        worker_count=len(gpu.used),
    )


@cache
def _stays(family: Family, standing: Placement, allowed: frozenset[str] | None) -> tuple[Layout, ...]:
    if standing and standing[0].profile.name == WHOLE_GPU:
        return (WHOLE,)
    if not standing:
        return ((),)  # An idle GPU may be cut at will: that is the pool.
    return completions(family, standing, allowed)


@cache
def realise(family: Family, standing: Placement, wanted: Layout) -> Placement:
    """Places of the slices of `wanted` that do not stand yet."""
    if wanted == WHOLE:
        return () if standing else places_of(family, WHOLE_GPU)
    if not standing:
        return next((one for one in maximal_placements(family) if layout_of(one) == wanted), ())
    have = set(standing)
    for one in maximal_placements(family):
        if have <= set(one) and layout_of(one) == wanted:
            return tuple(place for place in one if place not in have)
    return ()
