"""Fakes at the seams. `FakeClient` is an API server in memory: versions, uids, generations, finalizers, server-side
apply by field owner, watches with resume and 410. It validates nothing and defaults nothing; a real API server is one
fixture away (`apiserver`)."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kube.api import EventKind, Page, Propagation, Subresource, WatchEvent
from kube.errors import AlreadyExists, AnswerError, Conflict, Gone, KubeError, NotFound, error_from_answer
from kube.resources import Object, Resource
from tests.fake_objects import Path, leaves, merge, remove, selected
from tests.fake_objects import merge_patch as apply_merge_patch

_Place = tuple[str | None, str]


@dataclass(frozen=True)
class Write:
    """One write that the fake was asked for, in order, whether it succeeded or not."""

    verb: str
    kind: str
    namespace: str | None
    name: str
    subresource: str | None = None


@dataclass
class _Shelf:
    """All objects of one resource, and what happened to them."""

    objects: dict[_Place, Object] = field(default_factory=dict)
    history: list[WatchEvent] = field(default_factory=list)
    silent: bool = False
    owned: dict[tuple[_Place, str], set[Path]] = field(default_factory=dict)


class FakeClient:
    """Implements `kube.api.Api`."""

    def __init__(self, *objects: tuple[Resource, Mapping[str, Any]]) -> None:
        self.writes = 0
        self.log: list[Write] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        """(verb, kind) → how often asked."""
        self._failures: dict[tuple[str, str], list[KubeError]] = {}
        self._shelves: dict[Resource, _Shelf] = {}
        self._versions = itertools.count(1)
        self._version = 0
        self._compacted_at = 0
        self._changed = asyncio.Event()
        self._streams_generation = 0
        for resource, obj in objects:
            self.put(resource, obj)

    # --- arranging (as if others did it) -----------------------------------------------------------------------
    def put(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        """Create or replace an object, status included, without counting it as a write."""
        place = _place_of(obj)
        old = self._shelf(resource).objects.get(place)
        new = copy.deepcopy(dict(obj))
        if old is not None:
            new["metadata"] = {**_identity(old), **new["metadata"]}
            new["metadata"].pop("resourceVersion", None)
        return self._store(resource, place, new)

    def remove(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Delete at once, finalizers or not."""
        self._erase(resource, (namespace, name))

    def now(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object as stored, or None; a copy."""
        return copy.deepcopy(self._shelf(resource).objects.get((namespace, name)))

    def all(self, resource: Resource) -> list[Object]:
        """All objects of a resource; copies."""
        return copy.deepcopy(list(self._shelf(resource).objects.values()))

    def fail_next(self, verb: str, resource: Resource, *errors: KubeError) -> None:
        """The next calls of this verb (get, list, watch, apply, create, patch, delete) raise these, in order."""
        self._failures.setdefault((verb, resource.kind), []).extend(errors)

    def break_streams(self) -> None:
        """Every open watch ends now."""
        self._streams_generation += 1
        self._notify()

    def lose_events(self, resource: Resource) -> None:
        """From now on no watch of it hears of anything, though its stream stays open."""
        self._shelf(resource).silent = True

    def compact(self) -> None:
        """Forget the history: a watch from any earlier version gets 410."""
        self._compacted_at = self._version
        for shelf in self._shelves.values():
            shelf.history.clear()

    # --- reading -----------------------------------------------------------------------------------------------
    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self._called("get", resource)
        return copy.deepcopy(self._existing("get", resource, (namespace, name)))

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
    ) -> AsyncGenerator[Page, None]:
        self._called("list", resource)
        version = str(self._version)
        found = [
            copy.deepcopy(obj)
            for (where, _), obj in sorted(self._shelf(resource).objects.items(), key=lambda item: str(item[0]))
            if namespace in (None, where) and selected(obj, label_selector, field_selector)
        ]
        for start in range(0, max(1, len(found)), limit):
            yield Page(found[start : start + limit], version)
            await asyncio.sleep(0)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Object]:
        pages = self.pages(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        return [obj async for page in pages for obj in page.items]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        inactivity_timeout_s: float = 20.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        self._called("watch", resource)
        sent, generation = int(resource_version), self._streams_generation
        yield WatchEvent(EventKind.BOOKMARK, {}, resource_version)
        while generation == self._streams_generation:
            changed = self._changed
            if sent < self._compacted_at:
                raise _answer(Gone, "watch", resource.describe(namespace), 410, "Expired", "too old resource version")
            for event in tuple(self._shelf(resource).history):
                if int(event.resource_version) > sent:
                    sent = int(event.resource_version)
                    wanted = namespace in (None, event.obj["metadata"].get("namespace"))
                    if wanted and selected(event.obj, label_selector, field_selector):
                        yield copy.deepcopy(event)
            await changed.wait()

    # --- writing -----------------------------------------------------------------------------------------------
    async def apply(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        *,
        field_manager: str,
        force: bool = True,
        subresource: Subresource | None = None,
    ) -> Object:
        place = _place_of(obj)
        self._wrote("apply", resource, place, subresource)
        shelf = self._shelf(resource)
        old = shelf.objects.get(place)
        if old is None and subresource is not None:
            raise self._not_found("apply", resource, place)
        uid = obj["metadata"].get("uid")
        if uid is not None and (old is None or old["metadata"]["uid"] != uid):
            raise _answer(Conflict, "apply", resource.describe(*place), 409, "Conflict", "the uid differs")
        content = {"status": obj.get("status", {})} if subresource == "status" else _without_status(obj)
        new, wanted = copy.deepcopy(old) if old else {}, set(leaves(content))
        for gone in shelf.owned.get((place, field_manager), set()) - wanted:
            remove(new, gone)
        merge(new, copy.deepcopy(content))
        shelf.owned[(place, field_manager)] = wanted
        return copy.deepcopy(self._store(resource, place, new))

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        place = _place_of(obj)
        self._wrote("create", resource, place, None)
        if place in self._shelf(resource).objects:
            raise _answer(AlreadyExists, "create", resource.describe(*place), 409, "AlreadyExists", "already exists")
        return copy.deepcopy(self._store(resource, place, copy.deepcopy(dict(obj))))

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: Subresource | None = None,
    ) -> Object:
        place = (namespace, name)
        self._wrote("patch", resource, place, subresource)
        new = copy.deepcopy(self._existing("patch", resource, place))
        self._check_preconditions("patch", resource, place, patch.get("metadata") or {})
        changes = {"status": patch.get("status", {})} if subresource == "status" else dict(patch)
        apply_merge_patch(new, copy.deepcopy(changes))
        return copy.deepcopy(self._store(resource, place, new))

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        propagation: Propagation = "Background",
        uid: str | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        place = (namespace, name)
        self._wrote("delete", resource, place, None)
        found = self._shelf(resource).objects.get(place)
        if found is None:
            return
        self._check_preconditions("delete", resource, place, {} if uid is None else {"uid": uid})
        if found["metadata"].get("finalizers"):
            going = copy.deepcopy(found)
            going["metadata"].setdefault("deletionTimestamp", "2030-01-01T00:00:00Z")
            self._store(resource, place, going)
        else:
            self._erase(resource, place)

    # --- inside ------------------------------------------------------------------------------------------------
    def _shelf(self, resource: Resource) -> _Shelf:
        return self._shelves.setdefault(resource, _Shelf())

    def _called(self, verb: str, resource: Resource) -> None:
        self.calls[verb, resource.kind] += 1
        waiting = self._failures.get((verb, resource.kind))
        if waiting:
            raise waiting.pop(0)

    def _wrote(self, verb: str, resource: Resource, place: _Place, subresource: str | None) -> None:
        self.writes += 1
        self.log.append(Write(verb, resource.kind, place[0], place[1], subresource))
        self._called(verb, resource)

    def _existing(self, verb: str, resource: Resource, place: _Place) -> Object:
        found = self._shelf(resource).objects.get(place)
        if found is None:
            raise self._not_found(verb, resource, place)
        return found

    def _not_found(self, verb: str, resource: Resource, place: _Place) -> AnswerError:
        return _answer(NotFound, verb, resource.describe(*place), 404, "NotFound", "not found")

    def _check_preconditions(self, verb: str, resource: Resource, place: _Place, wanted: Mapping[str, Any]) -> None:
        meta = self._existing(verb, resource, place)["metadata"]
        for key in ("uid", "resourceVersion"):
            if key in wanted and wanted[key] != meta[key]:
                raise _answer(Conflict, verb, resource.describe(*place), 409, "Conflict", f"{key} differs")

    def _store(self, resource: Resource, place: _Place, new: Object) -> Object:
        """Keeps what the server keeps by itself, and records an event, unless nothing changed."""
        shelf, old = self._shelf(resource), self._shelf(resource).objects.get(place)
        meta = new.setdefault("metadata", {})
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        if old is not None and _without_version(old) == _without_version(new):
            return old
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            shelf.objects[place] = new
            self._erase(resource, place)
            return new
        self._version = next(self._versions)
        meta.setdefault("uid", f"uid-{self._version}")
        meta.setdefault("creationTimestamp", "2030-01-01T00:00:00Z")
        if old is None or old.get("spec") != new.get("spec"):
            meta["generation"] = (old["metadata"].get("generation", 0) if old else 0) + 1
        meta["resourceVersion"] = str(self._version)
        shelf.objects[place] = new
        self._happened(shelf, EventKind.MODIFIED if old else EventKind.ADDED, new)
        return new

    def _erase(self, resource: Resource, place: _Place) -> None:
        shelf = self._shelf(resource)
        gone = copy.deepcopy(shelf.objects.pop(place, None))
        if gone is None:
            return
        for key in [key for key in shelf.owned if key[0] == place]:
            del shelf.owned[key]
        self._version = next(self._versions)
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._happened(shelf, EventKind.DELETED, gone)

    def _happened(self, shelf: _Shelf, kind: EventKind, obj: Object) -> None:
        if not shelf.silent:
            shelf.history.append(WatchEvent(kind, copy.deepcopy(obj), str(self._version)))
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _answer(kind: type[AnswerError], verb: str, what: str, code: int, reason: str, message: str) -> AnswerError:
    error = error_from_answer(verb, what, code, {"reason": reason, "message": message})
    assert isinstance(error, kind)
    return error


def _place_of(obj: Mapping[str, Any]) -> _Place:
    meta = obj["metadata"]
    return meta.get("namespace"), meta["name"]


def _identity(obj: Object) -> Object:
    keys = ("uid", "creationTimestamp", "generation", "deletionTimestamp")
    return {key: obj["metadata"][key] for key in keys if key in obj["metadata"]}


def _without_status(obj: Mapping[str, Any]) -> Object:
    content = {key: value for key, value in obj.items() if key not in ("status", "apiVersion", "kind")}
    dropped = ("uid", "resourceVersion", "creationTimestamp", "generation")
    content["metadata"] = {key: value for key, value in obj["metadata"].items() if key not in dropped}
    return content


def _without_version(obj: Object) -> Object:
    meta = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "generation")}
    return {**obj, "metadata": meta}
