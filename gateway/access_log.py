"""One JSON line per request: who, what, where, how long. Never a key, a prompt or an answer.

Lines are collected and written by a thread now and then: a pipe that nobody reads must not stop the loop. When
more lines wait than `WAITING_LINES`, new ones are dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, BinaryIO

import orjson

FLUSH_S = 0.2
EXPLAINED_SHARE = 0.01
WAITING_LINES = 50_000


class AccessLog:
    def __init__(self, stream: BinaryIO, share: float, rng: random.Random) -> None:
        """`share` of the requests is logged; those that failed always are, unless it is 0."""
        self._stream = stream
        self._share = share
        self._rng = rng
        self._lines: list[bytes] = []
        self.dropped_lines = 0

    def wants(self, code: int) -> bool:
        if self._share <= 0.0:
            return False
        return self._share >= 1.0 or code >= 500 or self._rng.random() < self._share

    def explains(self) -> bool:
        """Whether the next request is one of the few whose choice of a worker is logged with its reasons."""
        return self._share > 0.0 and self._rng.random() < EXPLAINED_SHARE

    def write(self, record: dict[str, Any]) -> None:
        if len(self._lines) >= WAITING_LINES:
            self.dropped_lines += 1
            return
        self._lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    async def run(self) -> None:
        """Flushes until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._lines:
                await asyncio.to_thread(self._put, self._take())

    def close(self) -> None:
        """Writes what is left."""
        self._put(self._take())

    def _take(self) -> bytes:
        lines, self._lines = self._lines, []
        return b"".join(lines)

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()
