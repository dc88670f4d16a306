"""The words of a message, in the forms that receivers read. Never a prompt, a key or an address of ours in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from controllers.plans.alerting.alerts import ALERTNAME, INCIDENT, NAMESPACE, SEVERITY, Alert
from controllers.plans.alerting.notices import RESOLVED, Notice
from crds.alert_status import AlertSeverity

Json = dict[str, Any]

ALERTS_TOLD: Final = 100
"""Of one message; the rest is counted in `truncatedAlerts`, as Alertmanager does."""
NEVER: Final = "0001-01-01T00:00:00Z"
_PAGERDUTY_SEVERITY: Final = {AlertSeverity.P0: "critical", AlertSeverity.P1: "error", AlertSeverity.P2: "warning"}
_SLACK_COLOUR: Final = {AlertSeverity.P0: "#c0392b", AlertSeverity.P1: "#e67e22", AlertSeverity.P2: "#f1c40f"}
_SLACK_MOST: Final = 2_900
"""Of the 3,000 characters of a section."""


def webhook(notice: Notice, namespace: str, policy: str) -> Json:
    """Alertmanager's webhook message, version 4 (prometheus.io/docs/alerting/latest/configuration/#webhook_config)."""
    told = notice.alerts[:ALERTS_TOLD]
    group = {INCIDENT: notice.incident.id, NAMESPACE: namespace, "policy": policy, **dict(notice.incident.group)}
    alerts = [_alert(one, notice) for one in told]
    return {
        "version": "4",
        "groupKey": group_key(notice, namespace, policy),
        "truncatedAlerts": len(notice.alerts) - len(told),
        "status": notice.status,
        "receiver": notice.receiver.name,
        "groupLabels": group,
        "commonLabels": _common([one["labels"] for one in alerts]) | {SEVERITY: notice.severity.value},
        "commonAnnotations": _common([one["annotations"] for one in alerts])
        | {"summary": summary(notice), "cause": str(notice.incident.root), "causes": "\n".join(notice.incident.causes)},
        "externalURL": "",
        "alerts": alerts,
    }


def group_key(notice: Notice, namespace: str, policy: str) -> str:
    """The same in every message about an incident."""
    return f"{namespace}/{policy}:{notice.incident.id}"


def summary(notice: Notice) -> str:
    """`P0 node/gpu-3: 7 alerts (workers-missing ×6, not-servable)`"""
    counts: dict[str, int] = {}
    for one in notice.alerts:
        name = one.labels.get(ALERTNAME, "alert")
        counts[name] = counts.get(name, 0) + 1
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    names = ", ".join(f"{name} ×{n}" if n > 1 else name for name, n in most[:4])
    more = f" and {len(most) - 4} more" if len(most) > 4 else ""
    n = len(notice.alerts)
    over = "over: " if notice.status == RESOLVED else ""
    return f"{over}{notice.severity.value} {notice.incident.root}: {n} alert{'' if n == 1 else 's'} ({names}{more})"


def _alert(one: Alert, notice: Notice) -> Json:
    resolved = notice.status == RESOLVED or not one.firing
    return {
        "status": "resolved" if resolved else "firing",
        "labels": dict(one.labels),
        "annotations": {"description": one.message} | dict(one.annotations),
        "startsAt": _time(one.since_s) if one.firing else _time(notice.incident.opened_s),
        "endsAt": _time(notice.incident.resolved_s or one.since_s) if resolved else NEVER,
        "generatorURL": "",
        "fingerprint": one.fingerprint,
    }


def _common(maps: list[Mapping[str, str]]) -> dict[str, str]:
    if not maps:
        return {}
    return {key: value for key, value in maps[0].items() if all(one.get(key) == value for one in maps)}


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def pagerduty(notice: Notice, namespace: str, policy: str, routing_key: str) -> Json:
    """Events API v2: one `dedup_key` for an incident, so that a repeated event is not a second page."""
    event: Json = {
        "routing_key": routing_key,
        "event_action": "resolve" if notice.status == RESOLVED else "trigger",
        "dedup_key": group_key(notice, namespace, policy),
    }
    if notice.status == RESOLVED:
        return event
    details = {"causes": list(notice.incident.causes), "alerts": [_line(one) for one in notice.alerts[:20]]}
    runbook = _runbook(notice)
    return event | {
        "payload": {
            "summary": summary(notice)[:1024],
            "source": f"{namespace}/{policy}",
            "severity": _PAGERDUTY_SEVERITY[notice.severity],
            "component": str(notice.incident.root),
            "timestamp": _time(notice.incident.opened_s),
            "custom_details": details | ({"runbook": runbook} if runbook else {}),
        }
    }


def slack(notice: Notice, namespace: str, policy: str) -> Json:
    """An incoming webhook's message: one attachment with a colour."""
    lines = [f"{namespace}/{policy} · incident {notice.incident.id}"]
    if notice.status != RESOLVED:
        lines += [f"• {cause}" for cause in notice.incident.causes]
        lines += [f"› {_line(one)}" for one in notice.alerts[:5]]
        runbook = _runbook(notice)
        lines += [f"First: {runbook}"] if runbook else []
    colour = "#27ae60" if notice.status == RESOLVED else _SLACK_COLOUR[notice.severity]
    return {
        "text": _escaped(summary(notice)),
        "attachments": [{"color": colour, "text": _escaped("\n".join(lines))[:_SLACK_MOST]}],
    }


def _escaped(text: str) -> str:
    """As Slack asks: nothing that an alert says becomes a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _line(one: Alert) -> str:
    return f"{one.severity.value} {one.labels.get(ALERTNAME, 'alert')}: {one.message}"[:300]


def _runbook(notice: Notice) -> str | None:
    """What to look at first: of the worst alert that has a text."""
    return next((one.annotations["runbook"] for one in notice.alerts if one.annotations.get("runbook")), None)
