"""Observe one SLA and who names it, assess, write the status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controllers.announce import write_misread, write_verdict
from controllers.apply import Applier
from controllers.plans.sla import assess
from controllers.runtime.interface import Key, Outcome
from crds.reading import unread_of
from crds.sla import SLASpec
from kube.events import Recorder
from kube.informer import Informer
from kube.resources import SLAS, Object


class SlaReconciler:
    """Needs `services` with the index `by_sla` (`namespace/name`)."""

    kind = SLAS.kind

    def __init__(
        self, slas: Informer[Object], services: Informer[Object], applier: Applier, recorder: Recorder
    ) -> None:
        self._slas, self._services = slas, services
        self._applier, self._recorder = applier, recorder

    async def reconcile(self, key: Key) -> Outcome:
        obj = self._slas.get(key.namespace, key.name)
        if obj is None:
            self._applier.forget(key.kind, key.namespace, key.name)
            return Outcome()
        observed: dict[str, Any] = obj.get("status") or {}
        if unread := unread_of(obj):
            await write_misread(
                self._applier, self._recorder, SLAS, obj, unread, observed=observed, now=datetime.now(UTC)
            )
            return Outcome()
        users = [one["metadata"]["name"] for one in self._services.by("by_sla", f"{key.namespace}/{key.name}")]
        generation = obj["metadata"].get("generation", 0)
        result = assess(SLASpec.model_validate(obj["spec"]), generation, users)
        await write_verdict(
            self._applier, self._recorder, SLAS, obj, result.fields, result.conditions,
            observed=observed, now=datetime.now(UTC),
        )  # fmt: skip
        return Outcome()
