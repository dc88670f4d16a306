"""Runs a campaign: the faults that hit everybody, then lanes side by side, each watched until the fleet is whole again.

Every finished fault is a line in a file at once, so an interrupted campaign goes on where it stopped. The fleet is
never helped while a fault is judged. A service that does not come back within the limit counts as not healed; only then
are its workers replaced by hand, so that the next fault finds a whole one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from e2e.chaos.faults import OF_WORKERS
from e2e.chaos.faults_wide import OF_THE_REST
from e2e.chaos.ground import HOME, N_WORKERS, Ground
from e2e.chaos.outcomes import LIMIT_S, Asked, Outcome, Quiet, append, flows, line, lost, moved_after_s, troubles
from e2e.chaos.probes import Probe, settled
from e2e.chaos.scene import Scene
from e2e.chaos.schedule import Fault, Place, Promise
from e2e.chaos.signs import Sign, first
from e2e.chaos.watch import Onlooker
from e2e.cluster.errors import ClusterError
from kube.client import Client
from kube.errors import KubeError
from kube.resources import PODS

INJECT: Final = OF_WORKERS | OF_THE_REST
LOOK_EVERY_S: Final = 0.1
CALM_LIMIT_S: Final = 240.0
CALM_FOR_S: Final = 3.0
"""How long a service must be whole before a fault is put into it."""
LAST_ANSWERS_S: Final = 15.0


@dataclass
class Campaign:
    """One run. `say` gets a line for each fault."""

    ground: Ground
    onlooker: Onlooker
    client: Client
    probes: dict[str, Probe]
    """By service."""
    out: Path
    say: Callable[[str], None]
    _nodes: asyncio.Lock = field(default_factory=asyncio.Lock)
    _calm_since: dict[str, float] = field(default_factory=dict)
    """By service: from when on nothing should happen to it."""

    async def run(self, faults: Sequence[Fault]) -> None:
        """All of them; those in one lane one after the other."""
        await self._lane([fault for fault in faults if fault.kind.place is not Place.LANE])
        side_by_side = [fault for fault in faults if fault.kind.place is Place.LANE]
        async with asyncio.TaskGroup() as lanes:
            for service in dict.fromkeys(fault.service for fault in side_by_side):
                lanes.create_task(self._lane([fault for fault in side_by_side if fault.service == service]))

    async def quiet(self, for_s: float) -> Quiet:
        """Looks on for a while, and does nothing."""
        services = list(self.probes)
        await self._calm(services)
        began_s = time.monotonic()
        self._take(services, began_s)
        await asyncio.sleep(for_s)
        ended_s = time.monotonic()
        await settled(list(self.probes.values()), LAST_ANSWERS_S)
        wrong = _told(one for one in self.onlooker.signs if one.action and began_s <= one.at_s <= ended_s)
        taken = self._take(services, ended_s)
        found = Quiet(_utc(), for_s, len(services), lost(taken), wrong, troubles(taken))
        append(self.out, found)
        self.say(f"quiet for {for_s:.0f} s: {len(wrong)} actions, {found.took.lost} of {found.took.requests} lost")
        return found

    async def _lane(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            services = [fault.service] if fault.kind.place is Place.LANE else list(self.probes)
            try:
                await self._one(fault, services)
            except (ClusterError, KubeError) as absent:
                self.say(f"{fault.number:>3} {fault.kind.name:<22} not injected: {absent}")

    async def _one(self, fault: Fault, services: Sequence[str]) -> None:
        note = await self._calm(services)
        await self._refresh(fault.service)
        scene = Scene(
            fault,
            self.ground,
            self.onlooker,
            self.client,
            self._nodes,
            fault.chance(),
            calm_since_s=self._since(services),
        )
        async with INJECT[fault.kind.name](scene):
            back_at_s = await self._whole_again(scene, services)
            await settled([self.probes[service] for service in services], LAST_ANSWERS_S)
            outcome = self._judged(scene, services, back_at_s, note)
        append(self.out, outcome)
        self.say(line(outcome))

    # --- waiting ----------------------------------------------------------------------------------------------------
    async def _calm(self, services: Sequence[str]) -> str:
        """Until they are whole and their requests flow. What had to be done for that, if it took too long."""
        note = ""
        for service in services:
            if not await self._calm_one(service):
                note = f"{service} was repaired by hand before this fault"
                self.say(f"    {note}")
                await self._repair(service)
                if not await self._calm_one(service):
                    raise RuntimeError(f"Service {HOME}/{service} does not become whole, not even with new workers.")
        return note

    async def _calm_one(self, service: str) -> bool:
        began_s = time.monotonic()
        whole_since_s: float | None = None
        while (now_s := time.monotonic()) < began_s + CALM_LIMIT_S:
            asked = self.probes[service].asked
            if not (self._stands(service) and flows(asked, began_s, now_s)):
                whole_since_s = None
            elif whole_since_s is None:
                whole_since_s = now_s
            elif now_s - whole_since_s > CALM_FOR_S:
                if self._calm_since.get(service, 0.0) < began_s:
                    self._calm_since[service] = now_s
                return True
            await asyncio.sleep(LOOK_EVERY_S)
        return False

    def _stands(self, service: str) -> bool:
        look = self.onlooker.services.get(HOME, service)
        seen = look is not None and look.observed == look.generation and look.phase in ("", "Stable")
        return seen and self.onlooker.whole(service, N_WORKERS)

    async def _whole_again(self, scene: Scene, services: Sequence[str]) -> float | None:
        """When everything had become whole again; None when it was not in time."""
        deadline_s = (scene.until_s or scene.since_s) + LIMIT_S
        whole_since_s: float | None = None
        while (now_s := time.monotonic()) < deadline_s:
            if not (scene.gone() and all(self.onlooker.whole(one, N_WORKERS) for one in services)):
                whole_since_s = None
            elif whole_since_s is None:
                whole_since_s = now_s
            elif all(flows(self.probes[one].asked, scene.since_s, now_s) for one in services):
                return whole_since_s
            await asyncio.sleep(LOOK_EVERY_S)
        return None

    async def _refresh(self, service: str) -> None:
        """A worker that was never restarted, where there is none: else a fault pays for those before it, since the
        kubelet lets a container wait longer with each restart."""
        workers = self.onlooker.workers(service)
        if workers and all(pod.restarts for pod in workers):
            await self.client.delete(PODS, HOME, workers[0].name)
            self._calm_since.pop(service, None)
            await self._calm([service])

    async def _repair(self, service: str) -> None:
        await asyncio.to_thread(self.ground.apply, service)
        for pod in self.onlooker.workers(service):
            await self.client.delete(PODS, HOME, pod.name, grace_period_s=0)

    # --- judging ----------------------------------------------------------------------------------------------------
    def _since(self, services: Sequence[str]) -> float:
        return max(self._calm_since[service] for service in services)

    def _judged(self, scene: Scene, services: Sequence[str], back_at_s: float | None, note: str) -> Outcome:
        moves = [moved_after_s(self.probes[one].asked, scene.since_s) for one in services]
        moved_s = None if None in moves else max(one for one in moves if one is not None)
        found = first(list(self._showing(scene)), scene.since_s)
        lasted_s = 0.0 if scene.until_s is None else scene.until_s - scene.since_s
        back_s = None
        if back_at_s is not None and moved_s is not None:
            back_s = max(0.0, back_at_s - scene.since_s - lasted_s, moved_s - lasted_s)
        wrong = _told(one for one in self.onlooker.signs if one.action and wrong_action(one, scene, services))
        taken = self._take(services, time.monotonic())
        for service in services:
            self._calm_since.pop(service, None)
        return Outcome(
            number=scene.fault.number,
            kind=scene.fault.kind.name,
            service=scene.service,
            target=scene.target,
            at=_utc(),
            detected_s=None if found is None else round(found.at_s - scene.since_s, 3),
            sign="" if found is None else f"{found.by.value}: {found.what}",
            moved_s=None if moved_s is None else round(moved_s, 3),
            back_s=None if back_s is None else round(back_s, 3),
            lasted_s=round(lasted_s, 3),
            healed=back_s is not None and back_s <= LIMIT_S,
            took=lost(taken),
            wrong=wrong,
            note=note,
            troubles=troubles(taken),
        )

    def _showing(self, scene: Scene) -> Iterable[Sign]:
        shows = scene.shows or (lambda sign: sign.service == scene.service)
        return (one for one in self.onlooker.signs if shows(one))

    def _take(self, services: Sequence[str], until_s: float) -> list[Asked]:
        return [one for service in services for one in self.probes[service].take(until_s)]


def wrong_action(sign: Sign, scene: Scene, services: Sequence[str]) -> bool:
    """Whether nobody had a reason for it: it came before the fault, or hit a worker that had none."""
    if sign.service not in services or sign.at_s < scene.calm_since_s:
        return False
    if sign.at_s < scene.since_s:
        return True
    if scene.fault.kind.promise is Promise.SURROUNDINGS:
        return True
    return sign.pod in scene.there and sign.pod not in scene.touched


def _told(signs: Iterable[Sign]) -> tuple[str, ...]:
    return tuple(f"{one.service} {one.by.value}: {one.pod} {one.what}".replace("  ", " ") for one in signs)


def _utc() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
