"""What one node's agent does with its copies of Models: remove, evict, fetch, hold back, wait, refuse.

A copy that a pod of this node uses is never touched. A copy that no Model asks for goes at once. When a wanted copy
lacks room, unused copies go, least recently used first; what was evicted comes back only when a pod here needs it or
when there is room anyway, so two Models can never push each other out in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from controllers.plans.units import bytes_text


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """A Model by its place."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Copy:
    """A complete, verified copy on this node's disk."""

    model: ModelRef
    size_bytes: int
    last_used_s: float
    """When a pod of this node last had it, or when it was made."""
    current: bool = True
    """Made from what the Model says now; False when a Model of the same name says something else."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Model that this node should have."""

    model: ModelRef
    total_bytes: int | None = None
    """Size of the whole, once the source has told it."""
    partial_bytes: int = 0
    """What its download has on disk."""
    started: bool = False
    """Its download is under way."""
    evicted: bool = False
    """It was here and had to make room."""

    @property
    def least_bytes(self) -> int:
        """What it takes of the disk at least."""
        return self.partial_bytes if self.total_bytes is None else self.total_bytes

    @property
    def size_text(self) -> str:
        return bytes_text(self.least_bytes) + (" or more" if self.total_bytes is None else "")


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that all copies of the node may have together."""

    size_bytes: int
    disk_keeps_free_bytes: int | None = None
    """What stays free of the disk, where that is the limit; None where the cache's own size is."""

    @property
    def text(self) -> str:
        kept = self.disk_keeps_free_bytes
        return bytes_text(self.size_bytes) + ("" if kept is None else f" (its disk keeps {bytes_text(kept)} free)")

    @property
    def remedy(self) -> str:
        if self.disk_keeps_free_bytes is None:
            return "Raise the cache size, or keep the Model off this node by spec.nodeSelector."
        return "Free the disk, lower modelCache.keepFreePercent, or keep the Model off this node by spec.nodeSelector."


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the copy for good."""

    model: ModelRef
    reason: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Delete the copy and remember that it was here."""

    model: ModelRef
    reason: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download, or go on with it."""

    model: ModelRef


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave an evicted Model away for now."""

    model: ModelRef
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Other weights of the same name are in use here; they are replaced when their workers are gone."""

    model: ModelRef
    message: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """There is no room and none can be made."""

    model: ModelRef
    message: str


Action = Remove | Evict | Fetch | Hold | Wait | Refuse


def plan(
    copies: Sequence[Copy], wanted: Sequence[Wanted], used_by_pods: AbstractSet[ModelRef], budget: Budget
) -> list[Action]:
    """All actions, deletions first. Repeated, it comes to rest: each Model is evicted at most once for others' sake."""
    asked = {one.model for one in wanted}
    removed = [_removal(copy, asked) for copy in copies if _is_waste(copy, asked, used_by_pods)]
    gone = {action.model for action in removed}
    disk = _Disk([copy for copy in copies if copy.model not in gone], used_by_pods, budget)
    evicted: list[Action] = list(disk.shrink())
    rest: list[Action] = []
    present = {copy.model for copy in copies if copy.current and copy.model not in gone}
    missing = [one for one in wanted if one.model not in present]
    sizes_open = any(one.total_bytes is None and not one.evicted for one in missing)
    for one in sorted(missing, key=lambda one: _turn(one, used_by_pods)):
        evictions, action = _decide(one, disk, one.model in used_by_pods, sizes_open)
        evicted += evictions
        rest.append(action)
    return [*removed, *evicted, *rest]


def _is_waste(copy: Copy, asked: AbstractSet[ModelRef], used: AbstractSet[ModelRef]) -> bool:
    return copy.model not in used and (copy.model not in asked or not copy.current)


def _removal(copy: Copy, asked: AbstractSet[ModelRef]) -> Remove:
    if copy.model in asked:
        return Remove(copy.model, f"Model '{copy.model}' now names other weights than this copy was made from.")
    return Remove(copy.model, f"No Model asks for a copy of '{copy.model}' on this node.")


def _turn(one: Wanted, used: AbstractSet[ModelRef]) -> tuple[bool, bool, bool, ModelRef]:
    """Order: what a pod waits for, then what is under way, then new ones, then what was evicted."""
    return (one.model not in used, not one.started, one.evicted, one.model)


def _decide(one: Wanted, disk: _Disk, needed: bool, sizes_open: bool) -> tuple[list[Evict], Action]:
    if one.model in disk.copies:
        return [], Wait(one.model, "Workers here still use earlier weights of this name; fetched when they end.")
    if one.evicted and not needed:
        return [], _come_back(one, disk, sizes_open)
    if one.total_bytes is None and one.partial_bytes == 0:
        return [], Fetch(one.model)
    if one.least_bytes > disk.budget.size_bytes:
        return [], Refuse(
            one.model,
            f"Model '{one.model}' has {one.size_text}; the whole cache of this node may have"
            f" {disk.budget.text}. {disk.budget.remedy}",
        )
    evictions = disk.make_room(one)
    if evictions is None:
        return [], Refuse(one.model, disk.full_text(one))
    disk.reserve(one.least_bytes)
    return evictions, Fetch(one.model)


def _come_back(one: Wanted, disk: _Disk, sizes_open: bool) -> Action:
    begun = one.started or one.partial_bytes > 0
    if one.total_bytes is not None and (begun or not sizes_open) and one.total_bytes <= disk.free_bytes:
        disk.reserve(one.total_bytes)
        return Fetch(one.model)
    size = "its size" if one.total_bytes is None else bytes_text(one.total_bytes)
    return Hold(one.model, f"Evicted to make room; comes back when a worker on this node needs it or {size} is free.")


class _Disk:
    """The room on the node while one plan is made. Lives no longer than `plan`."""

    def __init__(self, copies: Iterable[Copy], used: AbstractSet[ModelRef], budget: Budget) -> None:
        self.copies: Mapping[ModelRef, Copy] = {copy.model: copy for copy in copies}
        self.budget = budget
        self._used = used
        self._taken_bytes = sum(copy.size_bytes for copy in self.copies.values())
        self._idle = sorted(
            (copy for copy in self.copies.values() if copy.model not in used),
            key=lambda copy: (copy.last_used_s, copy.model),
        )

    @property
    def free_bytes(self) -> int:
        return self.budget.size_bytes - self._taken_bytes

    def reserve(self, size_bytes: int) -> None:
        self._taken_bytes += size_bytes

    def shrink(self) -> list[Evict]:
        """Evict what does not fit into the budget any more."""
        evicted = []
        while self.free_bytes < 0 and self._idle:
            copy = self._take_oldest()
            evicted.append(Evict(copy.model, f"The cache may have {self.budget.text} in all."))
        return evicted

    def make_room(self, wanted: Wanted) -> list[Evict] | None:
        """Evictions after which there is room for it, or None (and nothing evicted) when that cannot be."""
        if wanted.least_bytes > self.free_bytes + sum(copy.size_bytes for copy in self._idle):
            return None
        evicted = []
        while wanted.least_bytes > self.free_bytes:
            copy = self._take_oldest()
            reason = f"{bytes_text(copy.size_bytes)} made room for '{wanted.model}' ({wanted.size_text})."
            evicted.append(Evict(copy.model, reason))
        return evicted

    def full_text(self, wanted: Wanted) -> str:
        used = sorted(ref for ref in self.copies if ref in self._used)
        users = f", and workers on this node use {', '.join(map(str, used))}" if used else ""
        return (
            f"Model '{wanted.model}' needs {wanted.size_text}; {bytes_text(max(self.free_bytes, 0))} of the cache's"
            f" {self.budget.text} are free{users}. {self.budget.remedy}"
        )

    def _take_oldest(self) -> Copy:
        copy = self._idle.pop(0)
        self._taken_bytes -= copy.size_bytes
        return copy
