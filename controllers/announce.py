"""Writes a status with its verdict, and tells people about a transition of Ready as one Event: only after a real write,
since what failed, or what the cache does not show yet, would be told twice. Also what is said of an object that this
release cannot read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from controllers.apply import Applier, merge_conditions
from controllers.plans.transitions import transition
from crds.conditions import READY, RECONCILING, STALLED
from crds.reading import NOT_UNDERSTOOD, Unread, explained
from kube.errors import Invalid, Unavailable
from kube.events import Recorder
from kube.resources import Resource

log = logging.getLogger(__name__)


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
    applier: Applier,
    recorder: Recorder,
    resource: Resource,
    obj: Mapping[str, Any],
    unread: Sequence[Unread],
    *,
    observed: Mapping[str, Any],
    now: datetime,
) -> None:
    """Of an object whose spec was stored under another release's rules: which field, and what to do about it.

    All else that its status `observed` says stays: it is what was decided last, and plans go on from it.
    """
    message = explained(unread)
    said = [
        {"type": type_, "status": value, "reason": NOT_UNDERSTOOD, "message": message}
        for type_, value in ((READY, "False"), (STALLED, "True"))
    ]
    before = observed.get("conditions") or ()
    generation = int(obj["metadata"].get("generation", 0))
    merged = merge_conditions(before, said, now=now, generation=generation)
    merged += [dict(one) for one in before if one["type"] not in (READY, STALLED, RECONCILING)]
    if await _wrote(applier, resource, obj, {**observed, "conditions": merged}, observed):
        found = transition(before, said)
        if found is not None:
            recorder.warning(obj, found.reason, found.message)


async def _wrote(
    applier: Applier,
    resource: Resource,
    obj: Mapping[str, Any],
    status: Mapping[str, Any],
    observed: Mapping[str, Any],
) -> bool:
    """Whether there is something to tell. By an Event alone where a rule of the schema cannot even be evaluated."""
    try:
        return await applier.status(resource, obj, status, observed) is not None
    except (Unavailable, Invalid) as error:
        log.info("A status cannot be applied, so its conditions are patched: %s", error)
    try:
        await applier.conditions(resource, obj, status["conditions"])
    except Invalid as error:
        log.warning("The API server takes no status of an object that cannot be read: %s", error)
    return True
