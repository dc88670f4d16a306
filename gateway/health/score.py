"""One number for an endpoint's health, from everything that is known of it: its part of the load. Pure.

1 is as good as any; 0 is out. Passive evidence (how it comes back from an ejection, its errors lately) and active
evidence (whether it moves) multiply, so that one bad sign is not outvoted by good ones.
"""

from __future__ import annotations

from gateway.health.load import Load, Loss, ProgressPolicy
from gateway.health.passive import Health, HealthPolicy, is_ejected, share

ERROR_WEIGHT = 0.8
STALL_WEIGHT = 0.5
LEAST = 0.05
"""Of one that is not out: it must be asked now and then, or it could not show that it is well again."""


def score(
    health: Health,
    loss: Loss | None,
    load: Load | None,
    error_share: float,
    now_s: float,
    policy: HealthPolicy,
    progress: ProgressPolicy,
) -> float:
    """From 0 to 1. `error_share`: of its requests lately."""
    if loss is not None or is_ejected(health, now_s):
        return 0.0
    good = share(health, now_s, policy) * (1.0 - ERROR_WEIGHT * min(error_share, 1.0))
    return max(good * (1.0 - STALL_WEIGHT * stall(load, progress)), LEAST)


def stall(load: Load | None, policy: ProgressPolicy) -> float:
    """How far a worker without progress is on its way to being called hung: 0 to 1, and 0 for the first half."""
    if load is None:
        return 0.0
    allowed_s = policy.hung_after_s + policy.patience * load.expected_s
    return min(max(2.0 * load.stalled_s / allowed_s - 1.0, 0.0), 1.0)
