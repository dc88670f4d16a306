"""Stale reads: the operator begins with the view of an earlier moment, acts on it, and then sees the present.

As at an API server that lags behind: lists are answered as of that moment, and watches hold everything after it. What
stands meanwhile is younger than the view, objects made anew under old names among it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from e2e.faults.ground import Ground
from e2e.faults.proxy import Answer, Call, Event, Fault, Forward, at_version
from e2e.faults.story import STAGES, Story, reached, settled, until
from e2e.faults.telling import WORLD, clean, troubles
from e2e.faults.truth import State
from kube.resources import NAMESPACES, PODS

QUIET_S: Final = 1.5
ACTS_WITHIN_S: Final = 60.0
WATCHES: Final = 20
"""The operator has its first view when it has opened so many."""


class Frozen(Fault):
    """The view of one moment, until it is released."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._released = asyncio.Event()
        self.watches = 0
        self.deleted: list[str] = []
        """Uids of what the operator deleted while it saw the past."""

    async def meet(self, call: Call, forward: Forward) -> Answer:
        if call.verb == "list" and not self._released.is_set():
            return await forward(at_version(call, str(self._version)))
        answer = await forward(call)
        if call.verb == "delete" and answer.is_success and not self._released.is_set():
            self.met = True
            body = answer.json()
            self.deleted.append(str((body.get("details") or body.get("metadata") or {}).get("uid")))
        return answer

    async def open(self, call: Call) -> Call | Answer:
        self.watches += 1
        return call

    async def event(self, call: Call, event: Event) -> Event | None:
        if event["type"] != "ERROR" and int(event["object"]["metadata"]["resourceVersion"]) > self._version:
            await self._released.wait()
        return event

    def release(self) -> None:
        """The present is seen."""
        self._released.set()


@dataclass(frozen=True)
class Past:
    """A history with objects that went and came again."""

    state: State
    """In which it ended."""
    moments: list[int]
    """Versions of the whole store, oldest first."""


async def lived(ground: Ground) -> Past:
    """All of the story but its end; then everything is deleted, and declared again."""
    moments: list[int] = []
    watching = asyncio.create_task(_note(ground, moments))
    try:
        for stage in STAGES:
            await Story(WORLD).go(ground, stage)
            await settled(ground, WORLD)
        await Story(WORLD).go(ground, "declared")
        await settled(ground, WORLD)
    finally:
        watching.cancel()
    return Past(ground.truth.state(WORLD), sorted(set(moments)))


async def _note(ground: Ground, moments: list[int]) -> None:
    """The version of the whole store, as often as something changes."""
    seen = -1
    while True:
        if ground.truth.changes != seen:
            seen = ground.truth.changes
            moments.append(await version(ground))
        await asyncio.sleep(0.05)


async def version(ground: Ground) -> int:
    """Of the whole store, now."""
    async for page in ground.client.pages(NAMESPACES, limit=1):
        return int(page.resource_version)
    raise LookupError("The API server lists no page of namespaces.")


async def travelled(ground: Ground, past: Past, moment: int, within_s: float) -> tuple[list[str], dict[str, float]]:
    """Begin at that moment, act, and see the present: what was wrong, and what was counted."""
    workers = {one["metadata"]["uid"] for one in ground.truth.of(WORLD, PODS)}
    ended, log, writes = len(ground.lives.ended), ground.lives.log_bytes(), len(ground.proxy.writes)
    ground.lives.kill()
    frozen = Frozen(moment)
    with ground.fault(frozen):
        await ground.lives.begin()
        await until(lambda: frozen.watches >= WATCHES, ACTS_WITHIN_S)
        await _acted(ground.proxy.writes.__len__)
        acts = len(ground.proxy.writes) - writes
        frozen.release()
        wrong = await reached(ground, WORLD, past.state, within_s)
    born = ground.truth.born
    young = [uid for uid in frozen.deleted if uid in born and born[uid].version > moment]
    wrong += [f"deleted {born[uid].what}, which its view did not have" for uid in young]
    lost = workers - {one["metadata"]["uid"] for one in ground.truth.of(WORLD, PODS)}
    wrong += [f"{len(lost)} of {len(workers)} workers of the present were lost"] if lost else []
    wrong += troubles(ground, ended, log)
    if wrong:
        await clean(ground, WORLD)
    return wrong, {"writes on the old view": float(acts), "deletions on the old view": float(len(frozen.deleted))}


async def _acted(writes: Callable[[], int]) -> None:
    """No write for a while."""
    loop = asyncio.get_running_loop()
    seen, since_s, began_s = writes(), loop.time(), loop.time()
    while loop.time() - since_s < QUIET_S and loop.time() - began_s < ACTS_WITHIN_S:
        await asyncio.sleep(0.05)
        if writes() != seen:
            seen, since_s = writes(), loop.time()
