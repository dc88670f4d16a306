"""The only writer of what the operator owns: children by server-side apply, statuses, deletions.

`controllers.difference` decides whether a write is needed (pure); `Applier` writes, and remembers its last writes only
to bridge the moment until the caches show them. Nothing is written when nothing changed, not even after a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controllers.difference import (
    applied_hash,
    controller_of,
    first_difference,
    merge_conditions,
    needs_apply,
    with_hash,
)
from crds.contract import ANNOTATION_APPLIED, FIELD_MANAGER, GROUP
from crds.reading import NOT_UNDERSTOOD
from kube.api import Api, Propagation, find
from kube.errors import AlreadyExists, Conflict, NotFound
from kube.resources import Object, Resource, resource_of

__all__ = ["Applier", "merge_conditions", "needs_apply"]

log = logging.getLogger(__name__)

ALIVE_S: Final = 2.0
"""An owner that was there so long ago is not looked for again: the children of one object are written together."""
STATUS_MANAGER: Final = f"{FIELD_MANAGER}-status"
_Where = tuple[str, str | None, str, str]
"""Kind, namespace, name, and what was written ("" or "status")."""


@dataclass(frozen=True, slots=True)
class _Written:
    """The last write of an object: what, over which observed version, and what the server made of it."""

    hash: str
    over_version: str
    accepted_reason: str | None = None
    """A difference that stays after applying: the server spells that field in its own way."""


class Applier:
    """Writes as field manager `foretide`. Give it what the caches show; it skips what is already there."""

    def __init__(self, client: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._alive: dict[str, float] = {}
        """Uids of owners, and when they were last seen at the API server itself."""
        self._written: dict[_Where, _Written] = {}
        self._standing: dict[_Where, tuple[str, str]] = {}
        """Hash of what was wanted and the version observed when last nothing was missing: the comparison is most of a
        reconcile's CPU time, and of the same two things it says the same."""

    async def ensure(self, wanted: Mapping[str, Any], observed: Mapping[str, Any] | None) -> str | None:
        """Apply `wanted` (apiVersion, kind, metadata, …) if needed. Returns the reason of the write, None without one.

        `observed` is the cached object (`lean` is enough), or None when the cache has none. Raises Conflict when the
        owner that `wanted` names is gone, or the object is another such owner's: then some part of the view is old;
        AlreadyExists when somebody else's object has the name.
        """
        where, digest, version = _where(wanted), applied_hash(wanted), _version(observed)
        if version and self._standing.get(where) == (digest, version):
            return None
        reason = needs_apply(wanted, observed)
        if reason is None:
            self._standing[where] = (digest, version)
            return None
        if self._is_written(where, digest, version, reason):
            return None
        resource, owner = resource_of(wanted), controller_of(wanted)
        if owner is not None:
            if observed is not None:
                _check_holder(wanted, owner, observed)
            await self._find_owner(owner, where[1])
            if observed is None and (found := await find(self._client, resource, where[1], where[2])) is not None:
                return await self.ensure(wanted, found)  # Caches show neither what is too new nor what is not ours.
        stored = await self._client.apply(resource, with_hash(wanted), field_manager=FIELD_MANAGER)
        left = needs_apply(wanted, stored)
        if left is not None:
            log.warning("%s: still different after applying: %s.", resource.describe(where[1], where[2]), left)
        else:
            self._standing[where] = (digest, _version(stored))
        self._written[where] = _Written(digest, version, left)
        return reason

    async def _find_owner(self, owner: Mapping[str, Any], childs_namespace: str | None) -> None:
        """An old view may show an owner that is gone, while another of its name has these children: applied for the
        first, they would be taken from the second, and collected as garbage."""
        now_s = self._clock()
        if now_s - self._alive.get(owner["uid"], -ALIVE_S) < ALIVE_S:
            return
        await self._look_for(owner, childs_namespace)
        self._alive = {uid: at_s for uid, at_s in self._alive.items() if now_s - at_s < ALIVE_S}
        self._alive[owner["uid"]] = now_s

    async def _look_for(self, owner: Mapping[str, Any], childs_namespace: str | None) -> None:
        """At the API server itself. Raises Conflict where it is gone."""
        resource = resource_of(owner)
        namespace = childs_namespace if resource.namespaced else None
        what = resource.describe(namespace, owner["name"])
        try:
            found = await self._client.get(resource, namespace, owner["name"])
        except NotFound:
            raise _behind(f"{what}: it is gone") from None
        if found["metadata"]["uid"] != owner["uid"]:
            raise _behind(f"{what}: another object has its name by now")

    async def delete(
        self, resource: Resource, observed: Mapping[str, Any], *, propagation: Propagation = "Background"
    ) -> bool:
        """Delete exactly the object observed (its uid is a precondition). False when it is already going or gone.

        Raises Conflict when another object has the name by now, or the server could not decide: look again.
        """
        meta = observed["metadata"]
        self._forget(resource.kind, meta.get("namespace"), meta["name"])
        if meta.get("deletionTimestamp"):
            return False
        await self._client.delete(
            resource, meta.get("namespace"), meta["name"], propagation=propagation, uid=meta["uid"]
        )
        return True

    async def status(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        status: Mapping[str, Any],
        observed_status: Mapping[str, Any] | None,
    ) -> Object | None:
        """Write `status` of `obj` if it differs from `observed_status`. The object since then; None without a write.

        `obj` names the object (namespace, name, uid) and the version the status was computed from; fields left out of
        `status` are removed. Raises NotFound or Conflict when the object is no longer the one observed.
        """
        if _same(status, observed_status):
            return None
        meta = obj["metadata"]
        where: _Where = (resource.kind, meta.get("namespace"), meta["name"], "status")
        digest, version = applied_hash(status), _version(obj)
        if self._is_written(where, digest, version, None):
            return None
        stored = await self._client.apply(
            resource,
            {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {key: meta[key] for key in ("namespace", "name", "uid") if meta.get(key)},
                "status": dict(status),
            },
            field_manager=STATUS_MANAGER,
            subresource="status",
        )
        if _outlived(stored, status):
            stored = await self.conditions(resource, obj, status["conditions"])
        self._written[where] = _Written(digest, version)
        return stored

    async def conditions(
        self, resource: Resource, obj: Mapping[str, Any], conditions: Sequence[Mapping[str, Any]]
    ) -> Object:
        """Write the conditions of `obj` alone, by a merge patch.

        For an object with a value of another type than the schema says: the API server can apply nothing to it, and
        forgets who owns which of its fields.
        """
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": list(conditions)}}
        return await self._client.merge_patch(
            resource, meta.get("namespace"), meta["name"], patch, subresource="status"
        )

    def forget(self, kind: str, namespace: str | None, name: str) -> None:
        """The object is gone: drop what is remembered about it."""
        self._forget(kind, namespace, name)

    def _forget(self, kind: str, namespace: str | None, name: str) -> None:
        self._standing.pop((kind, namespace, name, ""), None)
        for part in ("", "status"):
            self._written.pop((kind, namespace, name, part), None)

    def _is_written(self, where: _Where, digest: str, version: str, reason: str | None) -> bool:
        """Whether this write was already made: the cache is behind, or the server keeps spelling a field its own way.

        An object that the cache does not show proves nothing: it may be too new, or deleted since. It is applied again,
        which the server answers without a change in the first case.
        """
        last = self._written.get(where)
        if last is None or last.hash != digest or not version:
            return False
        return last.over_version == version or (reason is not None and last.accepted_reason == reason)


def _check_holder(wanted: Mapping[str, Any], owner: Mapping[str, Any], observed: Mapping[str, Any]) -> None:
    """What another of the owner's kind holds goes with it: an old view may show a new owner beside a child of the one
    before. What anybody else holds stays theirs; what nobody holds was made by us if it carries our hash."""
    holder, resource = controller_of(observed), resource_of(wanted)
    what = resource.describe(wanted["metadata"].get("namespace"), wanted["metadata"]["name"])
    if holder is not None and holder["uid"] == owner["uid"]:
        return
    if holder is not None and holder["kind"] == owner["kind"]:
        raise _behind(f"{what} belongs to another {holder['kind']} '{holder['name']}' than today's")
    is_ours = resource.group == GROUP or ANNOTATION_APPLIED in (observed["metadata"].get("annotations") or {})
    if holder is None and is_ours:
        return
    whose = f"belongs to {holder['kind']} '{holder['name']}'" if holder else "was not made by Foretide"
    raise AlreadyExists(
        f"{what} {whose}, and {owner['kind']} '{owner['name']}' needs that name. Delete it, or rename one of the two.",
        status_code=409,
        reason="AlreadyExists",
    )


def _behind(what: str) -> Conflict:
    return Conflict(
        f"{what}. Nothing is written, and it is decided anew when the view has caught up.",
        status_code=409,
        reason="Conflict",
    )


def _outlived(stored: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether a condition of an object that could not be read is still there though nobody says it any more."""
    said = {one["type"]: one.get("reason") for one in status.get("conditions") or ()}
    there = (stored.get("status") or {}).get("conditions") or ()
    return any(one.get("reason") == NOT_UNDERSTOOD and said.get(one["type"]) != NOT_UNDERSTOOD for one in there)


def _same(status: Mapping[str, Any], observed: Mapping[str, Any] | None) -> bool:
    """Nothing missing on either side. Mostly they are plainly equal, which is found out at a tenth of the cost."""
    if status == observed:
        return True
    return first_difference(status, observed) is None and first_difference(observed, status) is None


def _where(obj: Mapping[str, Any]) -> _Where:
    meta = obj["metadata"]
    return str(obj["kind"]), meta.get("namespace"), meta["name"], ""


def _version(obj: Mapping[str, Any] | None) -> str:
    return "" if obj is None else str(obj["metadata"].get("resourceVersion", ""))
