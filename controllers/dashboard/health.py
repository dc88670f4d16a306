"""What is wrong with a service, where its rollout stands and what fires about it, as the page shows them.

In the words of `kubectl foretide diagnose`; words of a later operator, which this one does not know, as they are given.
Pure, from objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from controllers.plans.alerting.shown import firing_about
from controllers.plans.healing.words import found_text, told_of
from crds.healing import HealingMode, HealthAction
from crds.rollout import Rollout, RolloutPhase
from kube.resources import Object

Json = dict[str, Any]
_VERDICT: Final = ("metric", "verdict", "message")
MOST_ALERTS: Final = 20
_MODES: Final[Mapping[str, str]] = {
    HealingMode.ADVISE: "spec.healing.mode is advise: the operator says what it would do, and does nothing.",
    HealingMode.OFF: "spec.healing.mode is off: the operator does not look for causes.",
}


def health(service: Object) -> Json:
    """Causes with what was done about each; `before`: remedies for causes that are gone, newest first."""
    status = service.get("status") or {}
    memory = status.get("health") or {}
    findings, actions = memory.get("findings") or [], memory.get("actions") or []
    causes = {one["cause"] for one in findings}
    mode = (service["spec"].get("healing") or {}).get("mode") or ""
    return {
        "summary": found_text(len(findings), troubled=_is_troubled(status)),
        "note": _MODES.get(mode),
        "findings": [_finding(one, actions) for one in findings],
        "before": [_action(one) for one in actions if one["cause"] not in causes],
    }


def rollout(service: Object) -> Json | None:
    """None before the first one was recorded."""
    status = (service.get("status") or {}).get("rollout")
    if not status:
        return None
    return {
        "phase": status["phase"],
        "since": status.get("since"),
        "message": status.get("message") or status["summary"],
        "step": _step(service, status),
        "stable": status.get("stable"),
        "candidate": status.get("candidate"),
        "outputs": status.get("outputs"),
        "verdicts": [{name: one.get(name) for name in _VERDICT} for one in status.get("verdicts") or ()],
        "history": list(status.get("history") or ()),
    }


def alerts(policies: Iterable[Object], namespace: str, name: str) -> Json:
    """Those that fire, the worst first, each with its incident's likeliest causes."""
    policies = list(policies)
    firing = firing_about(policies, namespace, name)
    incidents = {one["id"]: one for policy in policies for one in (policy.get("status") or {}).get("incidents") or []}
    shown = [_alert(one, incidents.get(one.get("incident") or "")) for one in firing[:MOST_ALERTS]]
    return {"total": len(firing), "items": shown}


def _is_troubled(status: Json) -> bool:
    known = status.get("conditions") or []
    return any(one["type"] in ("Servable", "Ready") and one["status"] != "True" for one in known)


def _finding(one: Json, actions: Iterable[Json]) -> Json:
    return {"affected": 0, **one, "done": [_action(each) for each in actions if each["cause"] == one["cause"]]}


def _action(one: Json) -> Json:
    return {"time": one["time"], "cause": one["cause"], "told": _told(one), "reason": one["reason"]}


def _told(action: Json) -> str:
    try:
        return told_of(HealthAction.model_validate(action))
    except ValidationError:
        return f"{action.get('remedy')}: {action.get('outcome')}"


def _step(service: Object, status: Json) -> str | None:
    """`2 of 4: weight 20 %`, while traffic is compared."""
    stages = Rollout.model_validate(service["spec"].get("rollout") or {}).stages
    at = status.get("step")
    if status["phase"] != RolloutPhase.ANALYSING or at is None or at >= len(stages):
        return None
    mirror = f", mirror {stages[at].mirror} %" if stages[at].mirror else ""
    return f"{at + 1} of {len(stages)}: weight {stages[at].weight} %{mirror}"


def _alert(alert: Json, incident: Json | None) -> Json:
    shown = {key: alert.get(key) for key in ("fingerprint", "severity", "rule", "state", "since", "message", "mutedBy")}
    return {**shown, "causes": None if incident is None else incident.get("causes") or [incident["root"]]}
