"""Which revision of a service serves and which is tried, and how many workers each gets: from the snapshot.

The rules are in `controllers.plans.canary` and `controllers.plans.rollout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from controllers.plans.alerting.wishes import hold_now
from controllers.plans.canary.decide import plan_canary
from controllers.plans.canary.values import CanaryInput, CanaryPlan, Hold
from controllers.plans.findings import Finding
from controllers.plans.health import check_workers, is_broken
from controllers.plans.rollout import RevisionState, RolloutLimits, RolloutPlan, plan_rollout
from controllers.plans.snapshot import Snapshot
from controllers.plans.worker_pod import WorkerTemplate
from crds.rollout import Rollout, Strategy

_DEADLY: Final = ("WorkerCrashing", "WorkerNotStarted")
"""Reasons that are the revision's own fault and do not pass."""


@dataclass(frozen=True, slots=True)
class RevisionPlan:
    """Everything about revisions."""

    rollout: RolloutPlan
    canary: CanaryPlan | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def moving(self) -> str:
        """What it does or waits for, in one sentence."""
        status = self.canary.status if self.canary else None
        return status.message.rstrip(".") if status and status.message else self.rollout.message

    def status(self) -> dict[str, Any]:
        """Fields of the status; none while there is nothing to say."""
        if self.canary is None:
            return {}
        fields: dict[str, Any] = {}
        if self.canary.traffic:
            fields["traffic"] = [one.dump() for one in self.canary.traffic]
        if self.canary.status:
            fields["rollout"] = self.canary.status.dump()
        return fields


def pinned_revision(snapshot: Snapshot) -> tuple[str | None, list[Finding]]:
    """The earlier revision that a person wants, and what is wrong with that wish."""
    wanted = snapshot.spec.rollout.rollback_to
    names = sorted(one.name for one in snapshot.revisions if not one.leaving)
    if wanted is None or wanted in names:
        return wanted, []
    kept = f"kept are {', '.join(names)}" if names else "none is kept"
    message = (
        f"spec.rollout.rollbackTo names revision '{wanted}', which does not exist; {kept}. Name one, or remove it."
    )
    return None, [Finding("RevisionNotFound", message)]


def plan_revisions(
    snapshot: Snapshot, target: str | None, desired: int, now_s: float, *, template: WorkerTemplate | None
) -> RevisionPlan:
    """One safe step of workers and of traffic."""
    rollout = snapshot.spec.rollout
    if target is None:
        return RevisionPlan(RolloutPlan({}, (), (), "Blocked", "no worker may start"))
    states = revision_states(snapshot)
    revision = next((one for one in snapshot.revisions if one.name == target), None)
    findings = check_workers(revision, snapshot.workers, now_s)
    canary = plan_canary(_seen(snapshot, target, desired, now_s, states, findings))
    surge = rollout.max_surge if canary.max_surge is None else canary.max_surge
    limits = RolloutLimits(desired, surge, rollout.max_unavailable, rollout.revision_history_limit)
    plan = plan_rollout(canary.serving, states, limits, may_grow=template is not None, beside=canary.beside)
    if canary.refused:
        # What its last workers say of themselves is the past.
        findings = [Finding("RolledBack", canary.refused)]
    return RevisionPlan(plan, canary, tuple(findings))


def _seen(
    snapshot: Snapshot,
    target: str,
    desired: int,
    now_s: float,
    states: Sequence[RevisionState],
    findings: Sequence[Finding],
) -> CanaryInput:
    compared = snapshot.compared
    lives = any(state.ready for state in states if state.name == target)
    deadly = next((one for one in findings if one.reason in _DEADLY and one.needs_person), None)
    return CanaryInput(
        spec=_rules(snapshot.spec.rollout),
        memory=snapshot.status.rollout,
        target=target,
        states=states,
        desired=desired,
        traffic=snapshot.status.traffic or (),
        compared=compared if compared and compared.pair.candidate == target else None,
        crash=deadly.message if deadly and not lives else None,
        hold=_hold(snapshot, now_s),
        now_s=now_s,
    )


def _hold(snapshot: Snapshot, now_s: float) -> Hold | None:
    """An alert before the budget: a person wrote down that it should."""
    if held := hold_now(snapshot.wishes, now_s):
        return Hold("HeldByAlert", held.why)
    return Hold("ErrorBudgetSpent", snapshot.budget_spent) if snapshot.budget_spent else None


def _rules(rollout: Rollout) -> Rollout:
    """A person who goes back to a revision that served has seen enough: nothing is compared."""
    return rollout.model_copy(update={"strategy": Strategy.ROLLING}) if rollout.rollback_to else rollout


def revision_states(snapshot: Snapshot) -> list[RevisionState]:
    """What the rollout counts. A Deployment that someone deletes asks for nothing and its workers do not stay; workers
    that the API server refuses to make are as broken as those that crash."""
    states = []
    for revision in snapshot.revisions:
        mine = [worker for worker in snapshot.workers if worker.revision == revision.name]
        staying = [worker for worker in mine if not worker.leaving]
        refused = max(0, revision.replicas - len(staying)) if revision.failure else 0
        states.append(
            RevisionState(
                name=revision.name,
                replicas=0 if revision.leaving else revision.replicas,
                ready=0 if revision.leaving else sum(worker.ready for worker in staying),
                pods=len(staying) + refused,
                leaving=len(mine) - len(staying),
                broken=sum(is_broken(worker) for worker in staying) + refused,
                created=revision.created,
                settled=revision.settled,
            )
        )
    return states
