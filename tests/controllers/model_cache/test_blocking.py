"""Reading from libraries that block."""

from __future__ import annotations

import asyncio
import threading

import pytest

from controllers.model_cache.errors import Interrupted
from controllers.model_cache.sources.blocking import pieces
from tests.waiting import eventually


class Stuck:
    """Nothing comes for a while, and closing waits for the read under way, as a buffered file's does."""

    def __init__(self) -> None:
        self.reading, self.may_end, self.closed = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def read(self, _: int, /) -> bytes:
        with self._lock:
            self.reading.set()
            self.may_end.wait(5)
            self.reading.clear()
        return b""

    def close(self) -> None:
        with self._lock:
            self.closed.set()


async def test_a_cancelled_read_that_hangs_holds_nobody_up_and_is_closed_when_it_ends() -> None:
    stuck = Stuck()
    chunks = pieces(stuck, 10, lambda error: Interrupted(str(error)))
    first = asyncio.ensure_future(anext(chunks))
    await eventually(stuck.reading.is_set, "it reads")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert stuck.reading.is_set()
    stuck.may_end.set()
    await eventually(stuck.closed.is_set, "it is closed")
