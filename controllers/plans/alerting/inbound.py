"""Alertmanager's webhook message, version 4, as alerts. Anything else is refused with a sentence; sizes are bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from controllers.plans.alerting.alerts import (
    ALERTNAME,
    NAMESPACE,
    POLICY,
    SERVICE,
    SEVERITY,
    Labels,
    fingerprint,
    matches,
)
from crds.alert_policy import AlertPolicySpec
from crds.alert_status import AlertSeverity

MOST_ALERTS: Final = 20_000
_LABELS: Final = 64
_NAME: Final = 128
_VALUE: Final = 1024
_SEVERITIES: Final = {
    "p0": AlertSeverity.P0,
    "critical": AlertSeverity.P0,
    "page": AlertSeverity.P0,
    "p1": AlertSeverity.P1,
    "error": AlertSeverity.P1,
    "high": AlertSeverity.P1,
    "warning": AlertSeverity.P1,
}
"""What is not named here, `info` for example, is a ticket."""


class MessageRefused(Exception):
    """What came is not Alertmanager's message."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One alert of a message."""

    fingerprint: str
    labels: Labels
    annotations: Labels
    firing: bool
    severity: AlertSeverity


def read(body: bytes) -> list[Heard]:
    """Raises MessageRefused."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MessageRefused("The body is not JSON. Send Alertmanager's webhook message.") from error
    if not isinstance(message, dict) or str(message.get("version")) != "4":
        raise MessageRefused('The message has no `"version": "4"`. Send Alertmanager\'s webhook message.')
    alerts = message.get("alerts")
    if not isinstance(alerts, list):
        raise MessageRefused("`alerts` is not a list.")
    if len(alerts) > MOST_ALERTS:
        raise MessageRefused(f"The message has {len(alerts)} alerts; {MOST_ALERTS} are allowed. Set max_alerts.")
    return [_heard(one, at) for at, one in enumerate(alerts)]


def _heard(one: Any, at: int) -> Heard:
    if not isinstance(one, dict) or one.get("status") not in ("firing", "resolved"):
        raise MessageRefused(f"alerts[{at}] has no status firing or resolved.")
    labels, annotations = _texts(one.get("labels"), at, "labels"), _texts(one.get("annotations"), at, "annotations")
    if not labels:
        raise MessageRefused(f"alerts[{at}] has no labels.")
    severity = _SEVERITIES.get(labels.get(SEVERITY, "").lower(), AlertSeverity.P2)
    return Heard(fingerprint(labels), labels, annotations, one["status"] == "firing", severity)


def _texts(found: Any, at: int, what: str) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or len(found) > _LABELS:
        raise MessageRefused(f"alerts[{at}].{what} is not an object of at most {_LABELS} texts.")
    for name, value in found.items():
        if not isinstance(value, str) or len(name) > _NAME:
            raise MessageRefused(f"alerts[{at}].{what} is not an object of texts.")
    return {name: value[:_VALUE] for name, value in found.items()}


def exporter(heard: Heard) -> tuple[str, str] | None:
    """Namespace and name of the policy whose exported rule this is, by its labels; None of anything else."""
    labels = heard.labels
    if not all(labels.get(one) for one in (ALERTNAME, NAMESPACE, POLICY, SERVICE)):
        return None
    return labels[NAMESPACE], labels[POLICY]


def belongs(
    heard: Heard, owner: tuple[str, str] | None, spec: AlertPolicySpec, place: tuple[str, str], system_namespace: str
) -> bool:
    """Whether the policy of this namespace and name takes the alert in. One of its own rules always and of other
    policies' never, as `owner` tells, which exported it; else those of its namespace.

    Policies of the operator's namespace also take those of nodes, gateways and other namespaces: they are written by
    those who run the platform.
    """
    if spec.receive is None:
        return False
    if owner is not None:
        return owner == place
    namespace, _ = place
    if namespace not in (system_namespace, heard.labels.get(NAMESPACE)):
        return False
    return matches(spec.receive.matchers, heard.labels)
