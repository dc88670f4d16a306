"""Nodes that are about to be taken away: which marks say so, and how long the node then lives. Pure.

The marks are those that clouds and autoscalers write by themselves; nothing here asks a cloud. Half of the notice is
for successors on other nodes to become ready, the other half for the streams of workers that are drained then. Who
writes the mark often drains as well: that is no harm, a worker that leaves already is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SPOT_NOTICE_S: Final = 120.0
"""AWS's, and Karpenter's on nodes of capacity type spot."""
SHORT_NOTICE_S: Final = 30.0
"""Google's and Azure's for spot machines."""
DRAIN_S: Final = 600.0
"""Where a controller drains a node of its own accord: the longest that the cluster autoscaler waits."""
_TAINTS: Final[Mapping[str, float]] = {
    "aws-node-termination-handler/spot-itn": SPOT_NOTICE_S,
    "aws-node-termination-handler/asg-lifecycle-termination": DRAIN_S,
    "aws-node-termination-handler/scheduled-maintenance": DRAIN_S,
    "aws-node-termination-handler/rebalance-recommendation": DRAIN_S,
    "cloud.google.com/impending-node-termination": SHORT_NOTICE_S,
    "remediator.kubernetes.azure.com/unschedulable": SHORT_NOTICE_S,
    "karpenter.sh/disrupted": DRAIN_S,
    "ToBeDeletedByClusterAutoscaler": DRAIN_S,
    "node.kubernetes.io/out-of-service": 0.0,
}
"""Keys of taints, whatever their effect, and the notice that each gives."""
_KARPENTER: Final = "karpenter.sh/disrupted"
_CAPACITY_TYPE: Final = "karpenter.sh/capacity-type"
_SHUTTING_DOWN: Final = "node is shutting down"
"""In the message of a Ready condition that is False: the kubelet's graceful shutdown has begun."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What says that a node goes, and how long after it the node may be gone."""

    mark: str
    notice_s: float


def notice_of(node: Mapping[str, Any]) -> Notice | None:
    """The most urgent notice on a Node as JSON; None for a node that stays."""
    found = [*_taints(node), *_shutdown(node)]
    return min(found, key=lambda one: (one.notice_s, one.mark), default=None)


def _taints(node: Mapping[str, Any]) -> list[Notice]:
    labels = node["metadata"].get("labels") or {}
    keys = [str(taint.get("key")) for taint in (node.get("spec") or {}).get("taints") or ()]
    is_spot = labels.get(_CAPACITY_TYPE) == "spot"
    return [
        Notice(key, SPOT_NOTICE_S if key == _KARPENTER and is_spot else _TAINTS[key]) for key in keys if key in _TAINTS
    ]


def _shutdown(node: Mapping[str, Any]) -> list[Notice]:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready: Mapping[str, Any] = next((one for one in conditions if one["type"] == "Ready"), {})
    if ready.get("status") != "True" and _SHUTTING_DOWN in str(ready.get("message", "")):
        return [Notice(_SHUTTING_DOWN, SHORT_NOTICE_S)]
    return []
