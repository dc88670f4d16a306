"""The only writer of what the operator owns: children by server-side apply, statuses, deletions.

`needs_apply` decides (pure); `Applier` writes. Nothing is written when nothing changed, not even after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kube.api import Api, Propagation
from kube.resources import Object, Resource


def needs_apply(wanted: Mapping[str, Any], observed: Mapping[str, Any] | None) -> str | None:
    """Why `wanted` must be applied over `observed`, or None when the server already has it.

    Two looks: the annotation foretide.dev/applied must equal the hash of `wanted` (else a field we no longer want would
    stay), and every field of `wanted` must be in `observed` with its value (else someone changed it). Fields that only
    `observed` has are defaults or belong to others. Equal quantities ("0.5", "500m") are equal; an empty wanted value
    ({}, [], "", None) equals an absent one. An object that is being deleted needs nothing until it is gone.
    """
    raise NotImplementedError


def merge_conditions(
    old: Sequence[Mapping[str, Any]] | None, new: Sequence[Mapping[str, Any]], *, now: datetime, generation: int
) -> list[Object]:
    """The condition list to write: exactly the types of `new` (type, status, reason, message), in its order.

    `lastTransitionTime` stays while `status` stays; `observedGeneration` becomes `generation`.
    """
    raise NotImplementedError


class Applier:
    """Writes as field manager `foretide`. Give it what the caches show; it skips what is already there."""

    def __init__(self, client: Api) -> None: ...

    async def ensure(self, wanted: Mapping[str, Any], observed: Mapping[str, Any] | None) -> str | None:
        """Apply `wanted` (apiVersion, kind, metadata, …) if needed. Returns the reason of the write, None without one.

        `observed` is the cached object (`lean` is enough), or None when the cache has none.
        """
        raise NotImplementedError

    async def delete(
        self, resource: Resource, observed: Mapping[str, Any], *, propagation: Propagation = "Background"
    ) -> bool:
        """Delete exactly the object observed (its uid is a precondition). False when it is already going or gone."""
        raise NotImplementedError

    async def status(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        status: Mapping[str, Any],
        observed_status: Mapping[str, Any] | None,
    ) -> bool:
        """Write `status` of `obj` if it differs from `observed_status`. True when something was written.

        `obj` names the object (namespace, name, uid); fields left out of `status` are removed.
        """
        raise NotImplementedError
