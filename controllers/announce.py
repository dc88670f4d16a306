"""Writes a status with its verdict, and tells people about a transition of Ready as one Event: only after a real write,
since what failed, or what the cache does not show yet, would be told twice. Also what is said of an object that this
release cannot read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from controllers.apply import Applier, merge_conditions
from controllers.plans.transitions import transition
from crds.conditions import READY, STALLED
from kube.events import Recorder
from kube.resources import Resource


async def write_verdict(
    applier: Applier,
    recorder: Recorder,
    resource: Resource,
    obj: Mapping[str, Any],
    fields: Mapping[str, Any],
    made: Sequence[Mapping[str, Any]],
    *,
    observed: Mapping[str, Any],
    now: datetime,
) -> bool:
    """`fields` and the conditions `made`, over the status `observed` of `obj`. Whether anything was written."""
    before, generation = observed.get("conditions"), obj["metadata"].get("generation", 0)
    conditions = merge_conditions(before, made, now=now, generation=generation)
    if not await applier.status(resource, obj, {**fields, "conditions": conditions}, observed):
        return False
    found = transition(before, made)
    if found is not None:
        record = recorder.warning if found.warning else recorder.normal
        record(obj, found.reason, found.message)
    return True


async def write_misread(
    applier: Applier, resource: Resource, obj: Mapping[str, Any], error: ValidationError, *, now: datetime
) -> None:
    """Of an object whose spec was stored under another release's rules: which field, and what to do about it."""
    first = error.errors()[0]
    message = f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}. Apply it anew."
    said = [
        {"type": type_, "status": value, "reason": "NotUnderstood", "message": message}
        for type_, value in ((READY, "False"), (STALLED, "True"))
    ]
    observed = obj.get("status") or {}
    generation = int(obj["metadata"].get("generation", 0))
    merged = merge_conditions(observed.get("conditions"), said, now=now, generation=generation)
    await applier.status(resource, obj, {"conditions": merged}, observed)
