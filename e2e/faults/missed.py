"""Missed events: one event of a watch is lost on every stream, or its stream breaks, expires or falls silent there."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from e2e.faults.proxy import Answer, Call, Event, Fault, Severed, refused


class Loss(StrEnum):
    """What becomes of the event."""

    DROPPED = "dropped"
    EXPIRED = "410 on the reopened stream"
    STALLED = "silent stream"


@dataclass(frozen=True, order=True)
class Seen:
    """One event of the story, told apart from others in a way that does not depend on their order."""

    stage: str
    resource: str
    type: str
    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.stage}: {self.type} {self.resource} {self.name} #{self.nth + 1}"


class Listening(Fault):
    """Notes the events of an undisturbed run; two streams of the same objects count once."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._known: dict[tuple[str, str], Seen] = {}
        self._counts: Counter[tuple[str, str, str, str]] = Counter()

    async def event(self, call: Call, event: Event) -> Event | None:
        self.note(call, event)
        return event

    def note(self, call: Call, event: Event) -> Seen | None:
        """Which event it is; None for bookmarks and errors."""
        if event["type"] in ("BOOKMARK", "ERROR"):
            return None
        meta = event["object"]["metadata"]
        once = call.resource, f"{event['type']} {meta['resourceVersion']}"
        if once not in self._known:
            what = self.stage, call.resource, str(event["type"]), str(meta["name"])
            self._known[once] = Seen(*what, self._counts[what])
            self._counts[what] += 1
            self.seen.append(self._known[once])
        return self._known[once]


class Missing(Listening):
    """Loses one of them."""

    def __init__(self, wanted: Seen, loss: Loss) -> None:
        super().__init__()
        self._wanted, self._loss, self.awaited = wanted, loss, wanted.stage
        self._expired: set[str] = set()
        self._hit = False

    async def open(self, call: Call) -> Call | Answer:
        if call.resource in self._expired:
            self._expired.discard(call.resource)
            return refused(410, "Expired")
        return call

    async def event(self, call: Call, event: Event) -> Event | None:
        if self.note(call, event) != self._wanted:
            return event
        self.met = True
        if self._loss is Loss.DROPPED:
            return None
        if self._loss is Loss.STALLED:
            await asyncio.Event().wait()  # Until the operator gives the stream up.
        if self._hit:
            return event
        self._hit = True
        self._expired.add(call.resource)
        raise Severed
