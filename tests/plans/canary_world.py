"""A service with canaries in the small model of Kubernetes: looks of the operator, requests, time, and what was said.

`Service.look` decides, moves the workers and writes the status, like one reconcile; a test may lose either write, as a
crash between them does. The promises of traffic are checked at every look.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from controllers.plans.canary.decide import plan_canary
from controllers.plans.canary.evidence import Evidence, is_batch, learned
from controllers.plans.canary.outputs import OutputFinding
from controllers.plans.canary.samples import BOUNDS, Sample
from controllers.plans.canary.values import CanaryInput, CanaryPlan, Compared, Hold, Pair
from controllers.plans.rollout import RolloutLimits, plan_rollout
from crds.rollout import Rollout, RolloutMetric, RolloutPhase, RolloutStatus
from crds.traffic import TrafficShare
from tests.plans.rollout_world import World

FINE = OutputFinding(True, "2 prompts: 0% of tokens differ")


@dataclass
class Behaviour:
    """What requests meet in one revision."""

    errors: float = 0.0
    ttft: float = 1.0
    answers_right: bool = True


def sample(requests: int, behaviour: Behaviour, rng: random.Random) -> Sample:
    """Requests with times of about 200 ms and 20 ms and answers of about 100 tokens."""
    middles = {RolloutMetric.TTFT: 0.2 * behaviour.ttft, RolloutMetric.TPOT: 0.02, RolloutMetric.LENGTH: 100.0}
    counts = {}
    for metric, middle in middles.items():
        buckets = [0] * (len(BOUNDS[metric]) + 1)
        for _ in range(requests):
            value = middle * rng.lognormvariate(0, 0.4)
            buckets[bisect_left(BOUNDS[metric], value)] += 1
        counts[metric.value] = tuple(buckets)
    failed = sum(rng.random() < behaviour.errors for _ in range(requests))
    return Sample(requests, failed, counts["ttft"], counts["tpot"], counts["length"])


@dataclass
class Service:
    """`desired` workers under `spec`; revisions named in `world.good` become ready."""

    world: World
    spec: Rollout
    desired: int = 3
    target: str = "a"
    now_s: float = 1_767_225_600.0
    status: RolloutStatus | None = None
    traffic: tuple[TrafficShare, ...] = ()
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    budget: str | None = None
    hold: Hold | None = None
    crash: str | None = None
    told: list[str] = field(default_factory=list)
    pair: Pair | None = None
    evidence: Evidence = field(default_factory=Evidence)
    recent: Sample = field(default_factory=Sample)
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def seen(self) -> CanaryInput:
        """As an operator would see it now."""
        compared = None
        if self.pair and self.pair.candidate == self.target:
            right = self.behaviours.get(self.target, Behaviour()).answers_right
            outputs = FINE if right else OutputFinding(False, "2 prompts: 94% of tokens differ, 0% are noise")
            is_ready = any(one.name == self.target and one.ready for one in self.world.states())
            compared = Compared(self.pair, self.evidence, self.recent, outputs if is_ready else None)
        return CanaryInput(
            self.spec,
            self.status,
            self.target,
            self.world.states(),
            self.desired,
            self.traffic,
            compared,
            crash=self.crash,
            hold=self.hold or (Hold("ErrorBudgetSpent", self.budget) if self.budget else None),
            now_s=self.now_s,
        )

    def look(self, *, workers: bool = True, status: bool = True) -> CanaryPlan:
        """One reconcile; without `workers` or `status` it crashed before that write."""
        plan = plan_canary(self.seen())
        limits = self.limits(plan)
        if workers:
            ready, held, asked = self.world.ready(), self.world.held(), self.world.asked()
            moves = plan_rollout(plan.serving, self.world.states(), limits, beside=plan.beside)
            self.world.apply(moves)
            assert self.world.ready() >= min(ready, limits.minimum_ready), moves.message
            assert self.world.asked() <= max(limits.most, held, asked), moves.message
        if status:
            self._write(plan)
        return plan

    def limits(self, plan: CanaryPlan) -> RolloutLimits:
        surge = self.spec.max_surge if plan.max_surge is None else plan.max_surge
        return RolloutLimits(self.desired, surge, self.spec.max_unavailable, self.spec.revision_history_limit)

    def _write(self, plan: CanaryPlan) -> None:
        self._check_traffic(plan)
        if plan.pair != self.pair:
            self.pair, self.evidence, self.recent = plan.pair, Evidence(), Sample()
        self.told += [f"{note.reason}: {note.message}" for note in plan.notes]
        self.status, self.traffic = plan.status, plan.traffic

    def _check_traffic(self, plan: CanaryPlan) -> None:
        if not plan.traffic:
            return
        assert sum(one.weight for one in plan.traffic) == 100
        goes_back = plan.status is not None and plan.status.phase in (RolloutPhase.ROLLED_BACK, RolloutPhase.STABLE)
        for one in plan.traffic[1:]:
            before = next((old.weight for old in self.traffic if old.revision == one.revision), 0)
            assert one.weight <= before if goes_back else one.weight >= before, (
                f"{one.revision} {before} → {one.weight}"
            )

    # --- the world goes on ----------------------------------------------------------------------------------------
    def kubernetes(self, order: Iterable[str] | None = None) -> None:
        """Every revision's controllers act, in this order."""
        for name in order or list(self.world.revisions):
            if name in self.world.revisions:
                self.world.act(name)
                self.world.drained(name)
                for _ in self.world.revisions[name].workers:
                    self.world.start(name)

    def requests(self, number: int) -> None:
        """So many are asked of both revisions together, by their weights."""
        if self.pair is None:
            return
        weight = next((one.weight for one in self.traffic if one.revision == self.pair.candidate), 0)
        mirror = next((one.mirror for one in self.traffic if one.revision == self.pair.candidate), None) or 0
        new = number * max(weight, mirror) // 100
        old = number - number * weight // 100
        stable = sample(old, self.behaviours.get(self.pair.stable, Behaviour()), self.rng)
        candidate = sample(new, self.behaviours.get(self.pair.candidate, Behaviour()), self.rng)
        self.recent = candidate
        if is_batch(stable, candidate):
            self.evidence = learned(self.evidence, stable, candidate, self.spec.comparison)

    def restart(self) -> None:
        """A new leader: what the last minute held is forgotten, what the status holds is not."""
        self.recent = Sample()

    def edit(self, **fields: object) -> None:
        """A person changes spec.rollout."""
        self.spec = Rollout.model_validate(self.spec.dump() | fields)


def settled(world: World) -> bool:
    """Kubernetes has nothing left to do."""
    return all(one.settled and len(one.workers) == one.replicas for one in world.revisions.values())
