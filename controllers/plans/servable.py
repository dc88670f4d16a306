"""Servable: would a request sent now be answered? Only a probe that came back through every gateway replica says yes.

What was last known stays until something newer is known: an operator that just started, a worker that was just added
and one lost probe change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controllers.plans.snapshot import Probe, Snapshot
from crds.conditions import SERVABLE, Condition, ConditionStatus

PROBE_AGAIN_S: Final = 30.0
PROBE_SOON_S: Final = 1.0
_FAILURES_TO_BELIEVE: Final = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """The condition to write, and whether a new probe should be sent now."""

    status: ConditionStatus
    reason: str
    message: str
    probe_now: bool
    look_again_s: float | None


def judge_servable(snapshot: Snapshot, system_namespace: str) -> Verdict:
    """The verdict of this moment."""
    hindrance = _hindrance(snapshot, system_namespace)
    if hindrance:
        return Verdict(ConditionStatus.FALSE, *hindrance, probe_now=False, look_again_s=None)
    due = _due(snapshot, snapshot.probe)
    status, reason, message = _believed(snapshot)
    calm = snapshot.probe is not None and snapshot.probe.ok and not due
    again_s = PROBE_AGAIN_S if calm else PROBE_SOON_S
    return Verdict(status, reason, message, probe_now=due, look_again_s=again_s)


def _hindrance(snapshot: Snapshot, system_namespace: str) -> tuple[str, str] | None:
    """What makes an answer impossible, without asking."""
    if snapshot.deleting:
        return "Deleting", "The service is being deleted; gateways no longer send requests to it."
    if not snapshot.ready_workers:
        return "NoReadyWorkers", "No worker is ready to answer."
    if not snapshot.gateways:
        where = f"No gateway replica is ready in namespace '{system_namespace}'"
        return "NoGateway", f"{where}; look at Deployment foretide-gateway there."
    return None


def _due(snapshot: Snapshot, probe: Probe | None) -> bool:
    if probe is None or probe.workers != snapshot.ready_workers or probe.gateways != snapshot.gateways:
        return True
    return probe.age_s >= (PROBE_AGAIN_S if probe.ok else PROBE_SOON_S)


def _believed(snapshot: Snapshot) -> tuple[ConditionStatus, str, str]:
    probe, before = snapshot.probe, _before(snapshot)
    if probe is not None:
        still_there = bool(probe.workers & snapshot.ready_workers)
        if probe.ok and still_there:
            return ConditionStatus.TRUE, "ProbeAnswered", "A probe through every gateway replica was answered."
        if not probe.ok and (probe.failures >= _FAILURES_TO_BELIEVE or not _was_true(before)):
            return ConditionStatus.FALSE, probe.reason, probe.message
    if before and _was_true(before):
        return before.status, before.reason, before.message
    return (
        ConditionStatus.FALSE,
        "ProbePending",
        "Workers are ready; the first probe through the gateway is on its way.",
    )


def _before(snapshot: Snapshot) -> Condition | None:
    return next((one for one in snapshot.status.conditions or () if one.type == SERVABLE), None)


def _was_true(condition: Condition | None) -> bool:
    return condition is not None and condition.status is ConditionStatus.TRUE
