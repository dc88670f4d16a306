"""One policy through one workload, and what it served. Nothing is printed here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.mig.demand import STEP_S, Demands
from benchmarks.mig.fleet import Fleet, Kind, slices
from benchmarks.mig.ours import Planned
from benchmarks.mig.peers import Placer, Rule
from controllers.plans.mig.demand import CLASSES, PlanSettings
from controllers.plans.mig.geometry import Family

WARM_UP_STEPS = 20
"""An empty fleet has no fragmentation yet; what is served before this step is not counted."""


@dataclass(slots=True)
class Result:
    """Compute slices, summed over steps."""

    wanted: list[float] = field(default_factory=lambda: [0.0] * CLASSES)
    served: list[float] = field(default_factory=lambda: [0.0] * CLASSES)
    largest_wanted: float = 0.0
    largest_served: float = 0.0
    moved: float = 0.0
    cpu_s: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def count(self, demand: Counter[Kind], held: Counter[Kind], lost: Counter[Kind], lost_part: float) -> None:
        for (name, priority), workers in demand.items():
            here = Counter({(name, priority): workers})
            given = min(workers, held[name, priority])
            served = slices(Counter({(name, priority): given}))
            served -= lost_part * min(slices(Counter({(name, priority): lost[name, priority]})), served)
            self.wanted[priority] += slices(here)
            self.served[priority] += served
            if name.startswith("7g"):
                self.largest_wanted += slices(here)
                self.largest_served += served

    @property
    def share(self) -> float:
        """Of all demand."""
        return sum(self.served) / sum(self.wanted)

    @property
    def urgent_share(self) -> float:
        """Of the demand of P0 and P1."""
        return sum(self.served[:2]) / sum(self.wanted[:2])

    @property
    def largest_share(self) -> float:
        return self.largest_served / self.largest_wanted


def run_peer(family: Family, gpus: int, workload: Demands, rule: Rule, seed: int) -> Result:
    """Online: workers that end make room; those that wait are tried again, by class, then in random order."""
    fleet, rng, result = Fleet.empty(family, gpus), random.Random(seed), Result()
    placer = Placer(fleet, rule)
    for at, demand in enumerate(workload.steps):
        for kind, count in fleet.held().items():
            for _ in range(count - demand[kind]):
                placer.changed(fleet.take(kind, rng))
        refused: set[str] = set()
        for profile, priority in _waiting(demand, fleet.held(), rng):
            if profile not in refused and not placer.place(profile, priority):
                refused.add(profile)  # Nothing leaves before the next step, so the next of its kind fails as well.
        if at >= WARM_UP_STEPS:
            result.count(demand, fleet.held(), Counter(), 0.0)
    fleet.check()
    return result


def _waiting(demand: Counter[Kind], held: Counter[Kind], rng: random.Random) -> Iterator[Kind]:
    missing = [kind for kind, count in demand.items() for _ in range(count - held[kind])]
    rng.shuffle(missing)
    yield from sorted(missing, key=lambda kind: kind[1])


def run_planned(
    family: Family, gpus: int, workload: Demands, settings: PlanSettings, seed: int, tell: Callable[[str], None]
) -> Result:
    """The planner at every step. A worker that moves is out of service for `repartition_s` of the step."""
    fleet, rng, result = Fleet.empty(family, gpus), random.Random(seed), Result()
    planned = Planned(fleet, settings)
    for at, demand in enumerate(workload.steps):
        step = planned.step(demand, rng)
        result.cpu_s.append(step.cpu_s)
        if at < WARM_UP_STEPS:
            continue
        result.gaps.append(step.plan.gap)
        result.moved += slices(step.moved)
        result.count(demand, fleet.held(), step.moved, settings.repartition_s / STEP_S)
        if at % 20 == 0:
            tell(f"{workload.name}, step {at}: {step.cpu_s:.2f} s, gap {step.plan.gap:.1e}")
    fleet.check()
    return result
