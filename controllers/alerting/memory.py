"""A policy's book as rows of the leader's store, and as much of it as its status holds.

The store is the whole memory of the operator that led. Another operator, whose store knows nothing or something older,
begins with the status: which incidents were told to whom. The higher epoch is the newer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pydantic import TypeAdapter, ValidationError

from controllers.plans.alerting.alerts import ALERTNAME, Alert, State
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.incidents import Delivery, Incident
from controllers.plans.alerting.topology import Part
from controllers.plans.times import unix_s
from crds.alert_status import AlertPolicyStatus, AlertShown, IncidentShown

log = logging.getLogger(__name__)

ALERT: Final = "alert"
INCIDENT: Final = "incident"
_ALERTS: Final = TypeAdapter(Alert)
_INCIDENTS: Final = TypeAdapter(Incident)

Row = tuple[str, str, str]
"""Kind, id, JSON."""


def changed_rows(old: Book, new: Book) -> tuple[list[Row], list[tuple[str, str]]]:
    """What to write, and what to delete (kind, id)."""
    rows = [
        (ALERT, id_, _ALERTS.dump_json(one).decode())
        for id_, one in new.alerts.items()
        if old.alerts.get(id_) is not one
    ]
    rows += [
        (INCIDENT, id_, _INCIDENTS.dump_json(one).decode())
        for id_, one in new.incidents.items()
        if old.incidents.get(id_) is not one
    ]
    gone = [(ALERT, id_) for id_ in old.alerts.keys() - new.alerts.keys()]
    return rows, gone + [(INCIDENT, id_) for id_ in old.incidents.keys() - new.incidents.keys()]


def from_rows(rows: Sequence[Row], epoch: int) -> Book:
    """Rows of another release that are not understood are left out, with a warning."""
    alerts: dict[str, Alert] = {}
    incidents: dict[str, Incident] = {}
    for kind, id_, line in rows:
        try:
            if kind == ALERT:
                alerts[id_] = _alert_of(line)
            else:
                incidents[id_] = _INCIDENTS.validate_json(line)
        except ValidationError as error:
            log.warning("The %s '%s' of an earlier release is not understood and left out: %s", kind, id_, error)
    return Book(alerts, incidents, epoch=epoch)


def _alert_of(line: str) -> Alert:
    """Raises ValidationError. Earlier releases kept a penalty, and when it was last added to, in place of firings."""
    found = _ALERTS.validate_json(line)
    if found.fired_s or '"penalty_s"' not in line:
        return found
    old = json.loads(line)
    return replace(found, fired_s=(float(old["penalty_s"]),)) if old.get("penalty") else found


def from_status(policy: Policy, status: AlertPolicyStatus, now_s: float) -> Book:
    """What the status tells: enough to page nobody twice. An Alertmanager has its whole patience from `now_s` on."""
    alerts = {one.fingerprint: _alert(policy, one, now_s) for one in status.alerts or ()}
    members: dict[str, set[str]] = {}
    for print_, alert in alerts.items():
        members.setdefault(alert.incident or "", set()).add(print_)
    by = policy.spec.grouping.by
    incidents = {one.id: _incident(one, frozenset(members.get(one.id, ())), by) for one in status.incidents or ()}
    return Book(alerts, incidents, epoch=status.epoch or 0)


def _alert(policy: Policy, shown: AlertShown, now_s: float) -> Alert:
    state = State(shown.state) if shown.state in list(State) else State.FIRING  # `flapping` is firing, too
    fired = state is not State.PENDING
    since_s = unix_s(shown.since)
    return Alert(
        fingerprint=shown.fingerprint,
        labels=shown.labels or {ALERTNAME: shown.rule},
        severity=shown.severity,
        state=state,
        since_s=since_s,
        message=shown.message,
        fired_s=(since_s,) if fired else (),
        flapping=shown.state == "flapping",
        external=bool(shown.external),
        heard_s=now_s if shown.external else 0.0,
        incident=shown.incident,
        rule=shown.rule if any(one.name == shown.rule for one in policy.spec.alert_rules or ()) else None,
    )


def _incident(shown: IncidentShown, members: frozenset[str], by: Sequence[str]) -> Incident:
    kind, _, name = shown.root.partition("/")
    deliveries = {
        one.receiver: Delivery(
            one.receiver,
            one.said,
            one.digest,
            one.severity,
            unix_s(one.time) if one.time else 0.0,
            attempts=one.attempts,
            error=one.error,
            doubtful=bool(one.doubtful),
        )
        for one in shown.deliveries or ()
    }
    return Incident(
        shown.id,
        Part(kind, name),
        unix_s(shown.opened),
        members,
        shown.severity,
        tuple(shown.causes or ()),
        # A map of JSON has no order; that of the spec tells groups apart. Labels that are no longer grouped by stay.
        tuple(sorted((shown.group or {}).items(), key=lambda pair: by.index(pair[0]) if pair[0] in by else len(by))),
        unix_s(shown.resolved) if shown.resolved else None,
        deliveries,
    )


def newest(stored: Book | None, shown: Book) -> Book:
    """The one that knows more."""
    return stored if stored is not None and stored.epoch >= shown.epoch else shown
