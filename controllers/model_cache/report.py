"""This node's item in each Model's status: written when it changed, progress at most every 1.5 s, nothing when idle.

Each agent applies its own list item under its own field manager, so agents never wait for each other or the operator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controllers.model_cache.views import ModelView, Views
from controllers.plans.model import field_manager
from controllers.plans.model_cache import ModelRef
from crds.contract import API_VERSION
from crds.model import CopyState, NodeCopy
from kube.api import Api
from kube.errors import Conflict, KubeError, NotFound
from kube.resources import MODELS

log = logging.getLogger(__name__)

PROGRESS_EVERY_S: Final = 1.5
RETRY_AFTER_S: Final = 2.0
BELIEVE_CACHE_AFTER_S: Final = 5.0
"""So long after a write, the watch may still show what was before it."""


@dataclass(frozen=True, slots=True)
class _Written:
    uid: str
    entry: NodeCopy | None
    at_s: float
    failed: bool = False


class Reporter:
    """Give it all entries at every turn; it writes those that the API server does not have."""

    def __init__(self, client: Api, views: Views, clock: Callable[[], float]) -> None:
        self._client, self._views, self._clock = client, views, clock
        self._manager = field_manager(views.node_name)
        self._written: dict[ModelRef, _Written] = {}

    async def report(self, entries: dict[ModelRef, NodeCopy]) -> float | None:
        """Write what is due. Returns after how many seconds the rest will be."""
        models = {one.ref: one for one in self._views.readable()}
        self._written = {ref: was for ref, was in self._written.items() if ref in models}
        waits_s = await asyncio.gather(*(self._one(model, entries.get(ref)) for ref, model in models.items()))
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)

    async def _one(self, model: ModelView, entry: NodeCopy | None) -> float | None:
        was = self._written.get(model.ref)
        if was is not None and was.uid != model.uid:
            was = None
        wait_s = due_in_s(entry, model.entry, was, self._clock())
        if wait_s is None or wait_s > 0:
            return wait_s
        self._written[model.ref] = await self._write(model, entry)
        return None

    async def _write(self, model: ModelView, entry: NodeCopy | None) -> _Written:
        status = {"nodes": [entry.dump()]} if entry is not None else {}
        manifest = {
            "apiVersion": API_VERSION,
            "kind": MODELS.kind,
            "metadata": {"namespace": model.ref.namespace, "name": model.ref.name, "uid": model.uid},
            "status": status,
        }
        try:
            await self._client.apply(MODELS, manifest, field_manager=self._manager, subresource="status")
        except (NotFound, Conflict) as gone:
            log.info("The entry of Model '%s' was not written: %s", model.ref, gone)
            return _Written(model.uid, entry, self._clock(), failed=True)
        except KubeError as error:
            log.warning("The entry of Model '%s' was not written: %s", model.ref, error)
            return _Written(model.uid, entry, self._clock(), failed=True)
        return _Written(model.uid, entry, self._clock())


def due_in_s(entry: NodeCopy | None, seen: NodeCopy | None, was: _Written | None, now_s: float) -> float | None:
    """Seconds until `entry` has to be written, None when the API server has it."""
    if was is None:
        return None if entry == seen else 0.0
    age_s = now_s - was.at_s
    if was.failed:
        return None if entry == seen else max(RETRY_AFTER_S - age_s, 0.0)
    if entry == was.entry:
        return None if entry == seen else max(BELIEVE_CACHE_AFTER_S - age_s, 0.0)
    return max(PROGRESS_EVERY_S - age_s, 0.0) if _only_progress(was.entry, entry) else 0.0


def _only_progress(old: NodeCopy | None, new: NodeCopy | None) -> bool:
    return old is not None and new is not None and old.state is new.state is CopyState.DOWNLOADING
