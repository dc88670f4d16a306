"""What a reconciler is, and what it hands to the runtime. Everything else in this folder is the runtime's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client.registry import Collector

from kube.informer import Informer
from kube.resources import Object


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object to look at. `namespace` is None for cluster-scoped kinds.

    A key says nothing about what happened: reconcilers read the caches.
    """

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Key:
        """The key of an object as JSON."""
        meta = obj["metadata"]
        return cls(str(obj["kind"]), meta.get("namespace"), meta["name"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconcile wants next: nothing (an event or the resync will wake it), or a look after a while."""

    requeue_after_s: float | None = None


class Reconciler(Protocol):
    """Brings one object to what it declares. Level-triggered: called for any reason, any number of times.

    An exception is logged once with the object, and the key is retried with growing delays. An object that is gone
    is an ordinary case: clean up what no owner reference does, and return `Outcome()`.
    """

    @property
    def kind(self) -> str:
        """`kind` of the keys that come here."""
        ...

    async def reconcile(self, key: Key) -> Outcome:
        """Never called twice at once for one key."""
        ...


class Marker(Protocol):
    """The side of the queue that informer listeners use."""

    def add(self, key: Key) -> None:
        """Look at `key` soon. Adding a key that waits already changes nothing."""
        ...

    def add_after(self, key: Key, delay_s: float) -> None:
        """Look at `key` after a while; the earliest of several delays wins."""
        ...


@dataclass(frozen=True, slots=True)
class Background:
    """A loop of a reconciler's own (a prober, a scraper), run only while leading.

    It must not return; whatever ends it ends the process, with its name in the line.
    """

    name: str
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Page:
    """A read-only page of the admin port: `answer` gets the parts of `path` in braces and the query."""

    path: str
    content_type: str
    answer: Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[str]]
    """Raises ValueError, with a sentence, for a query that makes no sense."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hook answers."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Hook:
    """A path of the admin port that takes what others post: at most `most_bytes`, of those whom `refuse` lets by."""

    path: str
    most_bytes: int
    refuse: Callable[[Mapping[str, str]], Awaitable[Answer | None]]
    """By the headers, before any of the body is read; None for one who may send."""
    answer: Callable[[bytes], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Assembly:
    """All that the runtime runs."""

    owned: Mapping[str, Informer[Object]]
    """Informer of each kind of ours, by kind. A kind with a reconciler has every object looked at at start, at every
    change and at resync; the runtime connects that."""
    children: Sequence[Informer[Any]]
    """Informers of everything else. No reconcile starts before all informers are synced."""
    reconcilers: Sequence[Reconciler]
    background: Sequence[Background] = field(default_factory=tuple)
    always: Sequence[Background] = field(default_factory=tuple)
    """Loops that run in standbys too: they write nothing to the cluster."""
    pages: Sequence[Page] = field(default_factory=tuple)
    """More pages of the admin port."""
    hooks: Sequence[Hook] = field(default_factory=tuple)
    """What the admin port takes."""
    collectors: Sequence[Collector] = field(default_factory=tuple)
    """More of the metrics page."""
