"""A cluster at the seam of `cli.kubectl`: objects in, what kubectl would print out. Records what it was asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from typer.testing import CliRunner, Result

from cli.kubectl import Answer
from cli.main import app

Json = dict[str, Any]


class FakeKubectl:
    """`objects`: by the name that kubectl is asked for; `pages`: by path; `errors`: stderr by either."""

    def __init__(
        self,
        objects: dict[str, list[Json]] | None = None,
        pages: dict[str, str] | None = None,
        errors: dict[str, str] | None = None,
    ) -> None:
        self.objects, self.pages, self.errors = objects or {}, pages or {}, errors or {}
        self.asked: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> Answer:
        self.asked.append(list(arguments))
        what = arguments[2] if arguments[1] == "--raw" else arguments[1]
        if what in self.errors:
            return Answer(1, "", self.errors[what])
        if arguments[0] == "patch":
            return Answer(0, "patched", "")
        if arguments[1] == "--raw":
            if what not in self.pages:
                return Answer(1, "", "Error from server (NotFound): the server could not find the requested resource")
            return Answer(0, self.pages[what], "")
        return self._get(what, arguments)

    def _get(self, what: str, arguments: Sequence[str]) -> Answer:
        found = self.objects.get(what, [])
        if "-n" in arguments:
            namespace = arguments[arguments.index("-n") + 1]
            found = [one for one in found if one["metadata"].get("namespace") == namespace]
        name = arguments[2]
        if name.startswith("-"):
            return Answer(0, json.dumps({"kind": "List", "items": found}), "")
        one = next((each for each in found if each["metadata"]["name"] == name), None)
        if one is None:
            return Answer(1, "", f'Error from server (NotFound): {what} "{name}" not found')
        return Answer(0, json.dumps(one), "")


class NoKubectl:
    """A machine without it."""

    def __call__(self, arguments: Sequence[str]) -> Answer:
        raise FileNotFoundError("kubectl")


def run(cluster: FakeKubectl | NoKubectl, *arguments: str) -> Result:
    """The command; its errors are raised."""
    return CliRunner().invoke(app, list(arguments), obj=cluster, catch_exceptions=False)


SERVICES, FORECASTS = "inferenceservices.foretide.dev", "capacityforecasts.foretide.dev"
SLAS, POLICIES = "slas.foretide.dev", "alertpolicies.foretide.dev"
AT = "2026-03-02T11:58:00Z"


def condition(type_: str, status: str, reason: str, message: str) -> Json:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": AT}


def chat() -> Json:
    """A canary of a service that scales ahead."""
    return {
        "metadata": {"name": "chat", "namespace": "demo"},
        "spec": {"model": "smollm2-135m", "sla": "interactive", "scaling": {"policy": "predictive", "max": 12}},
        "status": {
            "conditions": [
                condition("Ready", "True", "Ready", "8 of 8 workers of revision 7f3c9 are ready."),
                condition("Servable", "True", "Answered", "A probe through the gateway was answered."),
            ],
            "modelName": "chat",
            "currentRevision": "7f3c9",
            "desiredReplicas": 8,
            "replicas": 9,
            "readyReplicas": 8,
            "replicaStatus": "8/8",
            "revisions": [
                {"name": "7f3c9", "replicas": 1, "readyReplicas": 1},
                {"name": "55aa0", "replicas": 8, "readyReplicas": 7},
            ],
            "rollout": {"phase": "Analysing", "summary": "7f3c9 at 10 %", "since": AT},
            "scaling": {
                "policy": "predictive",
                "advisedReplicas": 8,
                "leadTime": "4m32s",
                "lastDecision": {
                    "time": AT,
                    "before": 6,
                    "after": 8,
                    "reason": "Forecast",
                    "message": "8 replicas: p95 load 7.1k tok/s at +360 s ÷ 900 tok/s each",
                },
            },
        },
    }


def broken() -> Json:
    said = "Model 'smollm2-135' is not in namespace 'demo'; did you mean 'smollm2-135m'?"
    return {
        "metadata": {"name": "chat-small", "namespace": "demo"},
        "spec": {"model": "smollm2-135", "replicas": 1},
        "status": {
            "conditions": [
                condition("Ready", "False", "ModelNotFound", said),
                condition("Servable", "False", "ModelNotFound", said),
            ],
            "desiredReplicas": 1,
            "replicaStatus": "0/1",
        },
    }


def forecast() -> Json:
    return {
        "metadata": {"name": "chat", "namespace": "demo"},
        "spec": {"service": "chat"},
        "status": {
            "conditions": [condition("Ready", "True", "Calibrated", "96% of 95%")],
            "updated": AT,
            "load": "5100.5",
            "leadTime": "4m32s",
            "capacity": "900",
            "capacityReason": "as the spec says",
            "replicas": 8,
            "plannedReplicas": 8,
            "peak": "9 in 45m",
            "source": "Store",
            "history": "13d in steps of 10m, 1% missing",
            "horizons": [
                {"ahead": "10m", "p50": "5900", "p80": "6400", "p95": "7100", "p99": "7900", "replicas": 8},
                {"ahead": "2h", "p50": "4000", "p80": "4800", "p95": "5500", "p99": "6000", "replicas": 7},
            ],
        },
    }


def sla() -> Json:
    return {
        "metadata": {"name": "interactive", "namespace": "demo"},
        "spec": {
            "priority": "P1",
            "targets": {"ttft": "1s", "tpot": "50ms", "percentile": 99},
            "availability": "99.9%",
            "window": "28d",
        },
        "status": {"errorBudget": "40m19s"},
    }


def policy() -> Json:
    alert = {
        "fingerprint": "ab12",
        "rule": "budget",
        "subject": "service/demo/chat",
        "severity": "P0",
        "state": "firing",
        "since": AT,
        "message": "2.1 % of requests fail, 14.4 × the rate that the budget allows",
        "labels": {"alertname": "budget", "namespace": "demo", "service": "chat", "severity": "P0"},
    }
    waiting = {**alert, "fingerprint": "cd34", "rule": "quiet", "state": "pending"}
    over = {**alert, "fingerprint": "ef56", "rule": "down", "state": "resolved"}
    return {
        "metadata": {"name": "on-call", "namespace": "demo", "generation": 7},
        "spec": {},
        "status": {"alerts": [alert, waiting, over]},
    }


LEADER = "/api/v1/namespaces/foretide-system/services/foretide-operator:admin/proxy/decisions"


def with_record(cluster: FakeKubectl, *lines: str) -> FakeKubectl:
    """An operator that leads, and what it recorded of demo/chat."""
    path = f"{LEADER}/demo/chat"
    cluster.pages[f"{path}?limit=500"] = "".join(f"{line}\n" for line in lines)
    cluster.pages[f"{path}?limit=1"] = "".join(f"{line}\n" for line in lines[-1:])
    return cluster


def demo(**errors: str) -> FakeKubectl:
    objects = {SERVICES: [chat(), broken()], FORECASTS: [forecast()], SLAS: [sla()], POLICIES: [policy()]}
    return FakeKubectl(objects, errors={f"{plural}.foretide.dev": text for plural, text in errors.items()})
