"""All that is remembered of one policy, and one look: evaluate → mute → gather into incidents → say what is due.

Objects that did not change are the same objects afterwards, so that only what changed is written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from controllers.plans.alerting.alerts import (
    ALERTNAME,
    INCIDENT,
    NAMESPACE,
    POLICY,
    SERVICE,
    SEVERITY,
    WINDOW,
    Alert,
    State,
    rule_fingerprint,
)
from controllers.plans.alerting.inbound import Heard
from controllers.plans.alerting.incidents import Incident, Sight, assign, bounds_s, downstream, is_over, muted, resolve
from controllers.plans.alerting.notices import Notice, at_rest, begun, due, owed, refused, taken
from controllers.plans.alerting.readings import Reading, ServiceFacts, readings
from controllers.plans.alerting.states import FLAP_WITHIN_MOST_S, Timing, advance
from crds.alert_policy import AlertPolicySpec, AlertRule
from crds.fields import seconds

LEAST_INTERVAL_S: Final = 5.0
SOONEST_S: Final = 1.0
EXTERNAL_MOST: Final = 50_000
"""Alerts of one policy beyond which an Alertmanager's new ones are refused."""


@dataclass(frozen=True, slots=True)
class Policy:
    """An AlertPolicy as plans see it."""

    namespace: str
    name: str
    spec: AlertPolicySpec


@dataclass(frozen=True, slots=True)
class Book:
    """What is remembered of a policy. `epoch` grows with every change that must not be lost."""

    alerts: Mapping[str, Alert] = field(default_factory=dict)
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    muted: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint → why it is not told; made anew at each look."""
    epoch: int = 0


def look(policy: Policy, book: Book, services: Sequence[ServiceFacts], sight: Sight, now_s: float) -> Book:
    """The book after a look at every service."""
    alerts = _evaluated(policy, book, services, now_s)
    silent = muted(alerts.values(), policy.spec, now_s)
    if INCIDENT not in policy.spec.grouping.by:
        # Else cause and consequences are one incident, and told as one.
        silent = downstream(alerts.values(), sight) | silent
    incidents = resolve(book.incidents, alerts, now_s)
    incidents = assign(alerts, incidents, policy.spec.grouping, sight, now_s)
    alerts = _homes(alerts, incidents)
    incidents = _kept(policy, incidents, alerts, silent, now_s)
    return _after(book, Book(alerts, incidents, silent, book.epoch))


def _kept(
    policy: Policy,
    incidents: Mapping[str, Incident],
    alerts: Mapping[str, Alert],
    silent: Mapping[str, str],
    now_s: float,
) -> dict[str, Incident]:
    """Those that are not over, or of which somebody is owed a word."""
    kept = {}
    for id_, one in incidents.items():
        waiting = owed(policy.spec, one, alerts, silent)
        if not is_over(one, bool(waiting), now_s):
            kept[id_] = at_rest(one, waiting)
    return kept


def next_look_s(policy: Policy, book: Book, now_s: float) -> float:
    """When to look again: after the interval, sooner where an alert has lasted or waited long enough, or a silence
    begins or ends."""
    at_s = now_s + max(seconds(policy.spec.interval), LEAST_INTERVAL_S)
    for silence in policy.spec.silences or ():
        at_s = min([at_s, *(one for one in bounds_s(silence) if one > now_s)])
    rules = {one.name: one for one in policy.spec.alert_rules or ()}
    for one in book.alerts.values():
        if one.state is State.PENDING and one.rule in rules:
            at_s = min(at_s, one.since_s + _timing(policy.spec, rules[one.rule]).for_s)
        elif one.firing and one.incident not in book.incidents:
            at_s = min(at_s, one.since_s + seconds(policy.spec.grouping.wait))
    return max(at_s, now_s + SOONEST_S)


def notices(policy: Policy, book: Book, now_s: float) -> list[Notice]:
    """What to tell now."""
    return due(policy.spec, book.incidents, book.alerts, book.muted, now_s)


def begin(book: Book, notice: Notice) -> Book | None:
    """The book before a message is sent; None when there is nothing to tell any more."""
    incident = book.incidents.get(notice.incident.id)
    after = None if incident is None else begun(notice, incident)
    return None if after is None else book if after is incident else _with(book, after)


def delivered(book: Book, notice: Notice, now_s: float) -> Book:
    """A receiver took a message."""
    incident = book.incidents.get(notice.incident.id)
    return book if incident is None else _with(book, taken(notice, incident, now_s))


def failed(
    book: Book, notice: Notice, error: str, now_s: float, asked_s: float | None = None, *, doubtful: bool = False
) -> Book:
    """A receiver did not, as far as is known; doubtful: it may have."""
    incident = book.incidents.get(notice.incident.id)
    if incident is None:
        return book
    return _with(book, refused(notice, incident, error, now_s, asked_s, doubtful=doubtful))


def _with(book: Book, incident: Incident) -> Book:
    return replace(book, incidents={**book.incidents, incident.id: incident}, epoch=book.epoch + 1)


def _after(old: Book, new: Book) -> Book:
    same = _same(old.alerts, new.alerts) and _same(old.incidents, new.incidents)
    if same and old.muted == new.muted:
        return old
    return new if same else replace(new, epoch=old.epoch + 1)


def _same(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    return old.keys() == new.keys() and all(old[key] is one for key, one in new.items())


# --- evaluation -----------------------------------------------------------------------------------------------------
def _evaluated(policy: Policy, book: Book, services: Sequence[ServiceFacts], now_s: float) -> dict[str, Alert]:
    out: dict[str, Alert] = {}
    before, members = book.alerts, _members(book)
    for rule in policy.spec.alert_rules or ():
        timing = _timing(policy.spec, rule)
        for facts in services:
            for reading in readings(rule, facts):
                fresh = _fresh(policy, rule, facts, reading)
                old = before.get(fresh.fingerprint)
                alert = fresh if old is None else _renewed(old, fresh)
                after = advance(alert, reading.broken, reading.message, timing, now_s)
                if after is not None and (old is not None or after.state is not State.RESOLVED):
                    out[fresh.fingerprint] = after
    # What no rule looks at any more, or finds anything in, is over, unless an Alertmanager says otherwise.
    plain = _timing(policy.spec, None)
    for print_, old in before.items():
        if print_ not in out:
            if old.external and policy.spec.receive is None:
                old = replace(old, external=False)
            after = advance(old, False, old.message, plain, now_s)
            if after is None and print_ in members:
                after = _past(old, now_s)
            if after is not None:
                out[print_] = after
    return out


def _members(book: Book) -> frozenset[str]:
    """Alerts that an incident still speaks of; of a book that is half full, those go in their time all the same."""
    if len(book.alerts) > EXTERNAL_MOST // 2:
        return frozenset()
    return frozenset().union(*(one.members for one in book.incidents.values()))


def _past(old: Alert, now_s: float) -> Alert:
    """An alert that is over and nothing of its own keeps."""
    return old if old.state is State.RESOLVED else replace(old, state=State.RESOLVED, since_s=now_s)


def _fresh(policy: Policy, rule: AlertRule, facts: ServiceFacts, reading: Reading) -> Alert:
    labels = {
        **(rule.labels or {}),
        ALERTNAME: rule.name,
        NAMESPACE: policy.namespace,
        POLICY: policy.name,
        SERVICE: facts.name,
        SEVERITY: reading.severity.value,
    }
    if reading.window is not None:
        labels[WINDOW] = reading.window
    texts = {"summary": rule.summary, "runbook": rule.runbook}
    annotations = {name: text for name, text in texts.items() if text}
    return Alert(
        rule_fingerprint(labels), labels, reading.severity, State.RESOLVED, 0.0, annotations=annotations, rule=rule.name
    )


def _renewed(old: Alert, fresh: Alert) -> Alert:
    """The old alert with what an edit of the rule changed."""
    said = (fresh.labels, fresh.severity, fresh.annotations, fresh.rule)
    if (old.labels, old.severity, old.annotations, old.rule) == said:
        return old
    return replace(old, labels=fresh.labels, severity=fresh.severity, annotations=fresh.annotations, rule=fresh.rule)


def _timing(spec: AlertPolicySpec, rule: AlertRule | None) -> Timing:
    flapping = spec.flapping
    return Timing(
        for_s=seconds(rule.for_) if rule and rule.for_ else 0.0,
        keep_s=seconds(rule.keep_firing) if rule and rule.keep_firing else 0.0,
        flap_firings=flapping.firings,
        flap_within_s=min(seconds(flapping.within), FLAP_WITHIN_MOST_S),
    )


def _homes(alerts: dict[str, Alert], incidents: Mapping[str, Incident]) -> dict[str, Alert]:
    """Each firing alert knows its incident."""
    out = dict(alerts)
    for incident in incidents.values():
        if incident.resolved_s is None:
            for print_ in incident.members:
                alert = out.get(print_)
                if alert is not None and alert.firing and alert.incident != incident.id:
                    out[print_] = replace(alert, incident=incident.id)
    return out


# --- what an Alertmanager says --------------------------------------------------------------------------------------
def fitting(book: Book, heard: Sequence[Heard]) -> list[Heard]:
    """All that is said of alerts that are known or over, then as many new ones as there is room for."""
    new = {one.fingerprint for one in heard if one.firing and one.fingerprint not in book.alerts}
    room = max(0, EXTERNAL_MOST - len(book.alerts))
    if len(new) <= room:
        return list(heard)
    firsts = dict.fromkeys(one.fingerprint for one in heard if one.fingerprint in new)
    refused = set(list(firsts)[room:])
    return [one for one in heard if one.fingerprint not in refused]


def hear(book: Book, heard: Iterable[Heard], now_s: float) -> Book:
    """The book after a message of what fits. The next look makes alerts of it."""
    alerts = dict(book.alerts)
    for one in heard:
        old = alerts.get(one.fingerprint)
        if old is None:
            if not one.firing:
                continue
            old = Alert(one.fingerprint, one.labels, one.severity, State.RESOLVED, now_s)
        alerts[one.fingerprint] = _told(old, one, now_s)
    return _after(book, replace(book, alerts=alerts))


def known_as(policy: Policy, book: Book, heard: Heard) -> Heard:
    """An alert of a rule of this policy has that rule's fingerprint, whatever a Prometheus added to its labels.

    What is called so by chance has not: policies of other systems have namespaces, names and services, too.
    """
    labels = heard.labels
    print_ = rule_fingerprint(labels)
    if (labels.get(NAMESPACE), labels.get(POLICY)) != (policy.namespace, policy.name) or not labels.get(SERVICE):
        return heard
    ours = any(one.name == labels.get(ALERTNAME) for one in policy.spec.alert_rules or ())
    known = book.alerts.get(print_)  # Its rule may be gone since it was exported.
    return replace(heard, fingerprint=print_) if ours or (known is not None and known.rule is not None) else heard


def _told(old: Alert, one: Heard, now_s: float) -> Alert:
    if old.rule is not None or (old.annotations == one.annotations and old.severity is one.severity):
        return replace(old, external=one.firing, heard_s=now_s)
    message = one.annotations.get("description") or one.annotations.get("summary") or old.message
    return replace(
        old,
        external=one.firing,
        heard_s=now_s,
        annotations=one.annotations,
        severity=one.severity,
        message=message[:1024],
    )
