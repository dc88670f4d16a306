"""Incidents: alerts of one cause, told as one. An alert that is in an incident stays in it for as long as it fires.

That is what makes a page come once: a cause that shows itself later than its consequences joins their incident and
becomes its root; it does not open another. Silences and inhibitions are judged here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from controllers.plans.alerting.alerts import INCIDENT, Alert, matches, worst
from controllers.plans.alerting.causes import Change, Symptom, clusters, rank, texts
from controllers.plans.alerting.topology import Part, Reach, part_of
from controllers.plans.times import unix_s
from crds.alert_policy import AlertPolicySpec, Grouping, Inhibition, Silence
from crds.alert_status import AlertSeverity
from crds.fields import seconds

CLOSED_AFTER_S: Final = 60.0
"""A resolved incident whose receivers know it is forgotten after this."""
TOGETHER_S: Final = 900.0
"""An incident that is older than this takes no more alerts in that are neither upstream nor downstream of its root."""
GIVEN_UP_AFTER_S: Final = 24 * 3600.0
"""One that a receiver never took, after this."""


Group = tuple[tuple[str, str], ...]
"""Names and values of labels."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one receiver was told of one incident."""

    receiver: str
    said: str | None = None
    """`firing` or `resolved`: what it last took."""
    digest: str | None = None
    severity: AlertSeverity | None = None
    said_s: float = 0.0
    attempts: int = 0
    """Failed ones since."""
    next_s: float = 0.0
    error: str | None = None
    doubtful: bool = False
    """A message was begun of which nobody knows whether it was taken."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Some alerts and their likeliest cause."""

    id: str
    root: Part
    opened_s: float
    members: frozenset[str]
    """Fingerprints."""
    severity: AlertSeverity
    """Of the worst that ever fired in it."""
    causes: tuple[str, ...] = ()
    group: Group = ()
    """Values of the labels that its alerts have alike, besides the cause."""
    resolved_s: float | None = None
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is needed to judge: the topology with its answers remembered, and what changed lately."""

    reach: Reach
    changes: Sequence[Change] = ()


# --- who is not told --------------------------------------------------------------------------------------------------
def muted(alerts: Collection[Alert], spec: AlertPolicySpec, now_s: float) -> dict[str, str]:
    """Fingerprint → why, of the firing alerts that are silenced or inhibited."""
    firing = [one for one in alerts if one.firing]
    silences = [one for one in spec.silences or () if in_force(one, now_s)]
    found: dict[str, str] = {}
    for alert in firing if silences else ():
        for silence in silences:
            if matches(silence.matchers, alert.labels):
                found[alert.fingerprint] = f"silence {silence.name}"
    for inhibition in spec.inhibitions or ():
        _inhibit(inhibition, firing, found)
    return found


def in_force(silence: Silence, now_s: float) -> bool:
    starts_s, ends_s = bounds_s(silence)
    return starts_s <= now_s < ends_s


def bounds_s(silence: Silence) -> tuple[float, float]:
    """When it begins and when it ends."""
    return unix_s(silence.starts) if silence.starts else float("-inf"), unix_s(silence.ends)


def _inhibit(inhibition: Inhibition, firing: Iterable[Alert], found: dict[str, str]) -> None:
    equal = inhibition.equal or []
    sources: dict[tuple[str, ...], Alert] = {}
    for alert in firing:
        if matches(inhibition.source, alert.labels):
            sources.setdefault(tuple(alert.labels.get(name, "") for name in equal), alert)
    for alert in firing if sources else ():
        source = sources.get(tuple(alert.labels.get(name, "") for name in equal))
        # As in Alertmanager: what is a source, too, is not inhibited, else an alert would inhibit itself.
        if source and matches(inhibition.target, alert.labels) and not matches(inhibition.source, alert.labels):
            found.setdefault(alert.fingerprint, f"inhibited by {source.labels.get('alertname', source.fingerprint)}")


def downstream(alerts: Collection[Alert], sight: Sight) -> dict[str, str]:
    """Fingerprint → the part upstream of it that alerts at least as urgently: consequences of a known cause."""
    parts = {one.fingerprint: (part_of(one.labels), one.severity) for one in alerts if one.firing}
    alerting: dict[Part, AlertSeverity] = {}
    for part, severity in parts.values():
        alerting[part] = min(severity, alerting.get(part, severity))
    found = {}
    for fingerprint, (part, severity) in parts.items():
        above = [
            one for one in sight.reach.upstream(part) if one != part and one in alerting and alerting[one] <= severity
        ]
        if above:
            found[fingerprint] = f"follows from {min(above)}"
    return found


# --- which alert belongs where ----------------------------------------------------------------------------------------
def assign(
    alerts: Mapping[str, Alert], incidents: Mapping[str, Incident], grouping: Grouping, sight: Sight, now_s: float
) -> dict[str, Incident]:
    """Incidents after this look: homeless alerts join one or, when the oldest has waited enough, found new ones."""
    out = dict(incidents)
    homeless = [one for one in alerts.values() if one.firing and not _home(one, out)]
    joined: dict[str, list[Alert]] = {}
    rest: list[Alert] = []
    hosts = _Hosts(out.values(), grouping, sight.reach)
    for alert in homeless:
        host = hosts.of(alert)
        (joined.setdefault(host.id, []) if host else rest).append(alert)
    for id_, new in joined.items():
        out[id_] = _with(out[id_], new, alerts, sight)
    if rest and now_s - min(one.since_s for one in rest) >= seconds(grouping.wait):
        housed: set[str] = set()
        for id_, new in _together(rest, alerts, out, grouping, sight, now_s).items():
            out[id_] = _with(out[id_], new, alerts, sight)
            housed |= {one.fingerprint for one in new}
        rest = [one for one in rest if one.fingerprint not in housed]
        for incident in _founded(rest, grouping, sight, now_s):
            out[incident.id] = incident
    return out


def _together(
    rest: Sequence[Alert],
    alerts: Mapping[str, Alert],
    incidents: Mapping[str, Incident],
    grouping: Grouping,
    sight: Sight,
    now_s: float,
) -> dict[str, list[Alert]]:
    """Homeless alerts that have one cause with those of an incident that opened lately: by its id."""
    if INCIDENT not in grouping.by:
        return {}
    young: dict[Group, list[Incident]] = {}
    for one in sorted(incidents.values(), key=lambda one: (one.opened_s, one.id)):
        if one.resolved_s is None and now_s - one.opened_s <= TOGETHER_S:
            young.setdefault(one.group, []).append(one)
    found: dict[str, list[Alert]] = {}
    for group, fresh in _by_group(rest, grouping).items():
        hosts = young.get(group, [])
        held = {print_ for one in hosts for print_ in one.members if print_ in alerts and alerts[print_].firing}
        if not held:
            continue
        homes: dict[Part, Incident] = {}
        """Of what alerts already; of several the oldest."""
        for one in hosts:
            for print_ in one.members & held:
                homes.setdefault(part_of(alerts[print_].labels), one)
        age = {one.id: at for at, one in enumerate(hosts)}
        by_part = _by_part(fresh)
        causes = clusters(_symptoms([*fresh, *(alerts[print_] for print_ in held)]), sight.reach, sight.changes)
        for cause in causes:
            near = [homes[part].id for part in cause.explains if part in homes]
            new = [one for part in cause.explains for one in by_part.get(part, ())]
            if near and new:
                found.setdefault(min(near, key=age.__getitem__), []).extend(new)
    return found


def _home(alert: Alert, incidents: Mapping[str, Incident]) -> bool:
    home = incidents.get(alert.incident or "")
    return home is not None and home.resolved_s is None


def group_of(alert: Alert, grouping: Grouping) -> Group:
    """The labels besides the cause by which is grouped."""
    return tuple((name, alert.labels.get(name, "")) for name in grouping.by if name != INCIDENT)


def _by_group(alerts: Iterable[Alert], grouping: Grouping) -> dict[Group, list[Alert]]:
    found: dict[Group, list[Alert]] = {}
    for alert in alerts:
        found.setdefault(group_of(alert, grouping), []).append(alert)
    return found


def _by_part(alerts: Iterable[Alert]) -> dict[Part, list[Alert]]:
    found: dict[Part, list[Alert]] = {}
    for alert in alerts:
        found.setdefault(part_of(alert.labels), []).append(alert)
    return found


class _Hosts:
    """The open incidents, sorted once and found by group and root: a storm has thousands of them, and of alerts."""

    def __init__(self, incidents: Iterable[Incident], grouping: Grouping, reach: Reach) -> None:
        self._grouping, self._reach = grouping, reach
        self._found: dict[Group, dict[Part, tuple[int, Incident]]] = {}
        """By root the best of each, with its place among all; the best of a group comes first."""
        open_ = sorted(
            (one for one in incidents if one.resolved_s is None),
            key=lambda one: (len(reach.downstream(one.root)), one.opened_s, one.id),
        )
        for place, one in enumerate(open_):
            self._found.setdefault(one.group, {}).setdefault(one.root, (place, one))

    def of(self, alert: Alert) -> Incident | None:
        """The one whose root is upstream of the alert, or downstream: then the alert is the cause.

        Of several the one with the narrowest root, then the oldest.
        """
        roots = self._found.get(group_of(alert, self._grouping), {})
        if INCIDENT not in self._grouping.by:
            return next((one for _, one in roots.values()), None)
        part = part_of(alert.labels)
        above, below = self._reach.upstream(part), self._reach.downstream(part)
        related = (roots.keys() & above.keys()) | (roots.keys() & below.keys())
        return min((roots[root] for root in related), default=(0, None), key=lambda pair: pair[0])[1]


def _with(incident: Incident, new: Sequence[Alert], alerts: Mapping[str, Alert], sight: Sight) -> Incident:
    members = incident.members | {one.fingerprint for one in new}
    firing = [alerts[one] for one in members if one in alerts and alerts[one].firing]
    best = rank(_symptoms(firing), sight.reach, sight.changes)
    return replace(
        incident,
        members=members,
        severity=worst((incident.severity, *(one.severity for one in new))),
        root=best[0].part if best else incident.root,
        causes=texts(best) or incident.causes,
    )


def _founded(rest: Sequence[Alert], grouping: Grouping, sight: Sight, now_s: float) -> list[Incident]:
    found = []
    for group, alerts in _by_group(rest, grouping).items():
        by_part = _by_part(alerts)
        if INCIDENT in grouping.by:
            causes = clusters(_symptoms(alerts), sight.reach, sight.changes)
            shares = [[alert for part in cause.explains for alert in by_part[part]] for cause in causes]
        else:
            shares = [alerts]
        found += [_new(share, group, sight, now_s) for share in shares]
    return found


def _new(alerts: Sequence[Alert], group: Group, sight: Sight, now_s: float) -> Incident:
    best = rank(_symptoms(alerts), sight.reach, sight.changes)
    members = frozenset(one.fingerprint for one in alerts)
    seed = f"{min(members)} {now_s:.3f}"
    return Incident(
        id=hashlib.sha256(seed.encode()).hexdigest()[:12],
        root=best[0].part,
        opened_s=now_s,
        members=members,
        severity=worst(one.severity for one in alerts),
        causes=texts(best),
        group=group,
    )


def _symptoms(alerts: Iterable[Alert]) -> list[Symptom]:
    return [Symptom(part_of(one.labels), one.since_s) for one in alerts]


# --- the end ----------------------------------------------------------------------------------------------------------
def resolve(incidents: Mapping[str, Incident], alerts: Mapping[str, Alert], now_s: float) -> dict[str, Incident]:
    """Incidents none of whose alerts fires any more are resolved."""
    out = {}
    for id_, one in incidents.items():
        firing = any(member in alerts and alerts[member].firing for member in one.members)
        out[id_] = one if firing or one.resolved_s is not None else replace(one, resolved_s=now_s)
    return out


def is_over(incident: Incident, owed: bool, now_s: float) -> bool:
    """Whether it can be forgotten: resolved, and nobody is owed a word of it."""
    if incident.resolved_s is None:
        return False
    age_s = now_s - incident.resolved_s
    return age_s >= (GIVEN_UP_AFTER_S if owed else CLOSED_AFTER_S)
