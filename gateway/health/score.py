"""One number for an endpoint's health, from everything that is known of it: its part of the load. Pure.

1 is as good as any; 0 is out. Passive evidence (how it comes back from an ejection, its errors lately) and active
evidence (whether it moves) multiply, so that one bad sign is not outvoted by good ones.
"""

from __future__ import annotations

from gateway.health.load import Loss
from gateway.health.passive import Health, HealthPolicy, is_ejected, share

ERROR_WEIGHT = 0.8
SUSPECT_SHARE = 0.5
"""Of one that may be about to be lost, where it serves because all others are out too."""
LEAST = 0.05
"""Of one that is not out: it must be asked now and then, or it could not show that it is well again."""


def score(
    health: Health, loss: Loss | None, suspect: bool, error_share: float, now_s: float, policy: HealthPolicy
) -> float:
    """From 0 to 1. `error_share`: of its requests lately."""
    if loss is not None or is_ejected(health, now_s):
        return 0.0
    good = share(health, now_s, policy) * (1.0 - ERROR_WEIGHT * min(error_share, 1.0))
    return max(good * (SUSPECT_SHARE if suspect else 1.0), LEAST)
