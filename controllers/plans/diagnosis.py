"""The answer to an alert that asks what is wrong with a service: causes with evidence and advice, once for each alert.

It says what the plans of this moment know anyway; it never does anything about it. An alert that comes before anything
shows is answered with that, and again when something does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from controllers.plans.alerting.wishes import Question
from controllers.plans.findings import Finding
from controllers.plans.healing.diagnose import diagnose
from controllers.plans.service_status import NewCondition
from controllers.plans.snapshot import Snapshot
from controllers.plans.times import rfc3339
from controllers.plans.transitions import Transition
from crds.conditions import QUALITY_DRIFT, SCALING_HELD, SCALING_LIMITED
from crds.diagnosis import CAUSES_MOST, DiagnosedCause, DiagnosisStatus
from crds.rollout import RolloutPhase

NOTHING_FOUND: Final = "NothingFound"
_ADVICE: Final = {
    SCALING_LIMITED: "Raise what limits it, or take load away: `kubectl foretide explain` has the arithmetic.",
    SCALING_HELD: "Remove what holds the number of workers; until then nobody adds any.",
    QUALITY_DRIFT: "Compare answers of this and the earlier revision; spec.rollout.rollbackTo goes back.",
}
"""By condition that explains trouble, in the order in which a person would look."""


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What the status says from now on, and the Event about it when it is new."""

    status: DiagnosisStatus | None
    told: tuple[Transition, ...] = ()


def plan_diagnosis(
    snapshot: Snapshot,
    findings: Sequence[Finding],
    conditions: Sequence[NewCondition],
    desired: int,
    now_s: float,
) -> Diagnosed:
    """`findings` and `conditions` are this moment's."""
    known, asked = snapshot.status.diagnosis, snapshot.wishes.question
    if asked is None:
        return Diagnosed(known)
    answered = known is not None and _answers(known, asked)
    if answered and known is not None and known.causes[0].cause != NOTHING_FOUND:
        return Diagnosed(known)
    causes = list(_causes(snapshot, findings, conditions, now_s))[:CAUSES_MOST]
    if answered and not causes:
        return Diagnosed(known)
    made = DiagnosisStatus(
        alert=asked.alert[:253],
        policy=asked.policy,
        since=rfc3339(asked.since_s),
        time=rfc3339(now_s),
        causes=causes or [_nothing(snapshot, desired)],
    )
    return Diagnosed(made, (_event(made),))


def _answers(known: DiagnosisStatus, asked: Question) -> bool:
    return (known.alert, known.policy, known.since) == (asked.alert[:253], asked.policy, rfc3339(asked.since_s))


def _causes(
    snapshot: Snapshot, findings: Sequence[Finding], conditions: Sequence[NewCondition], now_s: float
) -> Iterator[DiagnosedCause]:
    """Workers that are not well, what is in the way of the spec, a change under way, what bounds or drifts."""
    for one in diagnose(snapshot, now_s):
        yield _cause(one.cause, one.evidence, one.advice)
    for finding in findings:
        yield _cause(finding.reason, finding.message, "Do what the sentence says; the service goes on by itself then.")
    rollout = snapshot.status.rollout
    if rollout and rollout.phase not in (RolloutPhase.STABLE, RolloutPhase.ROLLED_BACK):
        advice = (
            "Compare both revisions (`kubectl foretide explain` has the verdicts); spec.rollout.abort takes it back."
        )
        yield _cause("RolloutUnderWay", rollout.summary, advice)
    said = {finding.reason for finding in findings}
    for type_, advice in _ADVICE.items():
        for condition in conditions:
            if condition.type == type_ and condition.reason not in said:  # a quota is one cause, in both places
                yield _cause(condition.reason, condition.message, advice)


def _nothing(snapshot: Snapshot, desired: int) -> DiagnosedCause:
    evidence = (
        f"{len(snapshot.ready_workers)} of {desired} workers are ready; no worker, node, quota, pool or rollout shows "
        "anything."
    )
    advice = f"Look at what comes in (`kubectl foretide top`), then at the clients and the network of {snapshot.name}."
    return _cause(NOTHING_FOUND, evidence, advice)


def _cause(cause: str, evidence: str, advice: str) -> DiagnosedCause:
    return DiagnosedCause(cause=cause, evidence=evidence[:1024], advice=advice[:512])


def _event(made: DiagnosisStatus) -> Transition:
    first, more = made.causes[0], len(made.causes) - 1
    rest = f" And {more} more in status.diagnosis." if more else ""
    message = f"Alert '{made.alert}': {first.cause}: {first.evidence} {first.advice}{rest}"
    return Transition("Diagnosed", message[:1024], warning=first.cause != NOTHING_FOUND)
