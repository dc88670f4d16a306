"""More workers for a while, because an alert asks: within the service's own maximum; Tenant and pools bound it later.

Never fewer than the service would have without it, and nothing for a service whose number is not ours to choose. When
it ends the service shrinks as it does when the load falls.
"""

from __future__ import annotations

from controllers.plans.alerting.wishes import Floor, floor_now
from controllers.plans.snapshot import Snapshot
from controllers.plans.times import rfc3339
from controllers.plans.transitions import Transition
from crds.inference_service import InferenceServiceSpec
from crds.scaling import RaisedFloor, Scaling, ScalingPolicy


def raised_floor(snapshot: Snapshot, now_s: float) -> Floor | None:
    """What holds now; None where no alert asks for more than the service has at least anyway."""
    scaling, floor = snapshot.spec.scaling, floor_now(snapshot.wishes, now_s)
    if scaling is None or floor is None or scaling.policy is ScalingPolicy.ADVISORY or snapshot.autoscaler:
        return None
    workers = min(floor.workers, scaling.max)
    return Floor(workers, floor.until_s, floor.why) if workers > scaling.fewest else None


def with_floor(spec: InferenceServiceSpec, floor: Floor | None) -> InferenceServiceSpec:
    """The spec as the policy shall see it. A window of the schedule keeps its maximum."""
    if floor is None or spec.scaling is None:
        return spec
    return spec.model_copy(update={"scaling": _lifted(spec.scaling, floor.workers)})


def _lifted(scaling: Scaling, workers: int) -> Scaling:
    windows = [
        window.model_copy(
            update={
                "min": min(
                    max(scaling.min if window.min is None else window.min, workers),
                    scaling.max if window.max is None else window.max,
                )
            }
        )
        for window in scaling.schedule or ()
    ]
    return scaling.model_copy(update={"min": max(scaling.min, workers), "schedule": windows or None})


def floor_status(floor: Floor | None) -> RaisedFloor | None:
    if floor is None:
        return None
    return RaisedFloor(workers=floor.workers, until=rfc3339(floor.until_s), message=f"{floor.why}."[:1024])


def floor_news(snapshot: Snapshot, floor: Floor | None) -> list[Transition]:
    """An Event when it begins, rises or ends; the status remembers what was told."""
    scaling = snapshot.status.scaling
    before, now = scaling.floor if scaling else None, floor_status(floor)
    if now is not None and (before is None or now.workers > before.workers):
        return [Transition("FloorRaised", f"{now.workers} workers at least, until {now.until}: {now.message}", True)]
    if before is not None and now is None:
        message = f"No alert asks for {before.workers} workers at least any more; the load decides."
        return [Transition("FloorEnded", message, warning=False)]
    return []
