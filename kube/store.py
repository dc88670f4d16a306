"""What an informer holds: projections by namespace and name, named indexes, and the difference each new fact makes.

No I/O and no clock. Every method that takes facts returns the changes they made, deletions included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from kube.resources import Object

T = TypeVar("T")
Place = tuple[str | None, str]
"""Namespace (None for cluster-scoped) and name."""
Index = Callable[[T], Iterable[str]]
"""The keys under which a value is found; may be none or several."""
Keys = tuple[tuple[str, str], ...]
"""Index and key."""


class ChangeKind(Enum):
    """What happened to an object, as far as the projection shows it."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One change. `old` is None when added, `new` is None when deleted.

    An object deleted and made again under its name is two changes, even if nobody saw it missing.
    """

    kind: ChangeKind
    namespace: str | None
    name: str
    old: T | None
    new: T | None

    @property
    def value(self) -> T:
        """The newest known projection: `new`, or what it was when it went away."""
        found = self.new if self.new is not None else self.old
        assert found is not None, "a change has an old or a new value"
        return found


@dataclass(slots=True)
class _Entry(Generic[T]):
    uid: str
    resource_version: str
    value: T
    keys: Keys
    """Under which it was put into the indexes: a function asked again may answer otherwise, or raise."""


class Store(Generic[T]):
    """The held objects. `keep` returns the projection to hold, or None to hold nothing of this object."""

    def __init__(self, keep: Callable[[Object], T | None], index: Mapping[str, Index[T]]) -> None:
        self._keep = keep
        self._index = dict(index)
        self._entries: dict[Place, _Entry[T]] = {}
        self._buckets: dict[str, dict[str, dict[Place, T]]] = {name: {} for name in self._index}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, place: Place) -> T | None:
        entry = self._entries.get(place)
        return None if entry is None else entry.value

    def items(self) -> list[T]:
        return [entry.value for entry in self._entries.values()]

    def places(self) -> list[Place]:
        return list(self._entries)

    def by(self, index: str, key: str) -> list[T]:
        return list(self._buckets[index].get(key, {}).values())

    def holds_version(self, place: Place, resource_version: str) -> bool:
        entry = self._entries.get(place)
        return entry is not None and entry.resource_version == resource_version

    def put(self, obj: Object) -> list[Change[T]]:
        """An object as the server has it now. Where `keep` or an index raises, all is as before."""
        meta = obj["metadata"]
        place: Place = (meta.get("namespace"), meta["name"])
        uid, version = str(meta.get("uid", "")), str(meta.get("resourceVersion", ""))
        entry = self._entries.get(place)
        if entry is not None and entry.uid == uid and version and entry.resource_version == version:
            return []
        value = self._keep(obj)
        if value is None:
            return self.drop(place)
        keys = self._keys_of(value)
        if entry is None:
            return [self._add(place, _Entry(uid, version, value, keys))]
        if entry.uid != uid:
            return [*self.drop(place), self._add(place, _Entry(uid, version, value, keys))]
        return self._replace(place, entry, _Entry(uid, version, value, keys))

    def drop(self, place: Place) -> list[Change[T]]:
        """The object is gone."""
        entry = self._entries.pop(place, None)
        if entry is None:
            return []
        self._unindex(place, entry)
        return [Change(ChangeKind.DELETED, place[0], place[1], entry.value, None)]

    def drop_all_but(self, seen: set[Place]) -> list[Change[T]]:
        """A complete list showed only `seen`: all else vanished while nobody watched."""
        return [change for place in self.places() if place not in seen for change in self.drop(place)]

    def _keys_of(self, value: T) -> Keys:
        return tuple((name, key) for name, keys_of in self._index.items() for key in keys_of(value))

    def _add(self, place: Place, entry: _Entry[T]) -> Change[T]:
        self._enter(place, entry)
        return Change(ChangeKind.ADDED, place[0], place[1], None, entry.value)

    def _replace(self, place: Place, old: _Entry[T], new: _Entry[T]) -> list[Change[T]]:
        if old.value == new.value:
            old.resource_version = new.resource_version
            return []
        self._unindex(place, old)
        self._enter(place, new)
        return [Change(ChangeKind.MODIFIED, place[0], place[1], old.value, new.value)]

    def _enter(self, place: Place, entry: _Entry[T]) -> None:
        self._entries[place] = entry
        for name, key in entry.keys:
            self._buckets[name].setdefault(key, {})[place] = entry.value

    def _unindex(self, place: Place, entry: _Entry[T]) -> None:
        for name, key in entry.keys:
            bucket = self._buckets[name].get(key)
            if bucket is not None:
                bucket.pop(place, None)
                if not bucket:
                    del self._buckets[name][key]
