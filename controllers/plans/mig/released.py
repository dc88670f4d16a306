"""A node whose pool goes: it is given back as it is, with nothing of ours left that keeps pods off it. Pure.

Never in the middle of a cut: who waits for the MIG manager is brought to its end first (`repartition`). A fault or a
notice stays what it is; only nobody of ours acts on it any more.
"""

from __future__ import annotations

from typing import Any

from controllers.plans.mig.faults import read_quarantine
from controllers.plans.mig.leaving import read_leaving
from controllers.plans.mig.records import NodeView, Step
from controllers.plans.mig.repartition import Move
from crds.contract import ANNOTATION_INTERRUPTION, ANNOTATION_QUARANTINE, ANNOTATION_REPARTITION, LABEL_EVACUATE


def release(node: NodeView) -> Move | None:
    """Takes away our records, and the cordon where it is ours; None for a node that has none of them."""
    record, quarantine, leaving = node.record, read_quarantine(node.quarantine), read_leaving(node.interruption)
    ours = {ANNOTATION_REPARTITION: record, ANNOTATION_QUARANTINE: quarantine, ANNOTATION_INTERRUPTION: leaving}
    if not any(ours.values()):
        return None
    kept_empty = [
        record if record is not None and record.step is not Step.HELD else None,
        quarantine if quarantine is not None and not quarantine.over else None,
        leaving,
    ]
    labels = {LABEL_EVACUATE: None} if any(kept_empty) else {}
    patch: dict[str, Any] = {"metadata": {"annotations": dict.fromkeys(ours), "labels": labels}}
    if any(one is not None and one.cordoned for one in kept_empty):
        patch["spec"] = {"unschedulable": None}
    return Move(node.name, patch, message="Its pool goes: it is given back as it is.")
