"""Reading from libraries that block."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import pytest

from controllers.model_cache.errors import Interrupted
from controllers.model_cache.job import LEAST_BYTES_PER_S
from controllers.model_cache.sources import blocking
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


@dataclass
class Line:
    """Gives all that it is asked for, at the rates given, one after the other."""

    bytes_per_s: list[int]
    now_s: float = 0.0
    took_s: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now_s

    def read(self, size: int, /) -> bytes:
        if not self.bytes_per_s:
            return b""
        self.took_s.append(size / self.bytes_per_s.pop(0))
        self.now_s += self.took_s[-1]
        return bytes(size)

    def close(self) -> None:
        """Holds nothing."""


async def sizes(line: Line, most_bytes: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(blocking, "time", line)
    return [len(one) async for one in pieces(line, most_bytes, lambda error: Interrupted(str(error)))]


async def test_a_slow_source_is_asked_for_pieces_that_come_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line([LEAST_BYTES_PER_S] * 9)
    await sizes(line, 8 << 20, monkeypatch)
    assert max(line.took_s) <= 5


async def test_a_fast_source_is_soon_asked_for_whole_pieces_and_for_less_once_it_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line([10**9] * 9 + [LEAST_BYTES_PER_S] * 9)
    asked = await sizes(line, 8 << 20, monkeypatch)
    assert asked[7:9] == [8 << 20] * 2
    assert line.took_s[-1] <= 5


async def test_a_piece_is_never_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(await sizes(Line([10**9, 10**9, 1, 1]), 1000, monkeypatch)) == {1000}
