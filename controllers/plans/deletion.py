"""The end of a service, and which worker goes first when there are too many.

Deletion in order: workers drain while Service, policy and account still stand; then our finalizer goes and Kubernetes
collects the rest by owner reference. Each look decides from what exists, so the operator may restart anywhere between.
A worker on a dead node is not waited for: its pod goes when its node is back or deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from controllers.plans.evacuation import LEAVES_FIRST
from controllers.plans.snapshot import Load, Snapshot, Worker
from crds.contract import FINALIZER_SERVICE


@dataclass(frozen=True, slots=True)
class DeletionPlan:
    """`delete` are revisions whose Deployments go now; `release` says that nothing is left to wait for."""

    delete: tuple[str, ...]
    release: bool
    message: str


def plan_deletion(snapshot: Snapshot) -> DeletionPlan:
    """The next step for a service with a deletion timestamp."""
    going = tuple(revision.name for revision in snapshot.revisions if not revision.leaving)
    left = sum(not _is_lost(worker, snapshot) for worker in snapshot.workers)
    if snapshot.revisions or left:
        return DeletionPlan(going, False, f"Deleting: {_drains(left)} for up to {snapshot.spec.rollout.drain_timeout}.")
    return DeletionPlan((), FINALIZER_SERVICE in snapshot.finalizers, "Deleting: all workers are gone.")


def _is_lost(worker: Worker, snapshot: Snapshot) -> bool:
    """It was told to go, and its node, which would say that it went, is not ready."""
    node = snapshot.nodes.get(worker.node) if worker.node else None
    return worker.leaving and node is not None and not node.ready


def _drains(number: int) -> str:
    return "1 worker drains" if number == 1 else f"{number} workers drain"


def deletion_costs(
    workers: Sequence[Worker], loads: Mapping[str, Load], evacuating: Collection[str] = ()
) -> dict[str, int]:
    """Costs to write before a Deployment is lowered, by pod name: only those that change.

    A ReplicaSet deletes the cheapest first, so the cost is the number of requests held. A worker that did not say
    counts as the busiest: it may be too busy to answer. Workers on nodes that will be cut anew go before all others.
    """
    busiest = max((load.requests for load in loads.values()), default=0)
    serving = [worker for worker in workers if worker.ready and not worker.leaving]
    costs = {worker.name: loads[worker.name].requests if worker.name in loads else busiest + 1 for worker in serving}
    costs |= {worker.name: LEAVES_FIRST for worker in serving if worker.node in evacuating}
    if len(set(costs.values())) <= 1 and len({worker.deletion_cost for worker in serving}) <= 1:
        return {}  # All alike already: Kubernetes' own order (spread, age) is better than ours.
    return {worker.name: costs[worker.name] for worker in serving if costs[worker.name] != worker.deletion_cost}
