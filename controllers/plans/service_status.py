"""The status of an InferenceService: what `kubectl get` and `kubectl describe` show. Made last, of all other plans.

A message carries nothing that changes by itself (ages, rates, names of pods that come and go), so that a status which
says the same is not written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controllers.plans.findings import Finding
from controllers.plans.healing.values import HealPlan
from controllers.plans.servable import Verdict
from controllers.plans.snapshot import Snapshot
from controllers.plans.transitions import Transition
from crds.conditions import (
    DEGRADED,
    FORECAST_TRUSTED,
    QUALITY_DRIFT,
    READY,
    RECONCILING,
    SCALING_HELD,
    SCALING_LIMITED,
    SERVABLE,
    STALLED,
    Condition,
    ConditionStatus,
)
from crds.contract import LABEL_SERVICE

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the workers are from what is wanted."""

    target: str | None
    """The revision that all workers should have; None while there has never been one."""
    desired: int
    findings: tuple[Finding, ...]
    moving: str
    """What the rollout does or waits for, as arithmetic."""
    new_ready: int
    old_ready: int
    old_replicas: int
    existing: int

    @property
    def stands(self) -> bool:
        """The desired workers of the wanted revision are ready and nothing hinders."""
        return not self.findings and self.new_ready >= self.desired and not self.old_replicas


@dataclass(frozen=True, slots=True)
class NewCondition:
    """A condition as plans decide it; times and generation are added where it is written."""

    type: str
    status: ConditionStatus
    reason: str
    message: str

    def dump(self) -> Manifest:
        return {"type": self.type, "status": self.status.value, "reason": self.reason, "message": self.message}


def standing(
    snapshot: Snapshot, target: str | None, desired: int, findings: Sequence[Finding], moving: str
) -> Standing:
    staying = [worker for worker in snapshot.workers if not worker.leaving]
    ready = [worker for worker in staying if worker.ready]
    new_ready = sum(worker.revision == target for worker in ready)
    return Standing(
        target=target,
        desired=desired,
        findings=tuple(findings),
        moving=moving,
        new_ready=new_ready,
        old_ready=len(ready) - new_ready,
        old_replicas=sum(revision.replicas for revision in snapshot.revisions if revision.name != target),
        existing=len(staying),
    )


def conditions(now: Standing, servable: Verdict) -> list[NewCondition]:
    """Ready and Servable always; Reconciling and Stalled only while they are true."""
    made = [_ready(now), NewCondition(SERVABLE, servable.status, servable.reason, servable.message)]
    persons = [finding for finding in now.findings if finding.needs_person]
    if persons:
        made.append(NewCondition(STALLED, ConditionStatus.TRUE, persons[0].reason, _sentences(persons)))
    elif not now.stands or now.existing > now.desired:
        made.append(NewCondition(RECONCILING, ConditionStatus.TRUE, *_progress(now)))
    return made


def deleting_conditions(message: str, servable: Verdict) -> list[NewCondition]:
    return [
        NewCondition(READY, ConditionStatus.FALSE, "Deleting", message),
        NewCondition(SERVABLE, servable.status, servable.reason, servable.message),
        NewCondition(RECONCILING, ConditionStatus.TRUE, "Deleting", message),
    ]


def degraded(healing: HealPlan | None) -> list[NewCondition]:
    """Present while workers are not well: the worst cause, what speaks for it, and what is done."""
    worst = healing.worst if healing else None
    if worst is None:
        return []
    return [NewCondition(DEGRADED, ConditionStatus.TRUE, worst.cause, f"{worst.evidence} {worst.next}")]


def healing_status(healing: HealPlan | None) -> Manifest:
    """The memory of self-healing; nothing while there is nothing to remember."""
    memory = healing.memory.dump() if healing else {}
    return {"health": memory} if memory else {}


def _ready(now: Standing) -> NewCondition:
    if now.findings:
        serving = f" {_workers(now.old_ready)} of earlier revisions serve on." if now.old_ready else ""
        return NewCondition(READY, ConditionStatus.FALSE, now.findings[0].reason, _sentences(now.findings) + serving)
    if not now.stands:
        return NewCondition(READY, ConditionStatus.FALSE, *_progress(now))
    if not now.desired:
        return NewCondition(READY, ConditionStatus.TRUE, "ScaledToZero", "0 workers are wanted.")
    message = f"{now.desired} of {now.desired} workers of revision {now.target} are ready."
    return NewCondition(READY, ConditionStatus.TRUE, "WorkersReady", message)


def _progress(now: Standing) -> tuple[str, str]:
    if now.findings:
        return now.findings[0].reason, _sentences(now.findings)
    if now.old_replicas:
        return "RollingOut", f"{now.new_ready} of {now.desired} workers have revision {now.target}; {now.moving}."
    if now.stands:
        return "ScalingDown", f"{now.existing} workers exist, {now.desired} are wanted."
    return "Starting", f"{now.new_ready} of {now.desired} workers are ready."


def _sentences(findings: Sequence[Finding]) -> str:
    return " ".join(finding.message for finding in findings)


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"


def status_fields(snapshot: Snapshot, now: Standing, url: str) -> Manifest:
    """Everything of the status but conditions."""
    staying = [worker for worker in snapshot.workers if not worker.leaving]
    ready = now.new_ready + now.old_ready
    fields: Manifest = {
        "observedGeneration": snapshot.generation,
        "url": url,
        "modelName": f"{snapshot.namespace}/{snapshot.name}",
        "tenant": snapshot.tenant.name if snapshot.tenant else None,
        "currentRevision": now.target,
        "revisions": _revisions(snapshot),
        "desiredReplicas": now.desired,
        "replicas": len(staying),
        "readyReplicas": ready,
        "replicaStatus": f"{ready}/{now.desired}",
        "selector": f"{LABEL_SERVICE}={snapshot.name}",
    }
    return {name: value for name, value in fields.items() if value is not None}


def _revisions(snapshot: Snapshot) -> list[Manifest]:
    staying = [worker for worker in snapshot.workers if not worker.leaving]
    return [
        {
            "name": name,
            "replicas": sum(worker.revision == name for worker in staying),
            "readyReplicas": sum(worker.revision == name and worker.ready for worker in staying),
        }
        for name in sorted({worker.revision for worker in staying})
    ]


def transitions(before: Sequence[Condition] | None, after: Sequence[NewCondition]) -> list[Transition]:
    """Events for what people ask afterwards: when it stalled and why, when it got ready, became servable or ceased."""
    old = {condition.type: condition for condition in before or ()}
    notes = []
    for condition in after:
        was = old.get(condition.type)
        turned = was is None or was.status is not condition.status
        if condition.type == STALLED and (turned or (was is not None and was.reason != condition.reason)):
            notes.append(Transition(condition.reason, condition.message, warning=True))
        elif condition.type in (READY, SERVABLE) and turned and condition.status is ConditionStatus.TRUE:
            notes.append(Transition(condition.type, condition.message, warning=False))
        elif condition.type == SERVABLE and turned and was is not None:
            notes.append(Transition("NotServable", condition.message, warning=condition.reason != "Deleting"))
        elif condition.type == FORECAST_TRUSTED and turned and was is not None:
            trusted = condition.status is ConditionStatus.TRUE
            reason = "ForecastTrusted" if trusted else "ForecastDemoted"
            notes.append(Transition(reason, condition.message, warning=not trusted))
        elif condition.type == QUALITY_DRIFT and (turned or (was is not None and was.reason != condition.reason)):
            notes.append(Transition(QUALITY_DRIFT, condition.message, warning=True))
        elif condition.type in (SCALING_HELD, SCALING_LIMITED) and turned:
            notes.append(Transition(condition.reason, condition.message, warning=True))
    return notes
