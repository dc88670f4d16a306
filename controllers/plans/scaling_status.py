"""What the status of an InferenceService says about scaling: fields, and conditions while they apply.

As everywhere in a status, no message holds a number that changes by itself: those are in the recorded decisions.
"""

from __future__ import annotations

from typing import Final

from controllers.plans.alerting.wishes import Floor
from controllers.plans.capacity import workers_text
from controllers.plans.carried import carried
from controllers.plans.floor import floor_status
from controllers.plans.limits import Limit
from controllers.plans.scaling import ScalingPlan
from controllers.plans.service_status import Manifest, NewCondition
from controllers.plans.snapshot import Snapshot
from controllers.plans.times import rfc3339
from controllers.plans.units import duration_text
from crds.conditions import FORECAST_TRUSTED, SCALING_HELD, SCALING_LIMITED, ConditionStatus
from crds.scaling import LastDecision, Scaling, ScalingPolicy, ScalingStatus
from forecasting.policy import Reason

LENGTHS_UNKNOWN: Final = "LengthsUnknown"
_NEXT: Final = {
    False: "Raise the quota of the Tenant, or lower spec.scaling.max or what its other services take.",
    True: "Add nodes to the pool, choose a smaller slice, or lower what services of a higher class take.",
}
"""What a person can do about a limit of a Tenant, and of a pool."""


def scaling_status(
    snapshot: Snapshot, plan: ScalingPlan, desired: int, granted: int, floor: Floor | None, now_s: float
) -> Manifest:
    """`{"scaling": …}`, nothing where the spec does not scale. `granted`: what the quota alone leaves of the wish."""
    scaling = snapshot.spec.scaling
    if scaling is None:
        return {}
    status = ScalingStatus(
        policy=_effective(scaling, snapshot),
        advised_replicas=plan.advised,
        wanted_replicas=granted if granted != desired else None,
        lead_time=None if scaling.policy is ScalingPolicy.REACTIVE else duration_text(snapshot.lead_time_s),
        floor=floor_status(floor),
        last_decision=_last(snapshot, plan, desired, now_s),
    )
    return {"scaling": status.dump()}


def _effective(scaling: Scaling, snapshot: Snapshot) -> ScalingPolicy:
    if scaling.policy is not ScalingPolicy.PREDICTIVE:
        return scaling.policy
    condition = _trusted(snapshot, scaling)
    return scaling.policy if condition.status is ConditionStatus.TRUE else ScalingPolicy.REACTIVE


def _last(snapshot: Snapshot, plan: ScalingPlan, desired: int, now_s: float) -> LastDecision | None:
    before = snapshot.status.desired_replicas
    known = snapshot.status.scaling.last_decision if snapshot.status.scaling else None
    if before is None or desired == before or plan.reason == "Fixed":
        return known
    return LastDecision(
        time=rfc3339(now_s), before=before, after=desired, reason=plan.reason, message=plan.message[:1024]
    )


def scaling_conditions(snapshot: Snapshot, plan: ScalingPlan, limit: Limit | None) -> list[NewCondition]:
    """ScalingHeld and ScalingLimited while they are true; ForecastTrusted where the policy looks ahead."""
    scaling = snapshot.spec.scaling
    if (
        snapshot.autoscaler
        and snapshot.spec.replicas is None
        and (scaling is None or scaling.policy is ScalingPolicy.ADVISORY)
    ):
        message = (
            f"{snapshot.autoscaler} cannot read the scale of a service without spec.replicas: set it once, and the "
            "autoscaler changes it from then on."
        )
        return [NewCondition(SCALING_HELD, ConditionStatus.TRUE, "ReplicasMissing", message)]
    if scaling is None:
        return []
    made = [_held(snapshot, plan), _limited(plan, limit)]
    if scaling.policy is not ScalingPolicy.REACTIVE:
        made.append(_trusted(snapshot, scaling))
    return [one for one in made if one]


def _held(snapshot: Snapshot, plan: ScalingPlan) -> NewCondition | None:
    if plan.held_by:
        message = (
            f"{plan.held_by} also sets the number of workers, so the operator keeps it. Delete the autoscaler, or "
            "replace spec.scaling by spec.replicas, which it then sets."
        )
        return NewCondition(SCALING_HELD, ConditionStatus.TRUE, "OtherAutoscaler", message)
    if plan.trouble:
        return NewCondition(SCALING_HELD, ConditionStatus.TRUE, "ScheduleInvalid", plan.trouble)
    if plan.reason == LENGTHS_UNKNOWN:
        message = (
            "How long the requests are, and so what one worker carries within the targets, was not read from the "
            "history yet, so no worker is taken away. Is it reached?"
        )
        return NewCondition(SCALING_HELD, ConditionStatus.TRUE, LENGTHS_UNKNOWN, message)
    stale = plan.decision is not None and plan.decision.reason is Reason.STALE
    if stale and snapshot.ready_workers:
        message = "No worker reports its load, so the number of workers is kept until one does."
        return NewCondition(SCALING_HELD, ConditionStatus.TRUE, "MetricsMissing", message)
    return None


def _limited(plan: ScalingPlan, limit: Limit | None) -> NewCondition | None:
    """Only where more workers are called for than the lowest limit leaves."""
    if limit is None or limit.replicas >= plan.wished:
        return None
    kept = f"so no more than {limit.replicas} are started" if limit.bounds else "so the others wait for new nodes"
    message = f"{limit.by}, {kept}. {_NEXT[limit.of_pool]}"
    return NewCondition(SCALING_LIMITED, ConditionStatus.TRUE, limit.reason, message)


def _trusted(snapshot: Snapshot, scaling: Scaling) -> NewCondition:
    """What was last known stays until an operator that just started has looked at the history itself."""
    before = next((one for one in snapshot.status.conditions or () if one.type == FORECAST_TRUSTED), None)
    if snapshot.forecast is None and before is not None:
        return NewCondition(before.type, before.status, before.reason, before.message)
    distrust = _distrust(snapshot)
    if distrust:
        return NewCondition(FORECAST_TRUSTED, ConditionStatus.FALSE, *distrust)
    assert snapshot.forecast is not None, "what is missing is not trusted"
    return NewCondition(FORECAST_TRUSTED, ConditionStatus.TRUE, snapshot.forecast.reason, snapshot.forecast.message)


def _distrust(snapshot: Snapshot) -> tuple[str, str] | None:
    """Reason and message, in the order in which a person would look."""
    forecast = snapshot.forecast
    if forecast is None:
        return "Pending", "No forecast was made yet; the measured load decides."
    if not forecast.trusted or forecast.forecast is None:
        return forecast.reason, forecast.message
    carries = carried(snapshot.spec, snapshot.known)
    if carries.work_per_s is None:
        what = f"What one worker of {workers_text(snapshot.spec)} carries is {carries.because}"
        return "CapacityUnknown", f"{what}; it is learned under load, or set spec.scaling.tokensPerSecond."
    return None
