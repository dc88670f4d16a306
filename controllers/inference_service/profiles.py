"""Asks an idle worker to measure itself where nobody knows yet how fast such workers are. One answer serves all alike.

A worker that is asked something meanwhile lets its client go first and refuses; it is asked again later. What was
measured goes into the Model's status, which outlives this process; old answers are measured anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from controllers.inference_service.admin_ports import AdminPorts
from controllers.plans.capacity import accelerator_text
from controllers.plans.snapshot import Snapshot
from controllers.plans.times import rfc3339
from controllers.runtime.interface import Key, Marker
from crds.model import MeasuredProfile
from kube.resources import MODELS

log = logging.getLogger(__name__)

AT_ONCE: Final = 4
AGAIN_S: Final = 60.0
"""After a refusal."""
GOOD_FOR: Final = timedelta(days=7)
"""A new release of the worker or another driver may have changed it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Workers that are alike: a Model on an accelerator."""

    namespace: str
    model: str
    uid: str
    accelerator: str


class ProfileBoard:
    """`offer` a service as it was seen; `measured` tells what came of it."""

    def __init__(
        self, ports: AdminPorts, queue: Marker, clock: Callable[[], float], wall_clock: Callable[[], datetime]
    ) -> None:
        self._ports, self._queue, self._clock, self._wall_clock = ports, queue, clock, wall_clock
        self._asked: asyncio.Queue[tuple[Subject, str]] = asyncio.Queue()
        self._waiting: set[Subject] = set()
        """Asked for and not answered yet: their turn may come late."""
        self._not_before: dict[Subject, float] = {}
        self._measured: dict[Subject, MeasuredProfile] = {}

    def measured(self, uid: str) -> list[MeasuredProfile]:
        """Of the Model with that uid, what its status may not have yet."""
        return [profile for subject, profile in self._measured.items() if subject.uid == uid]

    def forget(self, uid: str) -> None:
        """The Model is gone."""
        self._measured = {subject: one for subject, one in self._measured.items() if subject.uid != uid}
        self._not_before = {subject: at_s for subject, at_s in self._not_before.items() if subject.uid != uid}

    def offer(self, seen: Snapshot) -> None:
        """Have one of its workers measured, if one is idle and it is time."""
        if seen.spec.scaling is None or seen.deleting or seen.model is None:
            return
        subject = Subject(seen.namespace, seen.model.name, seen.model.uid, accelerator_text(seen.spec.accelerator))
        if self._is_fresh(seen.known.profile):
            self._measured.pop(subject, None)
            self._not_before.pop(subject, None)
            return
        if subject in self._waiting or self._clock() < self._not_before.get(subject, 0.0):
            return
        address = idle_worker(seen)
        if address is not None:
            self._waiting.add(subject)
            self._asked.put_nowait((subject, address))

    def _is_fresh(self, known: MeasuredProfile | None) -> bool:
        return known is not None and self._wall_clock() - datetime.fromisoformat(known.measured) < GOOD_FOR

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._ask(), name=f"profiles {number}")

    async def _ask(self) -> None:
        while True:
            subject, address = await self._asked.get()
            profile = await self._ports.worker_profile(address)
            self._waiting.discard(subject)
            self._not_before[subject] = self._clock() + AGAIN_S
            if profile is None:
                log.debug("%s did not measure itself: busy, gone, or of a release that cannot.", address)
                continue
            now = rfc3339(self._wall_clock().timestamp())
            found = self._measured[subject] = profile.of(subject.accelerator, now)
            log.info("%s/%s on %s was measured: %s", subject.namespace, subject.model, subject.accelerator, found)
            self._queue.add(Key(MODELS.kind, subject.namespace, subject.model))


def idle_worker(seen: Snapshot) -> str | None:
    """Address of a ready worker of the present revision that has just said that it holds nothing.

    One of an earlier revision may run on another accelerator, and its speed would be told as this one's.
    """
    for worker in sorted(seen.workers, key=lambda one: one.name):
        load = seen.loads.get(worker.name)
        present = worker.name in seen.ready_workers and worker.revision == seen.status.current_revision
        if present and worker.ip and load is not None and not load.requests:
            return worker.ip
    return None
