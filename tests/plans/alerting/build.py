"""Builders of alerting's test values: each argument has a default, so a test names only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controllers.history.interface import Counts
from controllers.plans.alerting.alerts import Alert, State, fingerprint
from controllers.plans.alerting.book import Policy
from controllers.plans.alerting.incidents import Sight
from controllers.plans.alerting.readings import Budget, ServiceFacts
from controllers.plans.alerting.topology import Pod, Reach, Topology, build
from crds.alert_policy import AlertPolicySpec, AlertRule
from crds.alert_status import AlertSeverity

DOWN = {"name": "down", "severity": "P0", "metric": "unservable", "threshold": {"above": "0"}}
HOOK = {"name": "hook", "webhook": {"url": "https://hook.example/a"}}


def spec(*rules: dict[str, Any], **fields: Any) -> AlertPolicySpec:
    """One rule `down` and one webhook receiver; groups wait for nothing."""
    plain: dict[str, Any] = {"rules": list(rules) or [DOWN], "receivers": [HOOK], "grouping": {"wait": "1s"}}
    return AlertPolicySpec.model_validate(plain | fields)


def policy(*rules: dict[str, Any], **fields: Any) -> Policy:
    return Policy("demo", "watch", spec(*rules, **fields))


def rule(**fields: Any) -> AlertRule:
    return AlertRule.model_validate({"name": "r", "metric": "requests"} | fields)


def counts(arrivals: Sequence[float], failed: float | Sequence[float] = 0.0, step_s: float = 60.0) -> Counts:
    came = np.asarray(arrivals, dtype=np.float64)
    answered = came * (1.0 - np.asarray(failed))
    return Counts(0.0, step_s, came, answered, came * 10, came * 20)


def facts(name: str = "chat", **fields: Any) -> ServiceFacts:
    return ServiceFacts("demo", name, **fields)


BUDGET = Budget(0.001, 30 * 86_400.0, "99.9% over 30d")


def alert(severity: str = "P1", at_s: float = 0.0, **labels: str) -> Alert:
    """A firing alert."""
    marks = {"alertname": "a", "namespace": "demo", **labels}
    return Alert(fingerprint(marks), marks, AlertSeverity(severity), State.FIRING, at_s, "broken")


def fleet(services: int = 4, workers: int = 2, nodes: int = 3) -> Topology:
    """`demo/s0` …, each with workers `s0-0` … of revision `r`, spread over nodes `n0` … in turn."""
    pods = [
        Pod("demo", f"s{one}-{at}", f"s{one}", "r", f"n{(one * workers + at) % nodes}")
        for one in range(services)
        for at in range(workers)
    ]
    return build({f"demo/s{one}": "m" if one % 2 else "other" for one in range(services)}, pods)


def sight(topology: Topology | None = None, changes: Sequence[Any] = ()) -> Sight:
    return Sight(Reach(topology or fleet()), changes)
