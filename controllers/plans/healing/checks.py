"""Whether a remedy helped: judged by what stands where it was applied, never by the remedy itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from controllers.plans.healing.tree import PROVEN_S
from controllers.plans.healing.values import Diagnosis
from controllers.plans.snapshot import Snapshot
from controllers.plans.times import rfc3339, unix_s
from crds.healing import HealthAction, Outcome, Remedy

CHECK_S: Final = 180.0
"""Without anything ready in its place by then it did not, where a worker starts in less."""


def checked(
    snapshot: Snapshot, actions: Sequence[HealthAction], found: Sequence[Diagnosis], desired: int, now_s: float
) -> list[HealthAction]:
    """The same actions; those that were open may have an outcome now."""
    made = []
    for one in actions:
        outcome = _outcome(snapshot, one, found, desired, now_s) if one.outcome is Outcome.PENDING else None
        made.append(one if outcome is None else ended(one, outcome, now_s))
    return made


def ended(action: HealthAction, outcome: Outcome, now_s: float) -> HealthAction:
    return action.model_copy(update={"outcome": outcome, "checked": rfc3339(now_s)})


def _outcome(
    snapshot: Snapshot, action: HealthAction, found: Sequence[Diagnosis], desired: int, now_s: float
) -> Outcome | None:
    age_s = now_s - unix_s(action.time)
    is_proven = age_s >= PROVEN_S.get(action.cause, 0.0)
    late = age_s >= max(CHECK_S, snapshot.lead_time_s)
    if action.remedy is Remedy.ROLL_BACK:
        stands = _ready(snapshot, not_of=action.revision) >= desired
        return Outcome.HELPED if stands and is_proven else Outcome.NOT_HELPED if late else None
    staying = {one.name for one in snapshot.workers if not one.leaving}
    if action.worker in staying:
        return Outcome.NOT_HELPED if late else None
    if _successor_shows_it(snapshot, action, found):
        return Outcome.NOT_HELPED
    if is_proven and _ready(snapshot) >= desired:
        return Outcome.HELPED
    return Outcome.NOT_HELPED if late else None


def _successor_shows_it(snapshot: Snapshot, action: HealthAction, found: Sequence[Diagnosis]) -> bool:
    created = {one.name: one.created for one in snapshot.workers}
    ill = {name for one in found if one.cause == action.cause for name in one.workers}
    return any(created.get(name) and unix_s(created[name] or "") >= unix_s(action.time) for name in ill)


def _ready(snapshot: Snapshot, *, not_of: str | None = None) -> int:
    return sum(one.ready and not one.leaving and one.revision != not_of for one in snapshot.workers)
