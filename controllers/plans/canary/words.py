"""Times as a status has them, and the history of rollouts that it keeps."""

from __future__ import annotations

from datetime import UTC, datetime

from crds.rollout import HISTORY_MOST, RolloutOutcome, RolloutRecord, RolloutStatus


def rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str | None, now_s: float) -> float:
    """0 when there is no such time."""
    return now_s - datetime.fromisoformat(text).timestamp() if text else 0.0


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
