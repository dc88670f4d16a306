"""The life of an alert: pending until it has lasted, firing until it has been over for a while.

An alert that comes and goes is held: with so many firings within a while it fires on until nothing has been wrong for
as long. A number that is missing changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.alerting.alerts import Alert, State

REMEMBERED_S: Final = 4 * 3600.0
"""A resolved alert is kept so long, for its firings and for those who come late to look."""
EXTERNAL_LOST_S: Final = 24 * 3600.0
"""An Alertmanager that says nothing for so long has forgotten the alert or is gone."""
FLAP_WITHIN_MOST_S: Final = 24 * 3600.0
"""Alerts that are over are not remembered for longer than this."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one rule and its policy."""

    for_s: float = 0.0
    keep_s: float = 0.0
    flap_firings: int = 3
    flap_within_s: float = 1800.0
    """At most FLAP_WITHIN_MOST_S."""


def advance(alert: Alert, broken: bool | None, message: str, timing: Timing, now_s: float) -> Alert | None:
    """The alert after a look; None when it is to be forgotten. A new alert comes in as RESOLVED."""
    alert = _lost(alert, now_s)
    if broken and alert.state is State.FIRING and not alert.external and alert.heard_s > alert.since_s:
        # We still see it: what an Alertmanager said before is no longer the last word.
        alert = replace(alert, heard_s=0.0)
    if alert.external:
        broken = True
    if broken is None:
        if alert.state is not State.FIRING or alert.heard_s <= alert.since_s:
            return alert
        broken = False  # The last that is known of it is that an Alertmanager called it over.
    if broken:
        return _broken(alert, message, timing, now_s)
    return _well(alert, timing, now_s)


def _lost(alert: Alert, now_s: float) -> Alert:
    if alert.external and now_s - alert.heard_s > EXTERNAL_LOST_S:
        return replace(alert, external=False, heard_s=now_s)
    return alert


def _broken(alert: Alert, message: str, timing: Timing, now_s: float) -> Alert:
    match alert.state:
        case State.FIRING:
            return alert if alert.quiet_since_s is None else replace(alert, quiet_since_s=None)
        case State.PENDING:
            waited = now_s - alert.since_s >= timing.for_s or alert.external
            return _fire(alert, message, timing, now_s) if waited else alert
        case State.RESOLVED if timing.for_s <= 0 or alert.external:
            return _fire(alert, message, timing, now_s)
    return replace(alert, state=State.PENDING, since_s=now_s, message=message)


def _fire(alert: Alert, message: str, timing: Timing, now_s: float) -> Alert:
    fired_s = (*(at_s for at_s in alert.fired_s if now_s - at_s <= timing.flap_within_s), now_s)[-timing.flap_firings :]
    return replace(
        alert,
        state=State.FIRING,
        since_s=now_s,
        message=message,
        quiet_since_s=None,
        fired_s=fired_s,
        flapping=len(fired_s) >= timing.flap_firings,
    )


def _well(alert: Alert, timing: Timing, now_s: float) -> Alert | None:
    match alert.state:
        case State.FIRING if alert.quiet_since_s is None:
            alert = replace(alert, quiet_since_s=now_s)
        case State.PENDING:
            return replace(alert, state=State.RESOLVED, since_s=now_s) if alert.fired_s else None
        case State.RESOLVED:
            remembered_s = max(REMEMBERED_S, timing.flap_within_s)
            return alert if alert.fired_s and now_s - alert.since_s < remembered_s else None
    if alert.state is State.FIRING and now_s - (alert.quiet_since_s or now_s) >= hold_s(alert, timing):
        return replace(alert, state=State.RESOLVED, since_s=now_s, quiet_since_s=None, flapping=False)
    return alert


def hold_s(alert: Alert, timing: Timing) -> float:
    """How long it must be over: longer for one that flaps."""
    return max(timing.keep_s, timing.flap_within_s) if alert.flapping else timing.keep_s
