"""What an AlertPolicy's status says of its book, and which Events a change is worth. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controllers.plans.alerting.alerts import ALERTNAME, Alert, State
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.incidents import Delivery, Incident
from controllers.plans.alerting.notices import RESOLVED, owed
from controllers.plans.alerting.topology import part_of
from controllers.plans.transitions import Transition
from controllers.plans.units import names_text
from crds.alert_status import ALERTS_SHOWN, DELIVERIES_SHOWN, INCIDENTS_SHOWN
from crds.conditions import READY, STALLED

Json = dict[str, Any]
_VALUE = 253
"""Longest value of a map in a status."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a policy does not do all that it says."""

    reason: str
    message: str
    needs_person: bool = True


def fields(policy: Policy, book: Book) -> Json:
    """Counts, the worst alerts and the newest incidents."""
    alerts = sorted(
        (one for one in book.alerts.values() if one.state is not State.RESOLVED or one.incident in book.incidents),
        key=lambda one: (list(State).index(one.state), one.severity, -one.since_s, one.fingerprint),
    )
    incidents = sorted(book.incidents.values(), key=lambda one: (one.resolved_s is not None, -one.opened_s, one.id))
    return {
        "firing": sum(one.firing for one in alerts),
        "pending": sum(one.state is State.PENDING for one in alerts),
        "muted": len(book.muted),
        "openIncidents": sum(one.resolved_s is None for one in incidents),
        "undelivered": sum(len(owed(policy.spec, one, book.alerts, book.muted)) for one in incidents),
        "epoch": book.epoch,
        "alerts": [_alert(one, book) for one in alerts[:ALERTS_SHOWN]],
        "incidents": [_incident(one, policy, book) for one in incidents[:INCIDENTS_SHOWN]],
    }


def _alert(one: Alert, book: Book) -> Json:
    shown: Json = {
        "fingerprint": one.fingerprint,
        "rule": one.labels.get(ALERTNAME, "alert")[:253],
        "subject": str(part_of(one.labels))[:300],
        "severity": one.severity.value,
        "state": "flapping" if one.flapping else one.state.value,
        "since": moment(one.since_s),
        "message": one.message[:1024],
        "labels": {name: value[:_VALUE] for name, value in sorted(one.labels.items())},
    }
    if one.incident:
        shown["incident"] = one.incident
    if one.external:
        shown["external"] = True
    if one.fingerprint in book.muted:
        shown["mutedBy"] = book.muted[one.fingerprint][:300]
    return shown


def _incident(one: Incident, policy: Policy, book: Book) -> Json:
    there = {receiver.name for receiver in policy.spec.receivers or ()}
    # Receivers may come and go while an incident lasts; those of before go first where there is no room for all.
    deliveries = sorted(one.deliveries.values(), key=lambda each: (each.receiver not in there, each.receiver))
    shown: Json = {
        "id": one.id,
        "root": str(one.root)[:300],
        "causes": list(one.causes),
        "severity": one.severity.value,
        "opened": moment(one.opened_s),
        "alerts": len(one.members),
        "firing": sum(member in book.alerts and book.alerts[member].firing for member in one.members),
        "deliveries": [_delivery(each) for each in deliveries[:DELIVERIES_SHOWN]],
    }
    if one.group:
        shown["group"] = {name: value[:_VALUE] for name, value in one.group}
    if one.resolved_s is not None:
        shown["resolved"] = moment(one.resolved_s)
    return shown


def _delivery(one: Delivery) -> Json:
    shown: Json = {"receiver": one.receiver, "attempts": one.attempts}
    if one.said is not None:
        shown |= {"said": one.said, "time": moment(one.said_s)}
    if one.digest:
        shown["digest"] = one.digest
    if one.severity is not None:
        shown["severity"] = one.severity.value
    if one.error:
        shown["error"] = one.error
    if one.doubtful:
        shown["doubtful"] = True
    return shown


def moment(at_s: float) -> str:
    """RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- conditions -------------------------------------------------------------------------------------------------------
def conditions(troubles: Sequence[Trouble], policy: Policy, services: int) -> list[Json]:
    """Ready, and Stalled while a person has to act."""
    if not troubles:
        return [_condition(READY, "True", "Watching", _watching(policy, services))]
    first = troubles[0]
    message = " ".join(one.message for one in troubles)[:4000]
    found = [_condition(READY, "False", first.reason, message)]
    if any(one.needs_person for one in troubles):
        found.append(_condition(STALLED, "True", first.reason, message))
    return found


def _watching(policy: Policy, services: int) -> str:
    rules, receivers = len(policy.spec.alert_rules or ()), len(policy.spec.receivers or ())
    taken = ", and alerts of Alertmanagers" if policy.spec.receive is not None else ""
    return f"{rules} rules on {services} services{taken}; {receivers} receivers."


def _condition(type_: str, status: str, reason: str, message: str) -> Json:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def troubles(
    policy: Policy, missing: Sequence[str], book: Book, history: str | None, export: str | None = None
) -> list[Trouble]:
    """Everything in the way, the worst first. `history` and `export` say why those do not work."""
    found = []
    if missing:
        message = (
            f"{'InferenceService' if len(missing) == 1 else 'InferenceServices'} {names_text(list(missing))} of"
            f" spec.services {'is' if len(missing) == 1 else 'are'} not in namespace '{policy.namespace}'."
        )
        found.append(Trouble("ServiceNotFound", message))
    failing = {
        delivery.receiver: delivery
        for incident in book.incidents.values()
        for delivery in incident.deliveries.values()
        if delivery.attempts > 1
    }
    for name, delivery in sorted(failing.items()):
        message = f"Receiver '{name}' did not take a message {delivery.attempts} times: {delivery.error}"
        found.append(Trouble("NotDelivered", message))
    if export is not None:
        found.append(Trouble("NotExported", f"The rules for Prometheus are not as spec.export says: {export}"))
    if history is not None and policy.spec.alert_rules:
        found.append(Trouble("HistoryUnavailable", history, needs_person=False))
    return found


# --- Events -----------------------------------------------------------------------------------------------------------
EVENTS_AT_ONCE = 20
"""Of one look: a storm is one incident, not thousands of Events."""


def news(before: Book | None, after: Book) -> list[Transition]:
    """Alerts that began or ended to fire, and incidents that were told."""
    if before is None or before is after:
        return []
    found = [*_alert_news(before, after), *_incident_news(before.incidents, after.incidents)]
    if len(found) > EVENTS_AT_ONCE:
        more = len(found) - EVENTS_AT_ONCE
        found = [*found[:EVENTS_AT_ONCE], Transition("ManyAlerts", f"{more} more changes of alerts.", True)]
    return found


def _alert_news(before: Book, after: Book) -> list[Transition]:
    found = []
    for print_, one in after.alerts.items():
        old = before.alerts.get(print_)
        if old is one:
            continue
        was = old is not None and old.firing
        name = f"{one.severity.value} {one.labels.get(ALERTNAME, 'alert')}"
        if one.firing and not was:
            flapping = " It comes and goes, and is held." if one.flapping else ""
            found.append(Transition("AlertFiring", f"{name}: {one.message}.{flapping}", True))
        elif was and one.state is State.RESOLVED:
            found.append(Transition("AlertResolved", f"{name} of {part_of(one.labels)} is over.", False))
    return found


def _incident_news(before: Mapping[str, Incident], after: Mapping[str, Incident]) -> list[Transition]:
    found = []
    for id_, one in after.items():
        old = before.get(id_)
        for name, delivery in one.deliveries.items():
            last = old.deliveries.get(name) if old else None
            if delivery.said is not None and (last is None or last.said != delivery.said):
                over = "is over" if delivery.said == RESOLVED else f"{one.severity.value}, {one.root}"
                found.append(Transition("ReceiverTold", f"'{name}' was told of incident {id_}: {over}.", False))
            elif delivery.attempts == 1 and (last is None or last.attempts == 0):
                found.append(
                    Transition("NotDelivered", f"'{name}' was not told of incident {id_}: {delivery.error}", True)
                )
    return found
