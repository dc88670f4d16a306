"""Which receiver must be told of which incident now, what, and when to try again. At least once, never in a storm.

A receiver is told once that an incident began, again when it got worse, at most every `grouping.interval` when other
alerts joined or left, every `grouping.repeat` while it lasts, and once that it is over. A receiver that does not take
a message is tried again with growing patience. One that may have taken a message is owed the last word, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.alerting.alerts import Alert, worst
from controllers.plans.alerting.incidents import Delivery, Incident
from crds.alert_policy import AlertPolicySpec, Receiver
from crds.alert_status import AlertSeverity
from crds.fields import seconds

FIRING: Final = "firing"
RESOLVED: Final = "resolved"
FIRST_RETRY_S: Final = 1.0
MOST_RETRY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Notice:
    """One message that is due."""

    incident: Incident
    receiver: Receiver
    status: str
    severity: AlertSeverity
    alerts: tuple[Alert, ...]
    """Those that fire and are told; of a resolved incident all that were."""
    digest: str
    first: bool
    """Nothing was said of this incident before: a page."""
    reason: str

    @property
    def place(self) -> tuple[str, str]:
        return self.incident.id, self.receiver.name


def due(
    spec: AlertPolicySpec,
    incidents: Mapping[str, Incident],
    alerts: Mapping[str, Alert],
    muted: Mapping[str, str],
    now_s: float,
) -> list[Notice]:
    """Messages to send now, oldest incident first."""
    found = []
    for incident in sorted(incidents.values(), key=lambda one: (one.opened_s, one.id)):
        told = _told(incident, alerts, muted)
        for receiver in receivers_of(spec, incident, told):
            notice = _notice(spec, incident, receiver, told, alerts, now_s)
            delivery = incident.deliveries.get(receiver.name)
            if notice is not None and (delivery is None or _is_time(delivery, now_s)):
                found.append(notice)
    return found


def _is_time(delivery: Delivery, now_s: float) -> bool:
    """No try is further away than the longest pause, unless the clock was set back meanwhile."""
    return not now_s < delivery.next_s <= now_s + MOST_RETRY_S


def owed(
    spec: AlertPolicySpec, incident: Incident, alerts: Mapping[str, Alert], muted: Mapping[str, str]
) -> list[Receiver]:
    """Who has not taken the first, a worse or the last word yet, however long the next try is away, or not the last
    message while it lasts."""
    told = _told(incident, alerts, muted)
    failing = {one.receiver for one in incident.deliveries.values() if one.attempts > 0}
    lasts = bool(told) and incident.resolved_s is None
    return [
        one
        for one in receivers_of(spec, incident, told)
        if (lasts and one.name in failing) or _notice(spec, incident, one, told, alerts, incident.opened_s) is not None
    ]


def at_rest(incident: Incident, owed: Sequence[Receiver]) -> Incident:
    """The incident without failed attempts to tell those who are owed nothing any more: nobody tries again."""
    names = {one.name for one in owed}
    idle = [one for one in incident.deliveries.values() if one.attempts > 0 and one.receiver not in names]
    rested = {one.receiver: replace(one, attempts=0, next_s=0.0, error=None) for one in idle}
    return replace(incident, deliveries={**incident.deliveries, **rested}) if rested else incident


def _told(incident: Incident, alerts: Mapping[str, Alert], muted: Mapping[str, str]) -> tuple[Alert, ...]:
    members = (alerts[one] for one in incident.members if one in alerts and one not in muted)
    return tuple(sorted((one for one in members if one.firing), key=lambda one: (one.severity, one.fingerprint)))


def receivers_of(spec: AlertPolicySpec, incident: Incident, told: Sequence[Alert]) -> list[Receiver]:
    """By the severity of what is told; who was told of the incident before, and not only tried, goes on being told."""
    by_name = {one.name: one for one in spec.receivers or ()}
    routed = _routed(spec, worst(one.severity for one in told)) if told else []
    names = [
        *routed,
        *(name for name, one in incident.deliveries.items() if _was_told(one) and name not in routed),
    ]
    return [by_name[name] for name in names if name in by_name]


def _routed(spec: AlertPolicySpec, severity: AlertSeverity) -> list[str]:
    for route in spec.routes or ():
        if route.severity is severity:
            return list(route.receivers)
    return [one.name for one in spec.receivers or ()]


def _notice(
    spec: AlertPolicySpec,
    incident: Incident,
    receiver: Receiver,
    told: tuple[Alert, ...],
    alerts: Mapping[str, Alert],
    now_s: float,
) -> Notice | None:
    delivery = incident.deliveries.get(receiver.name, Delivery(receiver.name))
    if incident.resolved_s is not None:
        if not may_know(delivery) or not receiver.send_resolved:
            return None
        over = tuple(alerts[one] for one in sorted(incident.members) if one in alerts)
        return Notice(incident, receiver, RESOLVED, incident.severity, over, "", False, "all of its alerts are over")
    if not told:
        return None
    severity, digest = worst(one.severity for one in told), digest_of(told)
    reason = _reason(spec, delivery, severity, digest, now_s)
    if reason is None:
        return None
    return Notice(incident, receiver, FIRING, severity, told, digest, delivery.said is None, reason)


def _reason(
    spec: AlertPolicySpec, delivery: Delivery, severity: AlertSeverity, digest: str, now_s: float
) -> str | None:
    since_s = now_s - delivery.said_s
    if delivery.said is None:
        return "it is new"
    if delivery.severity is not None and severity < delivery.severity:
        return f"it is {severity.value} now, {delivery.severity.value} before"
    if delivery.digest != digest and since_s >= seconds(spec.grouping.interval):
        return "other alerts belong to it now"
    return "it goes on" if since_s >= seconds(spec.grouping.repeat) else None


def _was_told(delivery: Delivery) -> bool:
    """Or may have been."""
    return delivery.said is not None or delivery.doubtful


def may_know(delivery: Delivery) -> bool:
    """Whether the receiver took a word that is not the last, or perhaps did."""
    return delivery.said == FIRING or delivery.doubtful


def digest_of(told: Sequence[Alert]) -> str:
    """Of which alerts are told."""
    return hashlib.sha256(" ".join(sorted(one.fingerprint for one in told)).encode()).hexdigest()[:12]


# --- what came of it --------------------------------------------------------------------------------------------------
def begun(notice: Notice, incident: Incident) -> Incident | None:
    """The incident before the message is sent: what becomes of it is not known yet. None of one that comes too late."""
    if notice.status == FIRING and incident.resolved_s is not None:
        return None
    old = incident.deliveries.get(notice.receiver.name, Delivery(notice.receiver.name))
    if old.doubtful:
        return incident
    return replace(incident, deliveries={**incident.deliveries, old.receiver: replace(old, doubtful=True)})


def taken(notice: Notice, incident: Incident, now_s: float) -> Incident:
    """The incident after the receiver took the message."""
    delivery = Delivery(notice.receiver.name, notice.status, notice.digest, notice.severity, now_s)
    return replace(incident, deliveries={**incident.deliveries, delivery.receiver: delivery})


def refused(
    notice: Notice,
    incident: Incident,
    error: str,
    now_s: float,
    asked_s: float | None = None,
    *,
    doubtful: bool = False,
) -> Incident:
    """The incident after the message failed: next try after 1, 2, 4 … 300 s, or when the receiver asked for it.

    doubtful: the receiver may have taken it all the same. Else only what was doubtful before this attempt still is.
    """
    before = notice.incident.deliveries.get(notice.receiver.name)
    doubtful = doubtful or (before is not None and before.doubtful)
    old = incident.deliveries.get(notice.receiver.name, Delivery(notice.receiver.name))
    wait_s = min(FIRST_RETRY_S * 2.0 ** min(old.attempts, 20), MOST_RETRY_S)
    next_s = now_s + max(wait_s, min(asked_s or 0.0, MOST_RETRY_S))
    delivery = replace(old, attempts=old.attempts + 1, next_s=next_s, error=error[:500], doubtful=doubtful)
    return replace(incident, deliveries={**incident.deliveries, delivery.receiver: delivery})
