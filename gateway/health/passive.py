"""Passive health of one endpoint: failures in a row eject it for a time, and it comes back slowly. Pure.

Judges only by what requests met. Never ejects more than a share of a service's endpoints, and never the last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    failures_to_eject: int = 3
    """In a row."""
    eject_first_s: float = 5.0
    eject_most_s: float = 60.0
    """An endpoint that fails again as it returns stays away twice as long, up to this."""
    return_s: float = 10.0
    """From the end of an ejection to a full part of the load."""
    return_share: float = 0.1
    """The part that it starts again with."""
    ejected_share: float = 0.5
    """Of a service's endpoints, at most."""
    draining_memory_s: float = 5.0
    """For how long an endpoint's own word that it drains counts; by then the cluster has said it too."""


@dataclass(frozen=True, slots=True)
class Health:
    failures_in_a_row: int = 0
    ejections_in_a_row: int = 0
    ejected_until_s: float | None = None
    draining_until_s: float | None = None


FRESH: Final = Health()
"""Nothing is known against it: nearly always."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure leads to."""

    health: Health
    ejects: bool
    reason: str
    message: str


def is_ejected(health: Health, now_s: float) -> bool:
    return health.ejected_until_s is not None and now_s < health.ejected_until_s


def is_draining(health: Health, now_s: float) -> bool:
    return health.draining_until_s is not None and now_s < health.draining_until_s


def share(health: Health, now_s: float, policy: HealthPolicy) -> float:
    """The part of the load that it may have: grows from `return_share` to 1 after an ejection."""
    if health.ejected_until_s is None or now_s >= health.ejected_until_s + policy.return_s:
        return 1.0
    progress = max(0.0, now_s - health.ejected_until_s) / policy.return_s
    return policy.return_share + (1.0 - policy.return_share) * progress


def succeeded(health: Health, now_s: float, policy: HealthPolicy) -> Health:
    """One good answer ends the row of failures; the row of ejections ends when it has returned in full."""
    if health is FRESH:
        return health
    returned_in_full = health.ejected_until_s is None or now_s >= health.ejected_until_s + policy.return_s
    if returned_in_full and (health.ejections_in_a_row or health.ejected_until_s is not None):
        return replace(health, failures_in_a_row=0, ejections_in_a_row=0, ejected_until_s=None)
    return replace(health, failures_in_a_row=0) if health.failures_in_a_row else health


def failed(health: Health, now_s: float, policy: HealthPolicy, *, endpoints: int, ejected: int) -> Verdict:
    """One failure. `ejected` of the service's `endpoints` are out already, this one not counted."""
    failures = health.failures_in_a_row + 1
    counted = replace(health, failures_in_a_row=failures)
    if is_ejected(health, now_s):
        return Verdict(counted, False, "AlreadyEjected", f"{failures} failures in a row, ejected already")
    # What fails while it is on probation needs no second row of failures.
    needed = 1 if health.ejections_in_a_row and share(health, now_s, policy) < 1.0 else policy.failures_to_eject
    if failures < needed:
        return Verdict(counted, False, "BelowThreshold", f"{failures} failures in a row < {needed}")
    why = Why("Ejected", f"{failures} failures in a row", f" ≥ {needed}")
    return eject(counted, now_s, policy, why, endpoints=endpoints, ejected=ejected)


class Why(NamedTuple):
    """What an ejection is for: a reason, what was found, and how that compares."""

    reason: str
    found: str
    compared: str


def eject(health: Health, now_s: float, policy: HealthPolicy, why: Why, *, endpoints: int, ejected: int) -> Verdict:
    """Takes the endpoint out for a time, unless too many are out already."""
    most = min(int(endpoints * policy.ejected_share), endpoints - 1)
    if ejected + 1 > most:
        message = f"{why.found}, but {ejected} of {endpoints} are out, at most {most}"
        return Verdict(health, False, "TooManyEjected", message)
    away_s = min(policy.eject_first_s * 2.0**health.ejections_in_a_row, policy.eject_most_s)
    out = replace(health, ejections_in_a_row=health.ejections_in_a_row + 1, ejected_until_s=now_s + away_s)
    message = f"{why.found}{why.compared}: out for {away_s:g} s, {ejected + 1} of {endpoints}"
    return Verdict(out, True, why.reason, message)


def returned(health: Health, now_s: float) -> Health:
    """It was lost and answers again: it comes back as slowly as after an ejection."""
    return replace(health, failures_in_a_row=0, ejected_until_s=now_s)


def said_draining(health: Health, now_s: float, policy: HealthPolicy) -> Health:
    """The endpoint refused a request because it drains: not a failure, but nothing more goes there."""
    return replace(health, draining_until_s=now_s + policy.draining_memory_s)


def next_change_s(health: Health, now_s: float, policy: HealthPolicy) -> float:
    """When time alone changes what `is_ejected`, `is_draining` or `share` say; infinity for never."""
    moments = [float("inf")]
    if health.draining_until_s is not None and health.draining_until_s > now_s:
        moments.append(health.draining_until_s)
    if health.ejected_until_s is not None:
        if health.ejected_until_s > now_s:
            moments.append(health.ejected_until_s)
        elif now_s < health.ejected_until_s + policy.return_s:
            moments.append(now_s + policy.return_s / 10)
    return min(moments)
