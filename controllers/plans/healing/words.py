"""Findings and actions as the status has them: what was first seen stays as it was seen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from controllers.plans.healing.values import Diagnosis
from controllers.plans.times import rfc3339
from crds.healing import ACTIONS_MOST, FINDINGS_MOST, HealthAction, HealthFinding, Outcome, Remedy

_ENDS: Final = {
    Outcome.PENDING: "not known yet whether it helps",
    Outcome.HELPED: "it helped",
    Outcome.NOT_HELPED: "it did not help",
    Outcome.UNDONE: "undone",
}


def finding(one: Diagnosis, next_: str, before: Sequence[HealthFinding], now_s: float) -> HealthFinding:
    """Numbers in an evidence change with every look: while cause and workers are the same, the first words stay."""
    workers, nodes = list(one.workers[:8]), list(one.nodes[:8])
    known = next((old for old in before if old.cause == one.cause and (old.workers or []) == workers), None)
    same_cause = known or next((old for old in before if old.cause == one.cause), None)
    return HealthFinding(
        cause=one.cause,
        error_class=one.error_class,
        since=same_cause.since if same_cause else rfc3339(now_s - one.for_s),
        workers=workers or None,
        affected=len(one.workers),
        nodes=nodes or None,
        evidence=known.evidence if known else one.evidence[:1024],
        next=next_[:512],
        advice=one.advice[:512],
        effect=one.effect[:512],
    )


def findings(made: Sequence[HealthFinding]) -> list[HealthFinding] | None:
    return list(made[:FINDINGS_MOST]) or None


def with_action(action: HealthAction, others: Sequence[HealthAction]) -> list[HealthAction]:
    """Newest first, the oldest left out, but none that is still to be checked."""
    all_ = [action, *others]
    while len(all_) > ACTIONS_MOST:
        oldest = next((one for one in reversed(all_) if one.outcome is not Outcome.PENDING), None)
        if oldest is None:
            break
        all_.remove(oldest)
    return all_


def said_of(action: HealthAction) -> str:
    """`restarted worker chat-1 on node-2`"""
    where = f" on {action.node}" if action.node else ""
    match action.remedy:
        case Remedy.ROLL_BACK:
            return f"rolled revision {action.revision} back"
        case Remedy.MOVE_WORKER:
            return f"deleted worker {action.worker}{where}, so that another node takes its place"
        case _:
            return f"restarted worker {action.worker}{where}"


def told_of(action: HealthAction) -> str:
    """`restarted worker chat-1 on node-2, it did not help`"""
    return f"{said_of(action)}, {_ENDS[action.outcome]}"


def found_text(causes: int, *, troubled: bool) -> str:
    """`2 causes found`. troubled: the service is not ready or not servable."""
    if causes:
        return f"{causes} {'cause' if causes == 1 else 'causes'} found"
    return "no worker shows anything" if troubled else "nothing is found wrong"
