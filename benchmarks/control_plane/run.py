"""The story of a run: declare, start for the first time, come to rest, restart, edit, and the same for the peer.

Every wait has an end; whatever goes wrong ends the run with the log of the process that failed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.control_plane import fleet
from benchmarks.control_plane.api import Writes, create_all, each, install_crds, since, writes_so_far
from benchmarks.control_plane.churn import Churn
from benchmarks.control_plane.edits import Editor, Latencies, round_of
from benchmarks.control_plane.exposition import Samples
from benchmarks.control_plane.scale import Scale
from benchmarks.control_plane.stand_in import StandIn
from benchmarks.control_plane.subject import Recipe, Subject
from e2e.cluster.controlplane import ControlPlane
from e2e.cluster.errors import StartFailed
from e2e.cluster.progress import Progress
from kube.client import Client
from kube.connection import Connection
from kube.resources import MODELS

START_S: Final = 240.0
"""The longest that a start may take, first or not."""
LOOK_S: Final = 0.4
EXITS_ALLOWED: Final = 3


@dataclass(frozen=True, slots=True)
class Start:
    """One life's beginning."""

    took_s: float
    """From the process's start until every object was handled; at a first start until all but Events was written."""
    cpu_s: float
    peak_mb: float
    writes: Writes
    handled: float


@dataclass(frozen=True, slots=True)
class Window:
    """What a subject used in a stretch of time."""

    length_s: float
    cpu_s: float
    handled: float
    """InferenceServices handled."""
    writes: Writes
    latencies: Latencies | None = None
    changes: int = 0
    """Pods changed."""
    contended_s: float = 0.0
    """Time in which some process of the machine waited for a CPU."""

    @property
    def contended_percent(self) -> float:
        return 100 * self.contended_s / self.length_s

    @property
    def cpu_percent(self) -> float:
        return 100 * self.cpu_s / self.length_s


@dataclass(slots=True)
class Findings:
    """All that was measured of one subject."""

    first: Start | None = None
    catch_up: Start | None = None
    """The start after pods came to be while it was away."""
    restarts: list[Start] = field(default_factory=list)
    idle: Window | None = None
    idle_rss_mb: float = math.nan
    edits: Window | None = None
    edits_in_churn: Window | None = None
    churn: Window | None = None
    peak_mb: float = 0.0
    """Over all its lives."""
    exits: int = 0
    """Lives that ended by themselves. Kubernetes would start it again; so does the run, and repeats the part."""


Part = Callable[[Subject, Findings], Awaitable[None]]


class Bench:
    """One control plane, one fleet, several subjects after one another."""

    def __init__(
        self, client: Client, connection: Connection, plane: ControlPlane, scale: Scale, say: Progress
    ) -> None:
        self._client, self._connection, self._plane, self._scale, self._say = client, connection, plane, scale, say
        self.stand_in = StandIn(client, f"http://127.0.0.1:{plane.ports.etcd}", scale)
        self._editor = Editor(client, self.stand_in)
        self._services = fleet.service_names(scale)
        self._round = 0

    @classmethod
    @asynccontextmanager
    async def on(cls, plane: ControlPlane, scale: Scale, say: Progress) -> AsyncIterator[Bench]:
        connection = Connection.from_environment(plane.kubeconfig)
        async with Client(connection) as client:
            bench = cls(client, connection, plane, scale, say)
            await install_crds(client)
            watching = asyncio.create_task(bench.stand_in.deployments.run())
            try:
                await bench.stand_in.deployments.synced.wait()
                yield bench
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def declare(self) -> None:
        scale = self._scale
        with self._say.step(f"Declaring {scale.objects:,} InferenceServices in {scale.namespaces} namespaces"):
            await create_all(self._client, fleet.foundations(scale))
            await create_all(self._client, fleet.declarations(scale))
            status = fleet.model_status(scale)
            models = [one["metadata"] for one in fleet.declarations(scale) if one["kind"] == "Model"]
            await each(
                models,
                lambda one: self._client.merge_patch(
                    MODELS, one["namespace"], one["name"], status, subresource="status"
                ),
            )
            await create_all(self._client, fleet.services(scale))

    async def measure(self, recipe: Recipe, restarts: int) -> Findings:
        """All of it for one subject. The first one finds no pods; those that follow find what it left."""
        found, subject = Findings(), Subject(recipe, self._plane.kubeconfig, self._plane.directory)
        try:
            with self._say.step(f"{recipe.name}: first start"):
                found.first = await self._start(subject, until_quiet=True)
            if not self.stand_in.pods:
                subject.stop()
                with self._say.step(f"Making {self._scale.pods:,} ready pods"):
                    await self.stand_in.settle()
                with self._say.step(f"{recipe.name}: start with new pods"):
                    found.catch_up = await self._start(subject, until_quiet=True)
            await self._surviving(subject, found, self._rest)
            for at in range(restarts):
                with self._say.step(f"{recipe.name}: restart {at + 1} of {restarts}"):
                    found.peak_mb = max(found.peak_mb, subject.peak_rss_mb())
                    subject.stop()
                    found.restarts.append(await self._start(subject, until_quiet=False))
            for part in (self._quiet_edits, self._pod_changes, self._busy_edits):
                await self._surviving(subject, found, part)
            found.peak_mb = max(found.peak_mb, subject.peak_rss_mb())
        finally:
            subject.stop()
        return found

    # --- parts -----------------------------------------------------------------------------------------------
    async def _start(self, subject: Subject, *, until_quiet: bool) -> Start:
        before = await writes_so_far(self._connection)
        began_s = subject.start()
        ended_s = await subject.until(lambda samples: self._all_handled(subject, samples), START_S)
        if until_quiet:
            ended_s = max(ended_s, await self._quiet_since(subject, subject.recipe.settles_s))
        cpu_s = subject.cpu_s()
        if not until_quiet:
            await self._quiet_since(subject, subject.recipe.settles_s)  # A late write would be the next window's.
        writes = since(before, await writes_so_far(self._connection))
        began = Start(ended_s - began_s, cpu_s, subject.peak_rss_mb(), writes, await self._handled(subject))
        self._say.say(
            f"  {began.took_s:.1f} s, {began.cpu_s:.1f} s of CPU, {began.peak_mb:.0f} MB,"
            f" {began.handled:.0f} services handled; writes: {writes}"
        )
        return began

    def _all_handled(self, subject: Subject, samples: Samples) -> bool:
        recipe, counts = subject.recipe, self._scale.counts
        return all(recipe.handled(samples, kind) >= counts[kind] for kind in recipe.kinds)

    async def _handled(self, subject: Subject) -> float:
        return subject.recipe.handled(await subject.samples(), "InferenceService")

    async def _quiet_since(self, subject: Subject, settles_s: float = 0.0) -> float:
        """When the last write but Events was seen; returns after a while without any, Events too.

        Events follow at a rate that their writer limits, long after what they tell of.
        """
        deadline_s = time.monotonic() + START_S
        quiet_s = max(self._scale.quiet_s, settles_s)
        last_s = last_of_all_s = time.monotonic()
        seen = await writes_so_far(self._connection)
        while time.monotonic() - last_of_all_s < quiet_s:
            subject.check()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{subject.recipe.name} still writes after {START_S:.0f} s.")
            await asyncio.sleep(LOOK_S)
            now, at_s = await writes_so_far(self._connection), time.monotonic()
            if now.without_leases != seen.without_leases:
                last_of_all_s = at_s
                last_s = at_s if now.objects != seen.objects else last_s
            seen = now
        return last_s

    async def _surviving(self, subject: Subject, found: Findings, part: Part) -> None:
        while True:
            try:
                return await part(subject, found)
            except StartFailed as error:
                if found.exits >= EXITS_ALLOWED:
                    raise
                found.exits += 1
                self._say.say(f"{subject.recipe.name} has ended by itself and is started again. {error}")
                await self._start(subject, until_quiet=True)

    async def _rest(self, subject: Subject, found: Findings) -> None:
        with self._say.step(f"{subject.recipe.name}: idle for {self._scale.window_s:.0f} s"):
            async with self._window(subject) as window:
                await asyncio.sleep(self._scale.window_s)
            found.idle, found.idle_rss_mb = window.closed(), subject.rss_mb()

    async def _quiet_edits(self, subject: Subject, found: Findings) -> None:
        scale = self._scale
        with self._say.step(f"{subject.recipe.name}: {scale.edits} spec edits at {scale.edits_per_s:.0f}/s"):
            found.edits = await self._edit(subject, churning=False)

    async def _pod_changes(self, subject: Subject, found: Findings) -> None:
        scale = self._scale
        with self._say.step(f"{subject.recipe.name}: {scale.changes_per_s:.0f} pod changes/s"):
            churn = Churn(self._client, self.stand_in.pods, scale.changes_per_s)
            async with churn.running(), self._window(subject) as window:
                await asyncio.sleep(scale.window_s)
                window.changes = churn.made
            found.churn = window.closed()

    async def _busy_edits(self, subject: Subject, found: Findings) -> None:
        scale = self._scale
        with self._say.step(
            f"{subject.recipe.name}: {scale.edits} spec edits among {scale.changes_per_s:.0f} pod changes/s"
        ):
            found.edits_in_churn = await self._edit(subject, churning=True)

    async def _edit(self, subject: Subject, *, churning: bool) -> Window:
        edits = round_of(self._services, self._round, self._scale, of_peer=subject.recipe.of_peer)
        self._round += 1
        churn = Churn(self._client, self.stand_in.pods, self._scale.changes_per_s)
        async with churn.running() if churning else nullcontext(), self._window(subject) as window:
            window.latencies = await self._editor.make(edits, self._scale.edits_per_s)
            window.changes = churn.made
        await self._quiet_since(subject)
        return window.closed()

    @asynccontextmanager
    async def _window(self, subject: Subject) -> AsyncIterator[_OpenWindow]:
        writes, handled = await writes_so_far(self._connection), await self._handled(subject)
        began_s, cpu_s, contended_s = time.monotonic(), subject.cpu_s(), _contended_s()
        window = _OpenWindow()
        yield window
        window.length_s, window.cpu_s = time.monotonic() - began_s, subject.cpu_s() - cpu_s
        window.contended_s = _contended_s() - contended_s
        window.handled = await self._handled(subject) - handled
        window.writes = since(writes, await writes_so_far(self._connection))


@dataclass(slots=True)
class _OpenWindow:
    length_s: float = 0.0
    cpu_s: float = 0.0
    handled: float = 0.0
    writes: Writes = field(default_factory=Writes)
    latencies: Latencies | None = None
    changes: int = 0
    contended_s: float = 0.0

    def closed(self) -> Window:
        return Window(
            self.length_s, self.cpu_s, self.handled, self.writes, self.latencies, self.changes, self.contended_s
        )


def _contended_s(pressure: Path = Path("/proc/pressure/cpu")) -> float:
    """By the kernel's pressure accounting; 0 where it is switched off."""
    try:
        first = pressure.read_text(encoding="utf-8").splitlines()[0]
    except OSError:
        return 0.0
    return int(first.rpartition("total=")[2]) / 1e6
