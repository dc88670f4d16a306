"""What is wrong with a service, where its rollout stands and what fires about it, as the page shows them.

In the words of `kubectl foretide diagnose`. Pure, from objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from controllers.plans.alerting.shown import firing_about
from controllers.plans.healing.words import found_text, told_of
from crds.healing import HealingMode, HealthAction, HealthFinding, HealthStatus
from crds.rollout import Rollout, RolloutPhase, RolloutStatus
from kube.resources import Object

Json = dict[str, Any]
MOST_ALERTS: Final = 20
_MODES: Final = {
    HealingMode.ACT: None,
    HealingMode.ADVISE: "spec.healing.mode is advise: the operator says what it would do, and does nothing.",
    HealingMode.OFF: "spec.healing.mode is off: the operator does not look for causes.",
}


def health(service: Object) -> Json:
    """Causes with what was done about each; `before`: remedies for causes that are gone, newest first."""
    status = service.get("status") or {}
    memory = HealthStatus.model_validate(status.get("health") or {})
    findings, actions = memory.findings or [], memory.actions or []
    causes = {one.cause for one in findings}
    mode = HealingMode((service["spec"].get("healing") or {}).get("mode", HealingMode.ACT))
    return {
        "summary": found_text(len(findings), troubled=_is_troubled(status)),
        "note": _MODES[mode],
        "findings": [_finding(one, actions) for one in findings],
        "before": [_action(one) for one in actions if one.cause not in causes],
    }


def rollout(service: Object) -> Json | None:
    """None before the first one was recorded."""
    status = (service.get("status") or {}).get("rollout")
    if not status:
        return None
    known = RolloutStatus.model_validate(status)
    return {
        "phase": known.phase.value,
        "since": known.since,
        "message": known.message or known.summary,
        "step": _step(service, known),
        "stable": known.stable,
        "candidate": known.candidate,
        "outputs": known.outputs,
        "verdicts": [
            {"metric": one.metric.value, "verdict": one.verdict.value, "message": one.message}
            for one in known.verdicts or []
        ],
        "history": [one.dump() for one in known.history or []],
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


def _finding(one: HealthFinding, actions: Iterable[HealthAction]) -> Json:
    return {**one.dump(), "done": [_action(each) for each in actions if each.cause == one.cause]}


def _action(one: HealthAction) -> Json:
    return {"time": one.time, "cause": one.cause, "told": told_of(one), "reason": one.reason}


def _step(service: Object, known: RolloutStatus) -> str | None:
    """`2 of 4: weight 20 %`, while traffic is compared."""
    stages = Rollout.model_validate(service["spec"].get("rollout") or {}).stages
    at = known.step
    if known.phase is not RolloutPhase.ANALYSING or at is None or at >= len(stages):
        return None
    mirror = f", mirror {stages[at].mirror} %" if stages[at].mirror else ""
    return f"{at + 1} of {len(stages)}: weight {stages[at].weight} %{mirror}"


def _alert(alert: Json, incident: Json | None) -> Json:
    shown = {key: alert.get(key) for key in ("fingerprint", "severity", "rule", "state", "since", "message", "mutedBy")}
    return {**shown, "causes": None if incident is None else incident.get("causes") or [incident["root"]]}
