"""A cache that follows one resource of the API server: paged list, then watch, for ever.

Holds only what `keep` returns. Serves what it holds while the server is away. Never ends because of an answer: a broken
stream is resumed, a version too old is listed again, a refusal (403, 404) is tried again slowly and stays visible in
`last_error`. All is listed again once in a while, for an event that never came; every list is compared with what is
held, so objects that vanished unseen are reported as deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from kube.api import Api, EventKind, WatchEvent
from kube.backoff import Backoff
from kube.errors import AnswerError, Forbidden, Gone, Invalid, KubeError, NotFound
from kube.resources import Object, Resource
from kube.store import Change, ChangeKind, Index, Place, Store

__all__ = ["Change", "ChangeKind", "Index", "Informer", "lean"]

T = TypeVar("T")
log = logging.getLogger(__name__)

INACTIVITY_TIMEOUT_S: Final = 20.0
RECONNECT: Final = Backoff(first_s=0.1, factor=1.6, most_s=2.0)
REFUSED: Final = Backoff(first_s=1.0, factor=2.0, most_s=15.0)
"""For answers that will not change by themselves soon: no permission, no such kind."""
ABSENT: Final = Backoff(first_s=5.0, factor=2.0, most_s=60.0)
"""Between looks for a kind that a cluster may do without."""
SHORT_STREAM_S: Final = 1.0
"""A stream that the server ends sooner than this counts as a failure, so that it is not reopened in a busy loop."""
FAILED_RESUMES_BEFORE_LIST: Final = 5
"""Answers refusing one resume point before it is given up: a restored etcd may never reach that version again."""


def lean(obj: Object) -> Object:
    """The object without what no plan reads: managed fields and kubectl's copy of the manifest."""
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    annotations = meta.get("annotations")
    if annotations and _KUBECTL_COPY in annotations:
        meta["annotations"] = {key: value for key, value in annotations.items() if key != _KUBECTL_COPY}
    return {**obj, "metadata": meta}


_KUBECTL_COPY: Final = "kubectl.kubernetes.io/last-applied-configuration"


class Informer(Generic[T]):
    """One resource, followed. Construct, `on_change`, then `run()` as a task; `synced` tells when reads are complete.

    All methods but `run` are synchronous and must be called in the loop that runs it.
    """

    def __init__(
        self,
        client: Api,
        resource: Resource,
        keep: Callable[[Object], T | None],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        index: Mapping[str, Index[T]] | None = None,
        optional: bool = False,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """`keep` gets the whole object (its `apiVersion` and `kind` filled in) and returns what to hold, or None.

        `index` maps a name to a function giving the keys a value is found under: `by("by_service", "demo/chat")`.
        `optional`: a kind that the cluster need not know. While it does not, nothing is held and `present` is false;
        it is looked for now and then.
        """
        self.resource = resource
        self.namespace = namespace
        self.synced = asyncio.Event()
        self.last_error: KubeError | None = None
        self.present = not optional
        """Whether the API server serves the kind."""
        self.lists = self.failures = 0
        self._client = client
        self._label_selector, self._field_selector = label_selector, field_selector
        self._store: Store[T] = Store(keep, index or {})
        self._listeners: list[Callable[[Change[T]], None]] = []
        self._optional = optional
        self._presence_listeners: list[Callable[[], None]] = []
        self._clock, self._rng = clock, rng or random.Random()
        self._resume_at: str | None = None
        self._stream: asyncio.Timeout | None = None
        self._listed = asyncio.Event()
        self._relist_s: float | None = None
        self._relist_at_s = 0.0
        self._failures_in_a_row = self._gone_in_a_row = 0
        self._heard_at_s = self._beat_at_s = clock()

    # --- reading ---------------------------------------------------------------------------------------------
    def get(self, namespace: str | None, name: str) -> T | None:
        """The projection of one object, or None; `namespace` is None for cluster-scoped resources."""
        return self._store.get((namespace, name))

    def items(self) -> list[T]:
        """All projections."""
        return self._store.items()

    def places(self) -> list[Place]:
        """(namespace, name) of every object held."""
        return self._store.places()

    def by(self, index: str, key: str) -> list[T]:
        """All projections with `key` in the named index. Raises KeyError for an index that was not declared."""
        return self._store.by(index, key)

    def holds_version(self, namespace: str | None, name: str, resource_version: str) -> bool:
        """Whether exactly this version of the object is held."""
        return self._store.holds_version((namespace, name), resource_version)

    def __len__(self) -> int:
        return len(self._store)

    @property
    def name(self) -> str:
        """What it follows, in words: `pods`, `secrets in foretide-system where foretide.dev/api-key=true`."""
        selectors = [one for one in (self._label_selector, self._field_selector) if one]
        what = self.resource.describe(self.namespace)
        return f"{what} where {', '.join(selectors)}" if selectors else what

    @property
    def age_s(self) -> float:
        """Seconds since the server last said anything good here: a page, an event, a bookmark, an opened stream."""
        return self._clock() - self._heard_at_s

    @property
    def stalled_s(self) -> float:
        """Seconds since this informer last did anything, failed attempts included. Large means a bug, not an outage."""
        return self._clock() - self._beat_at_s

    def on_change(self, listener: Callable[[Change[T]], None]) -> None:
        """Call `listener` for every change, in the loop, after the store has it. Register before `run`.

        Changes that the projection does not show are not reported.
        """
        self._listeners.append(listener)

    def on_presence(self, listener: Callable[[], None]) -> None:
        """Call `listener` when an optional kind comes or goes. Register before `run`."""
        self._presence_listeners.append(listener)

    # --- following -------------------------------------------------------------------------------------------
    async def run(self, relist_s: float | None = None) -> None:
        """Follow until cancelled. With `relist_s` all is listed anew about so often, whatever the watch says."""
        self._relist_s = relist_s
        while True:
            try:
                await self._follow()
            except Gone as gone:
                log.info("%s", gone)
                self._resume_at = None
                await self._wait_after_gone()
            except NotFound as error:
                if self._optional:
                    await self._wait_until_present()
                else:
                    await self._wait_after(error)
            except KubeError as error:
                await self._wait_after(error)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                log.exception("Following %s: an answer made no sense.", self.name)
                self._resume_at = None
                await self._wait_after(KubeError(f"An answer made no sense ({error!r}); all is listed again."))

    async def renew(self) -> None:
        """Returns when all was listed anew: a stream may be late, or dead without anybody having noticed."""
        if not self.present:
            return  # There is nothing to list, and it is looked for anyway.
        self._listed.clear()
        self._resume_at = None
        if self._stream is not None and not self._stream.expired():
            self._stream.reschedule(asyncio.get_running_loop().time())
        await self._listed.wait()

    async def _follow(self) -> None:
        if self._resume_at is None:
            await self._list()
        opened_at_s = self._clock()
        stream = self._client.watch(
            self.resource,
            self.namespace,
            resource_version=self._resume_at or "",
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            inactivity_timeout_s=INACTIVITY_TIMEOUT_S,
        )
        try:
            async with asyncio.timeout(self._until_list_s()) as self._stream, contextlib.aclosing(stream) as events:
                async for event in events:
                    self._heard()
                    self._take(event)
        except TimeoutError:
            self._resume_at = None
            return
        finally:
            self._stream = None
        self._beat_at_s = self._clock()  # Not heard: silence ends a stream too.
        if self._clock() - opened_at_s < SHORT_STREAM_S:
            await self._pause(RECONNECT)
        else:
            self._failures_in_a_row = self._gone_in_a_row = 0

    def _until_list_s(self) -> float | None:
        return None if self._relist_s is None else max(0.0, self._relist_at_s - self._clock())

    async def _list(self) -> None:
        seen: set[Place] = set()
        version = ""
        async for page in self._client.pages(
            self.resource,
            self.namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            self._heard()
            version = page.resource_version
            for obj in page.items:
                seen.add(_place(obj))
                self._put(obj)
        self._tell(self._store.drop_all_but(seen))
        self._resume_at = version
        # Spread, or all caches of all operators would ask at once.
        self._relist_at_s = self._clock() + (self._relist_s or 0.0) * self._rng.uniform(0.8, 1.2)
        self.lists += 1
        self._failures_in_a_row = 0
        self._set_present(True)
        self._listed.set()
        self.synced.set()

    async def _wait_until_present(self) -> None:
        """The server does not know the kind: an answer as good as an empty list."""
        self._heard()
        self._resume_at = None
        self._tell(self._store.drop_all_but(set()))
        self._set_present(False)
        self._listed.set()
        self.synced.set()
        await self._pause(ABSENT)

    def _set_present(self, present: bool) -> None:
        if present is not self.present:
            self.present = present
            log.info("The cluster %s %s.", "serves" if present else "does not serve", self.resource.collection)
            for listener in self._presence_listeners:
                listener()

    def _take(self, event: WatchEvent) -> None:
        if event.kind is not EventKind.BOOKMARK:
            if event.kind is EventKind.DELETED:
                self._tell(self._store.drop(_place(event.obj)))
            else:
                self._put(event.obj)
            self._failures_in_a_row = self._gone_in_a_row = 0
        self._resume_at = event.resource_version

    def _put(self, obj: Object) -> None:
        try:
            changes = self._store.put(obj)
        except Exception:  # One object that a projection or an index cannot read must not stop all others.
            log.exception("%s cannot be read; it is left out.", self.resource.describe(*_place(obj)))
            changes = self._store.drop(_place(obj))
        self._tell(changes)

    def _tell(self, changes: list[Change[T]]) -> None:
        for change in changes:
            for listener in self._listeners:
                try:
                    listener(change)
                except Exception:  # A mistake of a listener must not stop the cache that others read.
                    log.exception("A listener failed on %s.", self.resource.describe(change.namespace, change.name))

    def _heard(self) -> None:
        self._heard_at_s = self._beat_at_s = self._clock()
        self.last_error = None

    async def _wait_after_gone(self) -> None:
        """Not the first time; a list that is too old itself is as good as a refusal."""
        self._gone_in_a_row += 1
        if self._gone_in_a_row > 1:
            self._failures_in_a_row = self._gone_in_a_row - 2  # Each list between them was no failure.
            await self._pause(REFUSED)

    async def _wait_after(self, error: KubeError) -> None:
        self.last_error = error
        refused = isinstance(error, Forbidden | NotFound | Invalid)
        if self._failures_in_a_row == 0 or refused:
            log.warning("Following %s: %s", self.name, error)
        answered = isinstance(error, AnswerError)
        await self._pause(REFUSED if refused else RECONNECT, error)
        if answered and self._failures_in_a_row >= FAILED_RESUMES_BEFORE_LIST:
            self._resume_at = None

    async def _pause(self, backoff: Backoff, error: KubeError | None = None) -> None:
        self.failures += 1
        self._failures_in_a_row += 1
        self._beat_at_s = self._clock()
        delay_s = backoff.delay_s(self._failures_in_a_row, self._rng)
        asked_s = error.retry_after_s if isinstance(error, AnswerError) else None
        await asyncio.sleep(max(delay_s, min(asked_s or 0.0, REFUSED.most_s)))


def _place(obj: Object) -> Place:
    meta = obj["metadata"]
    return meta.get("namespace"), meta["name"]
