"""Which alerts that AlertPolicies show are about a service: the command and the dashboard tell the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Json = dict[str, Any]
_FIRES: Final = ("firing", "flapping")


def firing_about(policies: Iterable[Mapping[str, Any]], namespace: str, name: str) -> tuple[Json, ...]:
    """Those that fire, the worst first. An alert that two policies know of is told once."""
    found = {
        one["fingerprint"]: one
        for policy in policies
        for one in (policy.get("status") or {}).get("alerts") or []
        if one.get("state") in _FIRES and _is_about(one, namespace, name)
    }
    return tuple(sorted(found.values(), key=lambda one: (one["severity"], one["since"], one["rule"])))


def _is_about(alert: Json, namespace: str, name: str) -> bool:
    labels = alert.get("labels") or {}
    named = labels.get("namespace") == namespace and labels.get("service") == name
    return named or bool(alert.get("subject") == f"service/{namespace}/{name}")
