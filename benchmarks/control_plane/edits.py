"""From the moment a spec edit is sent until a watch shows that a Deployment follows it.

Edits come at fixed times whether or not earlier ones were followed, so that a slow subject cannot slow its own load.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.control_plane.fleet import ServiceName
from benchmarks.control_plane.scale import Scale
from benchmarks.control_plane.stand_in import Seen, StandIn
from kube.api import Api
from kube.informer import Change
from kube.resources import INFERENCE_SERVICES

GIVE_UP_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a spec, and how to see that a Deployment follows it."""

    service: ServiceName
    spec: dict[str, Any]
    is_followed_by: Callable[[Seen], bool]


@dataclass(slots=True)
class Latencies:
    """What edits took; an edit that was never followed took for ever."""

    ms: list[float] = field(default_factory=list)
    patch_ms: list[float] = field(default_factory=list)
    """The edit's own request, which is part of the former."""

    def quantile(self, share: float) -> float:
        return quantile(self.ms, share)

    @property
    def lost(self) -> int:
        return sum(math.isinf(one) for one in self.ms)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def round_of(services: Sequence[ServiceName], number: int, scale: Scale, *, of_peer: bool) -> list[Edit]:
    """Edits of round `number`: every other one changes the number of workers, the rest an engine setting.

    Each round asks for values of its own and, while there are enough, for other services.
    """
    first = number * scale.edits
    chosen = [services[(first + at) % len(services)] for at in range(scale.edits)]
    made = [_more_workers, _other_engine]
    return [made[at % 2](one, scale, number, of_peer) for at, one in enumerate(chosen)]


def _more_workers(service: ServiceName, scale: Scale, number: int, of_peer: bool) -> Edit:
    wanted = scale.replicas + 1 + number
    return Edit(service, {"replicas": wanted}, lambda seen: seen.of_peer is of_peer and seen.replicas == wanted)


def _other_engine(service: ServiceName, scale: Scale, number: int, of_peer: bool) -> Edit:
    wanted = str(16 + number)

    def is_followed_by(seen: Seen) -> bool:
        at = seen.arguments.index("--max-num-seqs") if "--max-num-seqs" in seen.arguments else None
        return seen.of_peer is of_peer and at is not None and seen.arguments[at + 1] == wanted

    return Edit(service, {"engine": {"maxNumSeqs": int(wanted)}}, is_followed_by)


class Editor:
    """Makes edits and hears of Deployments from the stand-in's watch."""

    def __init__(self, client: Api, stand_in: StandIn) -> None:
        self._client = client
        self._waiting: dict[ServiceName, tuple[Edit, asyncio.Future[float]]] = {}
        stand_in.deployments.on_change(self._on_change)

    async def make(self, edits: Sequence[Edit], rate_per_s: float) -> Latencies:
        found = Latencies()
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for at, edit in enumerate(edits):
                await asyncio.sleep(max(0.0, started_s + at / rate_per_s - time.monotonic()))
                group.create_task(self._one(edit, found))
        return found

    async def _one(self, edit: Edit, found: Latencies) -> None:
        followed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[edit.service] = (edit, followed)
        sent_s = time.monotonic()
        await self._client.merge_patch(
            INFERENCE_SERVICES, edit.service.namespace, edit.service.name, {"spec": edit.spec}
        )
        found.patch_ms.append(1000 * (time.monotonic() - sent_s))
        try:
            async with asyncio.timeout(GIVE_UP_S):
                found.ms.append(1000 * (await followed - sent_s))
        except TimeoutError:
            found.ms.append(math.inf)
        finally:
            self._waiting.pop(edit.service, None)

    def _on_change(self, change: Change[Seen]) -> None:
        seen = change.new
        if seen is None:
            return
        edit, followed = self._waiting.get(ServiceName(seen.namespace, seen.service), (None, None))
        if edit is not None and followed is not None and not followed.done() and edit.is_followed_by(seen):
            followed.set_result(time.monotonic())
