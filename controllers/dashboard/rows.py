"""Objects of the caches as the page shows them: rows of the fleet, one service, tenants. Pure; plain JSON values out.

Field names are the page's own (`dashboard/src/api.ts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controllers.dashboard import health
from crds.conditions import DEGRADED, QUALITY_DRIFT, SCALING_LIMITED, STALLED
from crds.reading import NOT_UNDERSTOOD
from kube.resources import Object

Json = dict[str, Any]
PAGE_SIZE: Final = 50
MARKS: Final = (DEGRADED, QUALITY_DRIFT, SCALING_LIMITED)
"""Conditions that a person should see in the fleet while they are true."""
_UNKNOWN: Final = {"status": "Unknown", "reason": "", "message": "The operator has not looked at it yet."}


@dataclass(frozen=True, slots=True)
class Query:
    """What part of the fleet is asked for. `page` counts from 1."""

    search: str = ""
    sort: str = "name"
    descending: bool = False
    page: int = 1


def condition(obj: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    """The condition of that type; an Unknown one where there is none."""
    found = (obj.get("status") or {}).get("conditions") or []
    return next((one for one in found if one["type"] == type_), _UNKNOWN)


def service_row(service: Object, forecast: Object | None) -> Json:
    """One line of the fleet."""
    status, expected = service.get("status") or {}, (forecast or {}).get("status") or {}
    servable = condition(service, "Servable")
    return {
        "namespace": service["metadata"]["namespace"],
        "name": service["metadata"]["name"],
        "tenant": status.get("tenant"),
        "model": service["spec"]["model"],
        "ready": condition(service, "Ready")["status"],
        "servable": servable["status"],
        "message": servable["message"],
        "marks": _marks(service),
        "policy": _policy(service["spec"]),
        "replicas": status.get("replicas") or 0,
        "readyReplicas": status.get("readyReplicas") or 0,
        "desiredReplicas": status.get("desiredReplicas"),
        "plannedReplicas": expected.get("plannedReplicas"),
        "loadTokensPerS": _number(expected.get("load")),
    }


def fleet_page(services: Iterable[Object], forecasts: Mapping[tuple[str, str], Object], query: Query) -> Json:
    """One page of the services that the words of the search all occur in."""
    words = query.search.lower().split()
    rows = [
        service_row(one, forecasts.get((one["metadata"]["namespace"], one["metadata"]["name"])))
        for one in services
        if all(word in _searched(one) for word in words)
    ]
    rows.sort(key=lambda row: (row["namespace"], row["name"]))
    rows.sort(key=_ORDERS[query.sort], reverse=query.descending)
    last = max(1, math.ceil(len(rows) / PAGE_SIZE))
    page = min(query.page, last)
    shown = rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    return {"total": len(rows), "page": page, "size": PAGE_SIZE, "items": shown}


def service_detail(
    service: Object, forecast: Object | None, sla: Object | None, budget: Json | None, alerts: Json
) -> Json:
    """Everything of one service but its charts."""
    status = service.get("status") or {}
    return {
        **service_row(service, forecast),
        "conditions": status.get("conditions") or [],
        "health": health.health(service),
        "alerts": alerts,
        "answer": status.get("diagnosis"),
        "floor": (status.get("scaling") or {}).get("floor"),
        "rollout": health.rollout(service),
        "revisions": status.get("revisions") or [],
        "sla": None if sla is None else _sla(sla),
        "errorBudget": budget,
        "forecast": None if forecast is None else _forecast(forecast),
    }


def tenant_rows(tenants: Iterable[Object], services: Sequence[Object]) -> Json:
    """Every tenant with what it uses, by name."""
    return {"items": sorted((_tenant(one, services) for one in tenants), key=lambda row: row["name"])}


def is_order(name: str) -> bool:
    return name in _ORDERS


def _marks(service: Object) -> list[Json]:
    """A service that cannot be read is not looked after, however well it serves."""
    unread = condition(service, STALLED)["reason"] == NOT_UNDERSTOOD
    shown = [STALLED] if unread else []
    shown += [type_ for type_ in MARKS if condition(service, type_)["status"] == "True"]
    return [_mark(service, type_) for type_ in shown]


def _mark(service: Object, type_: str) -> Json:
    found = condition(service, type_)
    return {"type": type_, "reason": found["reason"], "message": found["message"]}


def _searched(service: Object) -> str:
    meta, status = service["metadata"], service.get("status") or {}
    tenant = status.get("tenant") or ""
    return f"{meta['namespace']}/{meta['name']} {service['spec']['model']} {tenant}".lower()


def _policy(spec: Mapping[str, Any]) -> str:
    scaling = spec.get("scaling")
    return "fixed" if scaling is None else str(scaling.get("policy", "reactive"))


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _absent_last(value: float | None) -> float:
    return -1.0 if value is None else value


_ORDERS: Final = {
    "name": lambda row: (row["name"], row["namespace"]),
    "servable": lambda row: row["servable"],
    "replicas": lambda row: row["readyReplicas"],
    "load": lambda row: _absent_last(row["loadTokensPerS"]),
    "planned": lambda row: _absent_last(row["plannedReplicas"]),
    "policy": lambda row: row["policy"],
    "tenant": lambda row: row["tenant"] or "",
}


def _sla(sla: Object) -> Json:
    spec = sla["spec"]
    targets = spec.get("targets") or {}
    named = (("TTFT", "ttft"), ("TPOT", "tpot"), ("end to end", "e2e"))
    return {
        "name": sla["metadata"]["name"],
        "priority": spec["priority"],
        "targets": [{"name": name, "value": targets[key]} for name, key in named if targets.get(key)],
        "availability": spec.get("availability"),
        "window": spec.get("window"),
    }


def _forecast(forecast: Object) -> Json:
    status, ready = forecast.get("status") or {}, condition(forecast, "Ready")
    cost = status.get("cost")
    return {
        "trusted": ready["status"] == "True",
        "message": ready["message"],
        "forecaster": status.get("forecaster"),
        "source": status.get("source"),
        "history": status.get("history"),
        "leadTime": status.get("leadTime"),
        "coverage": status.get("coverage") or [],
        "cost": cost,
    }


def _tenant(tenant: Object, services: Sequence[Object]) -> Json:
    namespaces = tenant["spec"].get("namespaces") or []
    own = [one.get("status") or {} for one in services if one["metadata"]["namespace"] in namespaces]
    ready = condition(tenant, "Ready")
    return {
        "name": tenant["metadata"]["name"],
        "namespaces": namespaces,
        "services": len(own),
        "replicas": sum(one.get("replicas") or 0 for one in own),
        "desiredReplicas": sum(one.get("desiredReplicas") or 0 for one in own),
        "replicaQuota": (tenant["spec"].get("quota") or {}).get("replicas"),
        "borrowed": ((tenant.get("status") or {}).get("fairShare") or {}).get("standing") or None,
        "ready": ready["status"],
        "message": ready["message"],
    }
