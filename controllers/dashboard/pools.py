"""GPUPools as the page shows them: layout and reasons, nodes that are not as planned first. Pure, from objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controllers.dashboard.rows import condition
from kube.resources import Object

Json = dict[str, Any]
_QUIET = ("Ready", "Shared")


def pool_rows(pools: Iterable[Object]) -> Json:
    """Every pool, by name."""
    return {"items": sorted((_pool(one) for one in pools), key=lambda row: row["name"])}


def _pool(pool: Object) -> Json:
    spec, status = pool["spec"], pool.get("status") or {}
    ready, met = condition(pool, "Ready"), condition(pool, "DemandMet")
    return {
        "name": pool["metadata"]["name"],
        "gpus": status.get("gpus"),
        "capacityClass": spec.get("capacityClass"),
        "price": spec.get("pricePerGpuHour"),
        "layout": status.get("layout"),
        "served": status.get("served"),
        "fragmentation": status.get("fragmentation"),
        "reason": status.get("reason"),
        "ready": ready["status"],
        "readyMessage": ready["message"],
        "demandMet": met["status"],
        "demandMessage": met["message"],
        "profiles": status.get("profiles") or [],
        "sharing": status.get("sharing") or [],
        "unmet": status.get("unmet") or [],
        "nodes": sorted(map(_node, status.get("nodes") or ()), key=lambda one: (one["state"] in _QUIET, one["name"])),
    }


def _node(node: Json) -> Json:
    shown = ("name", "state", "layout", "target", "message")
    return {name: node.get(name) for name in shown}
