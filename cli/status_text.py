"""How services are, for a terminal: a table of many, or all that is known of one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cli import lines
from cli.fleet import Service
from crds.conditions import (
    DEGRADED,
    FORECAST_TRUSTED,
    QUALITY_DRIFT,
    READY,
    RECONCILING,
    SCALING_HELD,
    SCALING_LIMITED,
    SERVABLE,
    STALLED,
    WEAK_ISOLATION,
    WORKERS_OUTDATED,
)

Json = dict[str, Any]

MOST_REASONS = 20
_SHOWN = (
    READY,
    SERVABLE,
    RECONCILING,
    STALLED,
    DEGRADED,
    SCALING_HELD,
    SCALING_LIMITED,
    FORECAST_TRUSTED,
    QUALITY_DRIFT,
    WORKERS_OUTDATED,
    WEAK_ISOLATION,
)
"""All that an InferenceService has, in this order."""


def fleet_lines(services: Sequence[Service]) -> list[str]:
    """One line each, then why those that are not servable or not ready are so."""
    # A namespace that is the same everywhere says nothing, and where it is not, it takes the place of the revision.
    hidden = "REVISION" if len({one.namespace for one in services}) > 1 else "NAMESPACE"
    rows = [{head: cell for head, cell in _row(one).items() if head != hidden} for one in services]
    said = lines.table(list(rows[0]), [list(row.values()) for row in rows], keep=("SERVICE",)) if rows else []
    troubled = [(one, trouble) for one in services if (trouble := trouble_of(one)) is not None]
    for one, trouble in troubled[:MOST_REASONS]:
        head = f"{one.namespace}/{one.name}: {trouble['type']} is {trouble['status']}, {trouble['reason']}"
        said += ["", *lines.wrapped(head)]
        said += lines.wrapped(trouble["message"], 2)
    if len(troubled) > MOST_REASONS:
        said += ["", f"{len(troubled) - MOST_REASONS} more are not ready; name one to see why."]
    return said


def trouble_of(service: Service) -> Json | None:
    """The condition that a person should read first; None where all is well."""
    for type_ in (SERVABLE, READY):
        found = service.condition(type_)
        if found is not None and found["status"] != "True":
            return found
    return None


def _row(one: Service) -> dict[str, str]:
    status = one.status
    return {
        "NAMESPACE": one.namespace,
        "SERVICE": one.name,
        "MODEL": one.spec.get("model", "-"),
        "READY": _word(one, READY),
        "SERVABLE": _word(one, SERVABLE),
        "REPLICAS": status.get("replicaStatus") or "-",
        "REVISION": status.get("currentRevision") or "-",
        "ROLLOUT": (status.get("rollout") or {}).get("phase", "-"),
        "ALERTS": _alert_counts(one.alerts),
    }


def _word(one: Service, type_: str) -> str:
    found = one.condition(type_)
    return "Unknown" if found is None else str(found["status"])


def _alert_counts(alerts: Sequence[Json]) -> str:
    """`1 P0, 2 P2`"""
    severities = sorted({str(one["severity"]) for one in alerts})
    counts = ((sum(one["severity"] == each for one in alerts), each) for each in severities)
    return ", ".join(f"{count} {each}" for count, each in counts) or "-"


def service_lines(one: Service, now: datetime) -> list[str]:
    """Everything that its objects say of one service."""
    rows = [*_conditions(one, now), ("replicas", replicas_text(one)), ("revisions", _revisions(one))]
    rows += _rollout(one, now)
    rows.append(("SLA", sla_text(one)))
    rows += _load(one, now)
    rows += _scaling(one, now)
    rows += _answer(one, now)
    rows += [("alert", _alert(each, now)) for each in one.alerts]
    if not one.alerts:
        rows.append(("alerts", "none fires"))
    head = f"{one.namespace}/{one.name} serves {one.spec.get('model', 'no model')}"
    return [*lines.wrapped(head), *lines.facts([row for row in rows if row[1]])]


def _conditions(one: Service, now: datetime) -> list[tuple[str, str]]:
    found = [(type_, one.condition(type_)) for type_ in _SHOWN]
    return [
        (type_, f"{each['status']} since {lines.moment(each.get('lastTransitionTime'), now)}: {each['message']}")
        for type_, each in found
        if each is not None
    ] or [(READY, "Unknown: the operator has not looked at it yet")]


def replicas_text(one: Service) -> str:
    status = one.status
    wanted = status.get("desiredReplicas")
    if wanted is None:
        return "not known yet"
    text = f"{status.get('readyReplicas') or 0} ready of {wanted} wanted"
    exist = status.get("replicas") or 0
    return text if exist == wanted else f"{text}, {exist} exist"


def _revisions(one: Service) -> str:
    current = one.status.get("currentRevision")
    found = [
        f"{each['name']}{' (current)' if each['name'] == current else ''}"
        f" {each['readyReplicas']} of {each['replicas']} ready"
        for each in one.status.get("revisions") or []
    ]
    return "; ".join(found)


def _rollout(one: Service, now: datetime) -> list[tuple[str, str]]:
    rollout = one.status.get("rollout")
    if not rollout:
        return []
    since = f" since {lines.moment(rollout['since'], now)}" if rollout.get("since") else ""
    rows = [("rollout", f"{rollout['phase']}{since}: {rollout.get('message') or rollout['summary']}")]
    for each in rollout.get("verdicts") or []:
        rows.append((f"  {each['metric']}", f"{each['verdict']}: {each['message']}"))
    return rows


def sla_text(one: Service) -> str:
    name = one.spec.get("sla")
    if name is None:
        return "none: no target is measured"
    if one.sla is None:
        return f"{name}: it was not found, or may not be read"
    spec = one.sla["spec"]
    targets = spec.get("targets") or {}
    named = (("TTFT", "ttft"), ("TPOT", "tpot"), ("end to end", "e2e"))
    parts = [f"{label} ≤ {targets[key]}" for label, key in named if targets.get(key)]
    text = f"{name}: {spec['priority']}"
    if parts:
        text += f", {' and '.join(parts)} for {targets.get('percentile', 99)} %"
    outage = (one.sla.get("status") or {}).get("errorBudget")
    if spec.get("availability"):
        text += f"; {spec['availability']} over {spec['window']}"
        text += f" allows {outage} of full outage" if outage else ""
    return text


def _load(one: Service, now: datetime) -> list[tuple[str, str]]:
    expected = one.expected
    if not expected:
        return []
    rows = [("load", f"{expected['load']} tok/s (measured)" if expected.get("load") else "not measured")]
    ready = next((each for each in expected.get("conditions") or [] if each["type"] == "Ready"), None)
    if ready is not None and ready["status"] != "True":
        rows.append(("forecast", f"none to rely on: {ready['message']}"))
    elif expected.get("horizons"):
        rows.append(("forecast", forecast_text(expected, now)))
    return rows


def forecast_text(expected: Json, now: datetime) -> str:
    """The nearest and the farthest horizon, and the peak."""
    horizons = expected["horizons"]
    ends = [horizons[0]] if len(horizons) == 1 else [horizons[0], horizons[-1]]
    text = "; ".join(f"+{each['ahead']} {each['p50']} tok/s, p95 {each['p95']}{_workers(each)}" for each in ends)
    peak = f"; peak {expected['peak']}" if expected.get("peak") else ""
    made = f" (made {lines.moment(expected['updated'], now)})" if expected.get("updated") else ""
    return text + peak + made


def _workers(horizon: Json) -> str:
    return "" if horizon.get("replicas") is None else f" → {horizon['replicas']} replicas"


def _scaling(one: Service, now: datetime) -> list[tuple[str, str]]:
    if not one.spec.get("scaling"):
        return []
    scaling = one.status.get("scaling")
    if not scaling:
        return [("scaling", "the operator has not decided yet")]
    advised = scaling.get("advisedReplicas")
    rows = [("scaling", scaling["policy"] + ("" if advised is None else f"; it calls for {advised}"))]
    floor = scaling.get("floor")
    if floor:
        until = lines.moment(floor["until"], now)
        rows.append(("floor", f"{floor['workers']} workers at least, until {until}: {floor['message']}"))
    last = scaling.get("lastDecision")
    if last:
        when = lines.moment(last["time"], now)
        rows.append(("last change", f"{when}  {last['before']} → {last['after']}, {last['reason']}: {last['message']}"))
    return rows


def _answer(one: Service, now: datetime) -> list[tuple[str, str]]:
    """What was wrong when an alert last asked; `foretide diagnose` has the advice."""
    found = one.status.get("diagnosis")
    if not found:
        return []
    first, more = found["causes"][0], len(found["causes"]) - 1
    rest = f" (and {more} more)" if more else ""
    return [("diagnosis", f"{lines.moment(found['time'], now)}  {first['cause']}: {first['evidence']}{rest}")]


def _alert(alert: Json, now: datetime) -> str:
    muted = f" (not told: {alert['mutedBy']})" if alert.get("mutedBy") else ""
    since = lines.moment(alert.get("since"), now)
    return f"{alert['severity']} {alert['rule']} {alert['state']} since {since}{muted}: {alert['message']}"
