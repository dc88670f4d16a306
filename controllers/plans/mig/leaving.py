"""A node of a pool that will be taken away: no new pod, successors for its workers, then a drain in time. Pure.

Since when lies on the Node, in the patch that cordons it, so a restart drains no later. A notice that is withdrawn
gives the node back; a repartition under way on it is dropped, for nobody asks a manager of a machine that goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from controllers.plans.interruption import Notice
from controllers.plans.mig.records import UNREADABLE, GpuPod, NodeView, moment
from controllers.plans.mig.repartition import Move
from controllers.plans.units import duration_text
from crds.contract import ANNOTATION_INTERRUPTION, ANNOTATION_REPARTITION, LABEL_EVACUATE


@dataclass(frozen=True, slots=True)
class Leaving:
    """Since when we know that a node goes."""

    since_s: float
    cordoned: bool
    """By us."""

    def dump(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def read_leaving(text: str | None) -> Leaving | None:
    """None without one, and for text that is none."""
    try:
        raw = json.loads(text) if text else None
        return None if raw is None else Leaving(moment(raw["since_s"]), bool(raw["cordoned"]))
    except UNREADABLE:
        return None


def leave(node: NodeView, pods: Sequence[GpuPod], now_s: float) -> Move | None:
    """The next act on a node with a notice, or with one that was withdrawn; None for any other."""
    known = read_leaving(node.interruption)
    if node.notice is None:
        return None if known is None else _stays_after_all(node, known)
    if known is None:
        return _begin(node, node.notice, now_s)
    drain_at_s = known.since_s + node.notice.notice_s / 2
    if not pods:
        return Move(node.name, message=f"{_goes(node.notice)} No worker is on it any more.")
    if now_s < drain_at_s:
        text = f"{_goes(node.notice)} Its workers have {duration_text(drain_at_s - now_s)} more for their successors."
        return Move(node.name, look_again_s=drain_at_s - now_s, message=text)
    text = f"{_goes(node.notice)} Half of its notice is over: its workers are drained."
    drain = tuple(pod for pod in pods if pod.service is not None and not pod.leaving)
    return Move(node.name, drain=drain, look_again_s=5.0 if drain else None, message=text)


def _begin(node: NodeView, notice: Notice, now_s: float) -> Move:
    # What we cordoned to cut it anew is still cordoned by us; for a fault, its quarantine gives the node back.
    ours = not node.cordoned or (node.record is not None and node.record.cordoned)
    leaving = Leaving(now_s, cordoned=ours)
    annotations = {ANNOTATION_INTERRUPTION: leaving.dump(), ANNOTATION_REPARTITION: None}
    patch = _patch(annotations, evacuate=True) | {"spec": {"unschedulable": True}}
    return Move(node.name, patch, look_again_s=1.0, message=f"{_goes(notice)} Its workers get successors elsewhere.")


def _stays_after_all(node: NodeView, known: Leaving) -> Move:
    patch = _patch({ANNOTATION_INTERRUPTION: None}, evacuate=False)
    if known.cordoned:
        patch["spec"] = {"unschedulable": None}
    return Move(node.name, patch, message="The notice was withdrawn: it is used again.")


def _goes(notice: Notice) -> str:
    return f"It will be taken away ({notice.mark}, {duration_text(notice.notice_s)} of notice)."


def _patch(annotations: Mapping[str, str | None], *, evacuate: bool) -> dict[str, Any]:
    return {"metadata": {"annotations": dict(annotations), "labels": {LABEL_EVACUATE: "true" if evacuate else None}}}
