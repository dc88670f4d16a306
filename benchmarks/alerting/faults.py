"""Made fleets with a fault in them: which parts alert, when, and what else happens at the same time. Seeded.

Its chances are not those of `controllers.plans.alerting.causes`: they are drawn anew for every fault.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from controllers.plans.alerting.causes import Change
from controllers.plans.alerting.topology import (
    GPU,
    MODEL,
    NODE,
    REVISION,
    THE_GATEWAY,
    WORKER,
    Part,
    Pod,
    Topology,
    build,
)

SPEAKS: Final = {NODE: 0.85, GPU: 0.8, WORKER: 0.7, MODEL: 0.6, "gateway": 0.7, REVISION: 0.15}
"""How often a broken part has an alert of its own."""
KINDS: Final = (NODE, GPU, WORKER, MODEL, REVISION, "gateway")
CHANGED: Final = {REVISION: 0.85, MODEL: 0.4}
"""How often it broke because somebody changed it."""


@dataclass(frozen=True)
class Fleet:
    """`services` on `nodes`, some with GPUs whose exporter tells which worker holds them."""

    pods: tuple[Pod, ...]
    models: dict[str, str]
    gpus: dict[str, Part]

    @property
    def topology(self) -> Topology:
        """The truth."""
        return build(dict(self.models), self.pods, self.gpus)

    def known(self, seen: set[Part]) -> Topology:
        """What the operator knows: of GPUs only those of which the exporter's alerts tell."""
        told = {pod: gpu for pod, gpu in self.gpus.items() if gpu in seen}
        return build(dict(self.models), self.pods, told)


def fleet(rng: random.Random, services: int = 40, nodes: int = 12, prefix: str = "") -> Fleet:
    """Services of two to six workers each, every model shared by a few."""
    pods: list[Pod] = []
    models: dict[str, str] = {}
    gpus: dict[str, Part] = {}
    for number in range(services):
        name = f"{prefix}s{number}"
        models[f"demo/{name}"] = f"{prefix}m{number % max(services // 4, 1)}"
        for at in range(rng.randint(2, 6)):
            node = f"{prefix}n{rng.randrange(nodes)}"
            pods.append(Pod("demo", f"{name}-{at}", name, "new" if rng.random() < 0.8 else "old", node))
            if number % 2:
                gpus[f"demo/{name}-{at}"] = Part(GPU, f"{node}/{len(gpus)}")
    return Fleet(tuple(pods), models, gpus)


@dataclass
class Seen:
    """One alert."""

    part: Part
    name: str
    at_s: float


@dataclass
class Case:
    """A fault, everything that alerts around it, and every change of the last hour."""

    root: Part
    alerts: list[Seen] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def case(rng: random.Random, on: Fleet, kind: str, *, distractors: tuple[int, int] = (2, 8)) -> Case | None:
    """None when nothing alerts: then there is nothing to explain."""
    truth = on.topology
    roots = [part for part in truth.causes if part.kind == kind]
    if kind in (NODE, MODEL):
        roots = [part for part in truth.consequences if part.kind == kind]
    root = THE_GATEWAY if kind == "gateway" else rng.choice(sorted(roots))
    found = Case(root)
    below = truth.downstream(root)
    felt, patience_s = rng.uniform(0.6, 0.95), rng.uniform(30, 180)
    for part, share in sorted(below.items()):
        if part == root:
            if rng.random() < SPEAKS[kind]:
                found.alerts.append(Seen(part, f"{kind}-down", rng.uniform(0, patience_s)))
        elif part.kind in ("service", WORKER) and rng.random() < felt * share ** rng.uniform(0.3, 1.0):
            for name in rng.sample(("errors", "slow", "unservable", "burn"), rng.randint(1, 3)):
                found.alerts.append(Seen(part, name, rng.uniform(5, 60 + patience_s)))
    if not found.alerts:
        return None
    if rng.random() < CHANGED.get(kind, 0.05):
        found.changes.append(Change(root, -rng.uniform(20, 600), "it was rolled out"))
    _distract(rng, truth, set(below), found, rng.randint(*distractors))
    return found


def _distract(rng: random.Random, truth: Topology, below: set[Part], found: Case, n: int) -> None:
    """Alerts of other parts, one of them loud, and changes of other revisions."""
    others = sorted({*truth.causes, *truth.consequences} - below - truth.upstream(found.root).keys())
    for at, part in enumerate(rng.sample(others, min(n, len(others)))):
        for name in range(rng.randint(8, 25) if at == 0 else rng.randint(1, 2)):
            found.alerts.append(Seen(part, f"other-{name}", rng.uniform(-600, 120)))
    revisions = [part for part in others if part.kind == REVISION]
    for part in rng.sample(revisions, min(rng.randint(1, 3), len(revisions))):
        found.changes.append(Change(part, -rng.uniform(20, 3600), "it was rolled out"))
