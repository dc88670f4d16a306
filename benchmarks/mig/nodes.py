"""How long a plan takes where whole nodes are cut: 500 nodes × 8 GPUs under the MIG manager, all different."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.mig.demand import CLASS_SHARES, PROFILES
from controllers.plans.mig.demand import Plan, PlanSettings, Unit, Want, worth
from controllers.plans.mig.geometry import WHOLE_GPU, Family
from controllers.plans.mig.layouts import WHOLE, layout, slices_of, useful_layouts
from controllers.plans.mig.planner import plan_layouts


@dataclass(frozen=True, slots=True)
class Timed:
    plan: Plan
    cpu_s: float


def node(name: str, family: Family, gpus: int, busy: float, rng: random.Random) -> Unit:
    """A node cut at random, a share of its slices in use by workers of random classes."""
    given: Counter[str] = Counter()
    used, used_worth, workers = 0, 0.0, 0
    for _ in range(gpus):
        for profile, count in rng.choice((*useful_layouts(family), WHOLE)):
            given[profile] += count
            for _ in range(count):
                if rng.random() < busy:
                    used += slices_of(profile)
                    used_worth += slices_of(profile) * worth(rng.choices(range(4), CLASS_SHARES)[0])
                    workers += 1
    return Unit(name, {family.name: gpus}, (layout(given),), used, used_worth, workers)


def services(gpus: int, load: float, rng: random.Random) -> list[Want]:
    """400 services of 1 to n workers that together ask for `load` of the fleet."""
    kinds = [(rng.choice((*PROFILES, WHOLE_GPU)), rng.choices(range(4), CLASS_SHARES)[0]) for _ in range(400)]
    each = load * gpus * 7 / len(kinds)
    return [
        Want(f"demo/s{i}", profile, max(1, round(rng.uniform(0, 2) * each / slices_of(profile))), priority)
        for i, (profile, priority) in enumerate(kinds)
    ]


def timed_plan(family: Family, nodes: int, gpus: int, load: float, busy: float, seed: int) -> Timed:
    """One plan from nothing known, on one core."""
    rng = random.Random(seed)
    units = [node(f"node-{i:04}", family, gpus, busy, rng) for i in range(nodes)]
    wants = services(nodes * gpus, load, rng)
    started = time.process_time()
    plan = plan_layouts(wants, units, {family.name: family}, PlanSettings())
    return Timed(plan, time.process_time() - started)
