"""The history of rollouts that a status keeps."""

from __future__ import annotations

from controllers.plans.times import rfc3339
from crds.rollout import HISTORY_MOST, RolloutOutcome, RolloutRecord, RolloutStatus


def record(
    memory: RolloutStatus, outcome: RolloutOutcome, reason: str, message: str, now_s: float
) -> list[RolloutRecord]:
    """The history with one more rollout, the oldest ones left out."""
    made = RolloutRecord(
        revision=memory.candidate or "",
        before=memory.stable or "",
        outcome=outcome,
        reason=reason,
        message=message[:1024],
        time=rfc3339(now_s),
    )
    return [made, *(memory.history or [])][:HISTORY_MOST]
