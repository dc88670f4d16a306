"""An alert: something that is wrong with something, told apart from others by its labels. Values only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, Protocol

from crds.alert_status import AlertSeverity

Labels = Mapping[str, str]

ALERTNAME: Final = "alertname"
NAMESPACE: Final = "namespace"
POLICY: Final = "policy"
SERVICE: Final = "service"
SEVERITY: Final = "severity"
WINDOW: Final = "window"
INCIDENT: Final = "incident"
_IDENTITY: Final = (ALERTNAME, NAMESPACE, POLICY, SERVICE, WINDOW)
"""What tells alerts of a policy's rules apart. A Prometheus adds labels of its own to the same alert."""


class State(StrEnum):
    """Where an alert is in its life."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of one policy."""

    fingerprint: str
    labels: Labels
    severity: AlertSeverity
    state: State
    since_s: float
    """When it came into this state."""
    message: str = ""
    annotations: Labels = field(default_factory=dict)
    quiet_since_s: float | None = None
    """Since when nothing has been wrong, while it still fires."""
    fired_s: tuple[float, ...] = ()
    """When it last began to fire, the newest last: as often as makes it flap, and within that time."""
    flapping: bool = False
    external: bool = False
    """An Alertmanager says that it fires."""
    heard_s: float = 0.0
    """When an Alertmanager last said something of it, or was given up; 0: never, or we know better since."""
    incident: str | None = None
    rule: str | None = None
    """The rule of the policy that looks at it; None of alerts that only an Alertmanager knows."""

    @property
    def firing(self) -> bool:
        return self.state is State.FIRING


def fingerprint(labels: Labels) -> str:
    """16 hex digits of all labels."""
    return _digest(labels, sorted(labels))


def rule_fingerprint(labels: Labels) -> str:
    """Of an alert of a policy's rule: what the rule's own labels say, or a Prometheus adds, does not count."""
    return _digest(labels, _IDENTITY)


def _digest(labels: Labels, names: Iterable[str]) -> str:
    text = "\x00".join(f"{name}\x01{labels[name]}" for name in names if labels.get(name))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class MatcherLike(Protocol):
    """`crds.alert_policy.Matcher`."""

    @property
    def label(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def negate(self) -> bool: ...


def matches(matchers: Iterable[MatcherLike], labels: Labels) -> bool:
    """All of them; a label that is missing is empty."""
    return all(_match(one.value, labels.get(one.label, "")) is not one.negate for one in matchers)


def _match(pattern: str, value: str) -> bool:
    """`*` stands for anything; nothing else is special, and the time taken is bounded by the lengths."""
    if "*" not in pattern:
        return pattern == value
    return fnmatchcase(value, pattern.replace("[", "[[]").replace("?", "[?]"))


def worst(severities: Iterable[AlertSeverity]) -> AlertSeverity:
    """P0 before P1 before P2; P2 of none."""
    return min(severities, default=AlertSeverity.P2)
