"""What this gateway holds against its endpoints, for whoever asks: exceptions only, as JSON. Pure.

The operator reads it to find out why a worker gets no requests. An endpoint that is not named has nothing against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.health import passive
from gateway.health.load import Loss
from gateway.health.passive import Health, HealthPolicy, Verdict

Told = dict[str, dict[str, dict[str, Any]]]
"""Service → pod → what is held against it."""


def objection(
    health: Health,
    loss: Loss | None,
    lost_at_s: float,
    why: Verdict | None,
    ejected_at_s: float,
    now_s: float,
    policy: HealthPolicy,
) -> dict[str, Any] | None:
    """Of one endpoint that the cluster calls ready; None where nothing is held against it."""
    if loss is not None:
        return _said("lost", loss.evidence.value, now_s - lost_at_s, loss.message, 0)
    if why is None or health.ejected_until_s is None or now_s >= health.ejected_until_s + policy.return_s:
        return None
    state = "ejected" if passive.is_ejected(health, now_s) else "returning"
    return _said(state, why.reason, now_s - ejected_at_s, why.message, health.ejections_in_a_row)


def _said(state: str, reason: str, since_s: float, message: str, times: int) -> dict[str, Any]:
    return {"state": state, "reason": reason, "since_s": round(since_s, 3), "message": message, "times": times}


def joined(answers: Iterable[Told]) -> Told:
    """Of several processes as of one. A worker is lost when all that answered say so; one ejection counts, because
    each sees only requests of its own."""
    told = list(answers)
    total: Told = {}
    for key in sorted({key for one in told for key in one}):
        for pod in sorted({pod for one in told for pod in one.get(key, {})}):
            said = [one[key][pod] for one in told if pod in one.get(key, {})]
            if len(said) < len(told):
                said = [one for one in said if one["state"] != "lost"]
            if said:
                total.setdefault(key, {})[pod] = min(said, key=_mildest_loss_worst_ejection)
    return total


def _mildest_loss_worst_ejection(one: Mapping[str, Any]) -> tuple[bool, int, float]:
    """A process that only ejects it contradicts one that calls it lost."""
    is_lost = one["state"] == "lost"
    return is_lost, -int(one["times"]), float(one["since_s"]) if is_lost else -float(one["since_s"])
