"""A small model of Deployments and pods, for rollout tests: what Kubernetes does between two looks of the operator.

It can be slow (a number that was written is not acted on yet), it deletes workers that are not ready first, and workers
crash, start, become ready and drain in any order that the test chooses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from controllers.plans.rollout import Beside, RevisionState, RolloutLimits, RolloutPlan, plan_rollout


@dataclass
class Worker:
    number: int
    ready: bool = False
    broken: bool = False
    leaving: bool = False


@dataclass
class Revision:
    name: str
    created: str
    replicas: int = 0
    settled: bool = True
    workers: list[Worker] = field(default_factory=list)

    def staying(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.leaving]


class World:
    """`good` are the revisions whose workers become ready; those of any other crash."""

    def __init__(self, good: Iterable[str]) -> None:
        self.good = set(good)
        self.revisions: dict[str, Revision] = {}
        self._made = 0

    def states(self) -> list[RevisionState]:
        return [self._state(revision) for revision in self.revisions.values()]

    def _state(self, revision: Revision) -> RevisionState:
        staying = revision.staying()
        return RevisionState(
            revision.name,
            revision.replicas,
            ready=sum(worker.ready for worker in staying),
            pods=len(staying),
            leaving=len(revision.workers) - len(staying),
            broken=sum(worker.broken for worker in staying),
            created=revision.created,
            settled=revision.settled,
        )

    def ready(self) -> int:
        """Ready workers once Kubernetes has acted on every number."""
        return sum(min(state.ready, state.replicas) for state in self.states())

    def asked(self) -> int:
        return sum(revision.replicas for revision in self.revisions.values())

    def held(self) -> int:
        return sum(max(state.replicas, state.pods) for state in self.states())

    def apply(self, plan: RolloutPlan) -> None:
        for name, replicas in plan.replicas.items():
            revision = self.revisions.get(name)
            if revision is None:
                revision = self.revisions[name] = Revision(name, f"2026-01-01T00:00:{self._next() % 60:02d}Z")
            if revision.replicas != replicas:
                revision.replicas, revision.settled = replicas, False
        for name in plan.remove:
            assert not self.revisions[name].workers, f"{name} was removed with workers"
            del self.revisions[name]

    def _next(self) -> int:
        self._made += 1
        return self._made

    # --- what Kubernetes does ------------------------------------------------------------------------------------
    def act(self, name: str) -> None:
        """The Deployment and ReplicaSet controllers look at one revision."""
        revision = self.revisions[name]
        revision.settled = True
        staying = revision.staying()
        for worker in sorted(staying, key=lambda worker: (worker.ready, -worker.number))[
            : max(0, len(staying) - revision.replicas)
        ]:
            worker.leaving = True
        for _ in range(revision.replicas - len(staying)):
            revision.workers.append(Worker(self._next()))

    def start(self, name: str) -> None:
        """One worker that is loading becomes ready, or crashes."""
        for worker in self.revisions[name].staying():
            if not worker.ready and not worker.broken:
                worker.ready, worker.broken = name in self.good, name not in self.good
                return

    def blink(self, name: str) -> None:
        """One ready worker fails its readiness probe for a while."""
        for worker in self.revisions[name].staying():
            if worker.ready:
                worker.ready = False
                return

    def kill(self, name: str) -> None:
        """One worker is gone, ready or not; its ReplicaSet will make another."""
        if self.revisions[name].workers:
            self.revisions[name].workers.pop(0)

    def drained(self, name: str) -> None:
        """Workers that were leaving are gone."""
        self.revisions[name].workers = self.revisions[name].staying()


def step(world: World, target: str, limits: RolloutLimits, beside: Beside | None = None) -> RolloutPlan:
    """One look of the operator. The two promises are checked here, for every test."""
    ready, held, asked = world.ready(), world.held(), world.asked()
    plan = plan_rollout(target, world.states(), limits, beside=beside)
    world.apply(plan)
    assert world.ready() >= min(ready, limits.minimum_ready), plan.message
    assert world.asked() <= max(limits.most, held, asked), plan.message
    assert min((r.replicas for r in world.revisions.values()), default=0) >= 0
    again = plan_rollout(target, world.states(), limits, beside=beside)
    assert not again.moves, f"planning again after applying moves {again.moves}"
    return plan


def run_until_quiet(
    world: World, target: str, limits: RolloutLimits, beside: Beside | None = None, *, most_steps: int = 400
) -> list[RolloutPlan]:
    """Kubernetes does everything there is to do after each look, until nothing changes any more."""
    story = []
    for _ in range(most_steps):
        plan = step(world, target, limits, beside)
        if not plan.is_empty:
            story.append(plan)
        before = world.states()
        for name in list(world.revisions):
            world.act(name)
            world.drained(name)
            for _ in world.revisions[name].workers:
                world.start(name)
        if plan.is_empty and world.states() == before:
            return story
    raise AssertionError(f"no end after {most_steps} looks: {world.states()}")
