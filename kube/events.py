"""Events (events.k8s.io/v1) about objects, for people who run `kubectl describe`.

The same object, reason and message within the window become one Event with a growing `series`. Recording is
synchronous, never waits and never raises; writing happens in `run()`, at a bounded rate; a failure is logged and
forgotten. Events are for people: no decision may ever depend on one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from kube.api import Api
from kube.errors import KubeError, NotFound
from kube.resources import EVENTS, Object

log = logging.getLogger(__name__)

WINDOW_S: Final = 360.0
"""An Event not repeated for this long is a new Event the next time."""
SERIES_PERIOD_S: Final = 30.0
"""A growing count is written this often at most: one write for a burst of repeats."""
MIN_INTERVAL_S: Final = 0.05
"""Between two writes: 20 Events a second at most."""
MAX_TRACKED: Final = 4096
MAX_NOTE: Final = 1024
"""Bytes of `note` that the server accepts."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What makes two records the same Event."""

    api_version: str
    kind: str
    namespace: str | None
    name: str
    uid: str
    type: str
    reason: str
    action: str
    note: str

    @property
    def event_namespace(self) -> str:
        return self.namespace or "default"  # Where the server wants Events about cluster-scoped objects.

    def regarding(self) -> Object:
        found = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }
        return {key: value for key, value in found.items() if value}


@dataclass(slots=True)
class _Tracked:
    first_at: datetime
    last_at: datetime
    last_seen_s: float
    count: int = 1
    written_count: int = 0
    written_at_s: float = field(default=float("-inf"))
    event_name: str = ""

    def is_due(self, now_s: float) -> bool:
        if self.count == self.written_count:
            return False
        return not self.event_name or now_s - self.written_at_s >= SERIES_PERIOD_S


class Recorder:
    """Records transitions. `controller` and `instance` say who reports (`foretide.dev/operator`, the pod's name)."""

    def __init__(
        self,
        client: Api,
        *,
        controller: str,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.dropped = 0
        """Events that nobody was told of: more than are tracked at once, or refused by the API server."""
        self._client, self._controller, self._instance = client, controller, instance
        self._clock, self._wall_clock = clock, wall_clock
        self._tracked: dict[_Subject, _Tracked] = {}
        self._news = asyncio.Event()

    def normal(self, regarding: Mapping[str, Any], reason: str, message: str, *, action: str = "Reconcile") -> None:
        """Something went as it should: `regarding` is the object (its apiVersion, kind and metadata are read)."""
        self._record("Normal", regarding, reason, message, action)

    def warning(self, regarding: Mapping[str, Any], reason: str, message: str, *, action: str = "Reconcile") -> None:
        """Something a person may have to act on."""
        self._record("Warning", regarding, reason, message, action)

    async def run(self) -> None:
        """Write what was recorded, until cancelled."""
        while True:
            self._news.clear()
            for subject, tracked in list(self._tracked.items()):
                if tracked.is_due(self._clock()):
                    await self._write(subject, tracked)
                    await asyncio.sleep(MIN_INTERVAL_S)
            self._forget_old()
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        pending = any(one.count != one.written_count for one in self._tracked.values())
        try:
            await asyncio.wait_for(self._news.wait(), SERIES_PERIOD_S / 10 if pending else WINDOW_S / 2)
        except TimeoutError:
            return  # Time to write a series that has grown, or to forget.

    def _record(self, type_: str, regarding: Mapping[str, Any], reason: str, message: str, action: str) -> None:
        meta = regarding["metadata"]
        note = message.encode()[:MAX_NOTE].decode("utf-8", "ignore")
        subject = _Subject(
            str(regarding["apiVersion"]),
            str(regarding["kind"]),
            meta.get("namespace"),
            meta["name"],
            str(meta.get("uid", "")),
            type_,
            reason,
            action,
            note,
        )
        tracked = self._tracked.get(subject)
        if tracked is not None and self._clock() - tracked.last_seen_s < WINDOW_S:
            tracked.count += 1
            tracked.last_at, tracked.last_seen_s = self._wall_clock(), self._clock()
        elif len(self._tracked) >= MAX_TRACKED:
            self.dropped += 1
            return
        else:
            self._tracked[subject] = _Tracked(self._wall_clock(), self._wall_clock(), self._clock())
        if self._tracked[subject].is_due(self._clock()):
            self._news.set()

    def _forget_old(self) -> None:
        now_s = self._clock()
        for subject in [key for key, one in self._tracked.items() if now_s - one.last_seen_s >= WINDOW_S]:
            del self._tracked[subject]

    async def _write(self, subject: _Subject, tracked: _Tracked) -> None:
        count, tracked.written_at_s = tracked.count, self._clock()
        try:
            if not await self._write_series(subject, tracked):
                tracked.event_name = _event_name(subject, tracked.first_at)
                await self._client.create(EVENTS, self._event(subject, tracked))
        except KubeError as error:
            self.dropped += 1
            log.warning("Event %s about %s %s was not written: %s", subject.reason, subject.kind, subject.name, error)
        tracked.written_count = count

    async def _write_series(self, subject: _Subject, tracked: _Tracked) -> bool:
        if not tracked.event_name:
            return False
        series = {"count": tracked.count, "lastObservedTime": _micro(tracked.last_at)}
        try:
            await self._client.merge_patch(EVENTS, subject.event_namespace, tracked.event_name, {"series": series})
        except NotFound:
            return False  # It outlived its retention; a new one says the same.
        return True

    def _event(self, subject: _Subject, tracked: _Tracked) -> Object:
        event = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"namespace": subject.event_namespace, "name": tracked.event_name},
            "eventTime": _micro(tracked.first_at),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "regarding": subject.regarding(),
            "type": subject.type,
            "reason": subject.reason,
            "action": subject.action,
            "note": subject.note,
        }
        if tracked.count > 1:
            event["series"] = {"count": tracked.count, "lastObservedTime": _micro(tracked.last_at)}
        return event


def _event_name(subject: _Subject, first_at: datetime) -> str:
    parts = (subject.uid, subject.type, subject.reason, subject.action, subject.note, _micro(first_at))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return f"{subject.name[:200]}.{digest}"


def _micro(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
