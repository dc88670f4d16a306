"""The agent's loop: look at the caches and the disk, plan, act, report. Level-triggered; anything may wake it.

Nothing here is remembered that matters: after a restart the disk and the API server tell everything again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from controllers.model_cache import entries, patience
from controllers.model_cache.errors import FetchError, Interrupted, NoRoom, TooSlow
from controllers.model_cache.job import LEAST_BYTES_PER_S, LEAST_OVER_S, Job, Refusal
from controllers.model_cache.report import Reporter
from controllers.model_cache.sources import Access
from controllers.model_cache.store import Record, Store
from controllers.model_cache.views import ModelView, Views
from controllers.plans.model_cache import (
    Action,
    Budget,
    Copy,
    Evict,
    Fetch,
    ModelRef,
    Refuse,
    Remove,
    Wanted,
    plan,
)
from controllers.plans.units import bytes_text
from crds.model import CopyState, NodeCopy

log = logging.getLogger(__name__)

MOST_DOWNLOADS: Final = 2
"""Of what pods wait for, and as many of what nobody waits for yet: the one is never behind the other."""
LOOK_AT_LEAST_EVERY_S: Final = 30.0
LOOK_WHILE_FETCHING_S: Final = 0.5
TOUCH_EVERY_S: Final = 60.0


class Counts:
    """What `/metrics` shows of the agent's work."""

    def __init__(self) -> None:
        self.finished = self.failed = self.evicted = self.downloaded_bytes = self.steps = 0


class Agent:
    """One node's copies. `run` until cancelled."""

    def __init__(
        self,
        views: Views,
        store: Store,
        reporter: Reporter,
        access: Access,
        cache_bytes: int,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._views, self._store, self._reporter, self._access = views, store, reporter, access
        self.cache_bytes = cache_bytes
        self._clock, self._wall_clock, self._rng = clock, wall_clock, rng
        self._checking = asyncio.Lock()
        self._wake = asyncio.Event()
        self._copies: dict[ModelRef, Record] = {}
        self._partials: dict[ModelRef, int] = {}
        self._sizes: dict[ModelRef, int] = {}
        self._jobs: dict[ModelRef, tuple[Job, asyncio.Task[None]]] = {}
        self._failures: dict[ModelRef, patience.Failure] = {}
        self._refusals: dict[ModelRef, Refusal] = {}
        self.counts = Counts()
        self.last_step_s = clock()

    async def run(self) -> None:
        """Follow until cancelled."""
        for informer in self._views.informers().values():
            informer.on_change(lambda _: self._wake.set())
        await asyncio.to_thread(self._store.open)
        self._copies = await asyncio.to_thread(self._store.copies)
        try:
            await asyncio.gather(*(one.synced.wait() for one in self._views.informers().values()))
            while True:
                self._wake.clear()
                await self._pause(await self.step())
        finally:
            await self._end_jobs(list(self._jobs))

    async def step(self) -> float:
        """One look. Returns after how many seconds the next is due."""
        self.last_step_s = self._clock()
        self.counts.steps += 1
        if not self._views.knows_node():
            log.warning("Node '%s' is not there: nothing is fetched or removed until it is.", self._views.node_name)
            return LOOK_AT_LEAST_EVERY_S
        wanted, used = self._views.wanted(), self._views.used()
        self._partials = await asyncio.to_thread(self._store.partials)
        await self._forget(wanted)
        await self._end_slow_ones()
        evicted = await asyncio.to_thread(self._store.evicted)
        self._copies = {ref: record for ref, record in self._copies.items() if self._store.holds(ref)}
        copies = [self._copy(ref, record, wanted.get(ref), used) for ref, record in self._copies.items()]
        asked = [self._wanted(one, evicted) for one in wanted.values()]
        actions = plan(copies, asked, used, self._budget())
        for action in actions:
            await self._act(action, wanted, used)
        report_in_s = await self._reporter.report({ref: self._entry(one, actions) for ref, one in wanted.items()})
        return self._next_look_s(report_in_s)

    def held(self) -> dict[ModelRef, int]:
        """Bytes of each copy."""
        return {ref: record.size_bytes for ref, record in self._copies.items()}

    def fetching(self) -> int:
        """Fetches under way."""
        return len(self._jobs)

    # --- observing -------------------------------------------------------------------------------------------
    def _copy(self, ref: ModelRef, record: Record, model: ModelView | None, used: set[ModelRef]) -> Copy:
        last_used_s = self._store.last_used_s(ref)
        if ref in used and self._wall_clock() - last_used_s > TOUCH_EVERY_S:
            last_used_s = self._wall_clock()
            self._store.touch(ref, last_used_s)
        return Copy(ref, record.size_bytes, last_used_s, model is None or _fits(record, model))

    def _wanted(self, model: ModelView, evicted: dict[ModelRef, int]) -> Wanted:
        job = self._jobs.get(model.ref)
        size = evicted.get(model.ref) or self._sizes.get(model.ref)
        return Wanted(
            model.ref,
            total_bytes=job[0].total_bytes if job and job[0].total_bytes is not None else size,
            partial_bytes=self._partials.get(model.ref, 0),
            started=job is not None,
            evicted=model.ref in evicted,
        )

    def _budget(self) -> Budget:
        """The cache's own limit, or less when the disk has less."""
        held = sum(record.size_bytes for record in self._copies.values())
        begun = sum(self._unfinished().values())
        on_disk = max(held + begun + self._store.disk_room_bytes(), 0)
        if on_disk < self.cache_bytes:
            return Budget(on_disk, self._store.disk_kept_free_bytes())
        return Budget(self.cache_bytes)

    def _room_bytes(self) -> int:
        """What may still be written now, by all downloads together."""
        held = sum(record.size_bytes for record in self._copies.values())
        written = sum(job.progress.done_bytes for job, _ in self._jobs.values())
        idle = sum(size for ref, size in self._unfinished().items() if ref not in self._jobs)
        return min(self.cache_bytes - held - written - idle, self._store.disk_room_bytes())

    def _unfinished(self) -> dict[ModelRef, int]:
        """Downloads on disk without those that became copies since the disk was walked."""
        return {ref: size for ref, size in self._partials.items() if ref not in self._copies}

    # --- acting ----------------------------------------------------------------------------------------------
    async def _forget(self, wanted: dict[ModelRef, ModelView]) -> None:
        """End what was begun for Models that want something else now, or nothing."""
        await self._end_jobs([ref for ref, (job, _) in self._jobs.items() if not _same(job.model, wanted.get(ref))])
        for kept in (self._failures, self._sizes, self._refusals):
            for ref in [ref for ref in kept if ref not in wanted]:
                del kept[ref]
        for ref in [ref for ref in self._partials if ref not in wanted]:
            await self._drop_partial(ref)
        for ref in self._store.evicted():
            if ref not in wanted:
                self._store.forget_eviction(ref)

    async def _end_slow_ones(self) -> None:
        for ref in [ref for ref, (job, _) in self._jobs.items() if job.is_too_slow(self._clock())]:
            error = TooSlow(
                f"The source gave less than {bytes_text(LEAST_BYTES_PER_S)}/s over {LEAST_OVER_S / 60:.0f} minutes;"
                " it is continued after others."
            )
            await self._give_up(ref, error)

    async def _act(self, action: Action, wanted: dict[ModelRef, ModelView], used: set[ModelRef]) -> None:
        ref = action.model
        if isinstance(action, Remove | Evict):
            log.info("The copy of Model '%s' goes: %s", ref, action.reason)
            record = self._copies.pop(ref)
            if isinstance(action, Evict):
                self.counts.evicted += 1
                await asyncio.to_thread(self._store.evict, ref, record.size_bytes)
            else:
                await asyncio.to_thread(self._store.remove, ref)
        elif isinstance(action, Fetch):
            self._fetch(wanted[ref], used)
        else:
            if isinstance(action, Refuse) and ref in self._jobs and self._jobs[ref][0].total_bytes is None:
                # It would begin at once, come as far as now and be refused again.
                await self._give_up(ref, NoRoom(action.message))
            await self._end_jobs([ref] if ref in self._jobs else [])
            await self._drop_partial(ref)

    async def _drop_partial(self, ref: ModelRef) -> None:
        await asyncio.to_thread(self._store.drop_partial, ref)
        self._partials.pop(ref, None)

    def _fetch(self, model: ModelView, used: set[ModelRef]) -> None:
        """The plan names what has its turn first, so whoever finds a place free takes it."""
        under_way = self._jobs.get(model.ref)
        if under_way is not None:
            job = under_way[0]
            if job.state is CopyState.PENDING and job.was_listed:
                job.granted.set()
            return
        failure = self._failures.get(model.ref)
        if failure is not None and self._clock() < failure.not_before_s:
            return
        if sum((ref in used) == (model.ref in used) for ref in self._jobs) >= MOST_DOWNLOADS:
            return
        job = Job(model, self._store, self._access, self._room_bytes, self._wake.set, self._checking)
        job.refusal = self._refusals.get(model.ref)
        self._jobs[model.ref] = (job, asyncio.create_task(self._watch(job), name=f"fetch {model.ref}"))

    async def _watch(self, job: Job) -> None:
        """Run the job and book how it ended."""
        ref = job.model.ref
        try:
            self._copies[ref] = await job.run()
            self._failures.pop(ref, None)
            self.counts.finished += 1
            log.info("Model '%s' is cached: %s", ref, self._copies[ref].digest)
        except FetchError as error:
            if isinstance(error, NoRoom) and job.total_bytes is None:
                # Nobody knows how much it lacks, so what there is of it must not keep others from coming.
                await self._drop_partial(ref)
            self._failed(job, error)
        except Exception:  # A mistake with one Model must not end the copies of all others.
            log.exception("Fetching Model '%s' failed unexpectedly.", ref)
            self._failed(job, Interrupted("The node agent made a mistake; its log says which. It is tried again."))
        finally:
            self.counts.downloaded_bytes += job.progress.received_bytes
            if job.total_bytes is not None:
                self._sizes[ref] = job.total_bytes
            if job.refusal is not None:
                self._refusals[ref] = job.refusal
            self._jobs.pop(ref, None)
            self._wake.set()

    def _failed(self, job: Job, error: FetchError) -> None:
        ref, now_s = job.model.ref, self._clock()
        self.counts.failed += 1
        failure = patience.after(
            self._failures.get(ref),
            error,
            received_bytes=job.progress.received_bytes,
            now_s=now_s,
            chance=self._rng.random(),
        )
        self._failures[ref] = failure
        log.warning("Model '%s' is not cached, next try in %.0f s: %s", ref, failure.not_before_s - now_s, error)

    async def _give_up(self, ref: ModelRef, error: FetchError) -> None:
        """End the fetch; the next try waits as after any failure."""
        job = self._jobs[ref][0]
        await self._end_jobs([ref])
        if ref not in self._copies:
            self._failed(job, error)

    async def _end_jobs(self, refs: list[ModelRef]) -> None:
        tasks = [self._jobs[ref][1] for ref in refs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- reporting -------------------------------------------------------------------------------------------
    def _entry(self, model: ModelView, actions: list[Action]) -> NodeCopy:
        ref, name = model.ref, self._views.node_name
        record = self._copies.get(ref)
        if record is not None and _fits(record, model):
            return entries.of_copy(name, record)
        planned = [entries.of_action(name, action) for action in actions if action.model == ref]
        return next((one for one in planned if one is not None), None) or self._fetching(ref)

    def _fetching(self, ref: ModelRef) -> NodeCopy:
        """A failure stays in view until the next try brings bytes, so that the entry does not flicker."""
        name, failure, under_way = self._views.node_name, self._failures.get(ref), self._jobs.get(ref)
        if under_way is not None and (failure is None or under_way[0].progress.received_bytes > 0):
            return entries.of_job(name, under_way[0], self._clock())
        if failure is None:
            return NodeCopy(name=name, state=CopyState.PENDING)
        return entries.of_failure(name, failure, self._partials.get(ref, 0), self._sizes.get(ref))

    # --- waiting ---------------------------------------------------------------------------------------------
    def _next_look_s(self, report_in_s: float | None) -> float:
        now_s = self._clock()
        retries = [one.not_before_s - now_s for one in self._failures.values() if one.not_before_s > now_s]
        due = [LOOK_AT_LEAST_EVERY_S, *(max(wait_s, 0.05) for wait_s in retries)]
        if self._jobs:
            due.append(LOOK_WHILE_FETCHING_S)
        if report_in_s is not None:
            due.append(max(report_in_s, 0.05))
        return min(due)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return


def _fits(record: Record, model: ModelView) -> bool:
    """Whether the copy is what the Model says now."""
    return (
        record.source == model.spec.source
        and model.digest in (None, record.digest)
        and model.spec.format in (None, record.format)
    )


def _same(one: ModelView, other: ModelView | None) -> bool:
    """Whether a fetch for `one` is still right for `other`."""
    return other is not None and (one.uid, one.spec.source, one.spec.digest, one.spec.format) == (
        other.uid,
        other.spec.source,
        other.spec.digest,
        other.spec.format,
    )
