"""One fetch, from asking the source to the published copy. Knows one Model and nothing of the others."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from controllers.model_cache import formats
from controllers.model_cache.download import Download, Fetched, Progress, total_of
from controllers.model_cache.errors import FetchError, Interrupted, NoRoom, WrongContent
from controllers.model_cache.sources import Access, open_source
from controllers.model_cache.store import Record, Store
from controllers.model_cache.views import ModelView
from crds.model import CopyState, ModelFormat, ModelSpec

log = logging.getLogger(__name__)
RATE_OVER_S: Final = 5.0
LEAST_BYTES_PER_S: Final = 16 << 10
"""A gigabyte would take 18 hours: nobody waits for that, but others do for the place that it has."""
LEAST_OVER_S: Final = 300.0


@dataclass(slots=True)
class Rate:
    """Bytes per second over the last few seconds."""

    samples: list[tuple[float, int]] = field(default_factory=list)

    def at(self, now_s: float, received_bytes: int) -> int | None:
        """Feed the counter, get the rate; None until there is a second of it."""
        self.samples = [one for one in self.samples if one[0] >= now_s - RATE_OVER_S] + [(now_s, received_bytes)]
        first_s, first_bytes = self.samples[0]
        if now_s - first_s < 0.5:
            return None
        return int((received_bytes - first_bytes) / (now_s - first_s))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Weights that were fetched and are not what the Model names.

    Found twice alike, they are not fetched once more: the first time, something on the way may have damaged them.
    """

    spec: ModelSpec
    digest: str | None
    """What they had to have."""
    versions: tuple[tuple[str, str | None], ...]
    message: str
    times: int = field(default=1, compare=False)

    def holds(self, model: ModelView, versions: tuple[tuple[str, str | None], ...]) -> bool:
        """Whether fetching these would end the same way."""
        same = (model.spec, model.digest, versions) == (self.spec, self.digest, self.versions)
        return same and self.times > 1 and all(version for _, version in versions)


@dataclass(slots=True)
class Job:
    """A fetch under way. The agent reads `state`, `total_bytes` and `progress`, and sets `granted`."""

    model: ModelView
    store: Store
    access: Access
    room_bytes: Callable[[], int]
    listed: Callable[[], None]
    """Called when the source has told its size, so that the agent plans again."""
    checking: asyncio.Lock
    """A header may take half of the agent's memory, so one is read at a time."""
    refusal: Refusal | None = None
    """How the last fetch of this Model ended, where that was for its content."""
    state: CopyState = CopyState.PENDING
    total_bytes: int | None = None
    was_listed: bool = False
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress = field(default_factory=Progress)
    rate: Rate = field(default_factory=Rate)
    watched_from: tuple[float, int] | None = None
    """When the present look at its pace began, and what it had received by then."""

    async def run(self) -> Record:
        """The published copy. Raises FetchError."""
        source = open_source(self.model.spec.source, self.access)
        try:
            files = await source.files()
            versions = tuple((file.path, file.version) for file in files)
            if self.refusal is not None and self.refusal.holds(self.model, versions):
                raise WrongContent(self.refusal.message)
            self.total_bytes, self.was_listed = total_of(files), True
            self.listed()
            await self.granted.wait()
            self.state = CopyState.DOWNLOADING
            folder = self.store.partial_path(self.model.ref)
            scope = self.model.spec.source
            fetched = await Download(source, files, scope, folder, self.room_bytes, self.progress).run()
        except OSError as error:
            raise _disk_error(error) from error
        finally:
            await source.close()
        self.state = CopyState.VERIFYING
        try:
            return await self._publish(fetched)
        except WrongContent as error:
            found = Refusal(self.model.spec, self.model.digest, versions, str(error))
            before = self.refusal.times if self.refusal is not None and self.refusal == found else 0
            self.refusal = replace(found, times=before + 1)
            raise

    def is_too_slow(self, now_s: float) -> bool:
        """Whether its source has given less than the least rate, over minutes in which it was waited for."""
        if self.state is CopyState.VERIFYING or self.progress.hashing:
            self.watched_from = None
            return False
        since_s, before_bytes = self.watched_from = self.watched_from or (now_s, self.progress.received_bytes)
        if now_s - since_s < LEAST_OVER_S:
            return False
        self.watched_from = None
        return self.progress.received_bytes - before_bytes < LEAST_BYTES_PER_S * (now_s - since_s)

    async def _publish(self, fetched: Fetched) -> Record:
        ref, spec = self.model.ref, self.model.spec
        try:
            self._check_digest(fetched)
            async with self.checking:
                found = await asyncio.to_thread(self._check_format, fetched)
        except WrongContent:
            await asyncio.to_thread(self.store.drop_partial, ref)
            raise
        record = Record(spec.source, fetched.digest, found, fetched.size_bytes, fetched.files)
        try:
            await _to_the_end(lambda: self.store.publish(ref, record))
        except OSError as error:
            raise _disk_error(error) from error
        return record

    def _check_digest(self, fetched: Fetched) -> None:
        expected = self.model.digest
        if expected is None or expected == fetched.digest:
            return
        whose = "spec.digest" if self.model.spec.digest else "the first node's copy"
        raise WrongContent(
            f"The weights have digest {fetched.digest}, {whose} has {expected}; they were deleted."
            " Correct the digest or the source: both in a new Model, they are immutable."
        )

    def _check_format(self, fetched: Fetched) -> ModelFormat:
        return formats.check(self.store.partial_path(self.model.ref), fetched.files, self.model.spec.format)


async def _to_the_end(step: Callable[[], None]) -> None:
    """In a thread, which a cancel does not stop: so it is waited for, and what it did is booked."""
    done = asyncio.ensure_future(asyncio.to_thread(step))
    while not done.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([done])
    done.result()


def _disk_error(error: OSError) -> FetchError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(f"The disk of this node is full: {error.strerror}. Free space on it.")
    return Interrupted(f"The node's disk failed: {error.strerror or error}; it is tried again.")
