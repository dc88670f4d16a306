"""The words for people on answers that are unlike the baseline's: one condition, present while it is so. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controllers.plans.quality import Drift
from controllers.plans.service_status import NewCondition
from crds.conditions import QUALITY_DRIFT, Condition, ConditionStatus


def quality_conditions(drifts: Sequence[Drift] | None, before: Sequence[Condition] | None) -> list[NewCondition]:
    """QualityDrift names the first as its reason and tells all. While nothing is known it stays as it was."""
    if drifts is None:
        stands = (one for one in before or () if one.type == QUALITY_DRIFT)
        return [NewCondition(one.type, one.status, one.reason, one.message) for one in stands]
    if not drifts:
        return []
    message = " ".join(one.message for one in drifts)
    return [NewCondition(QUALITY_DRIFT, ConditionStatus.TRUE, drifts[0].reason, message)]
