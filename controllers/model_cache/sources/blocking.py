"""Reading from libraries that block: in a thread, piece by piece, so that a cancelled download ends soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Final, Protocol, TypeVar

from controllers.model_cache.errors import FetchError, WrongContent

T = TypeVar("T")
PATIENCE_S: Final = 1.0
"""For which a piece is collected."""
LEAST_BYTES: Final = 64 << 10
"""Of a piece: at the least rate that a source may have, it comes within seconds."""


class Reader(Protocol):
    """What all libraries give for the body of an answer."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> object: ...


class Raw(Protocol):
    """An answer of urllib3, below every library that reads through it."""

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes: ...

    def close(self) -> None: ...


class Body:
    """What has come of an answer: urllib3's own `read` waits for all that it is asked for, however slowly it comes."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw

    def read(self, size: int, /) -> bytes:
        piece, until_s = bytearray(), time.monotonic() + PATIENCE_S
        while len(piece) < size and time.monotonic() < until_s:
            part = self._raw.read1(size - len(piece), decode_content=False)
            if not part:
                break
            piece += part
        return bytes(piece)

    def close(self) -> None:
        self._raw.close()


async def in_thread(call: Callable[[], T], explain: Callable[[Exception], FetchError], *expected: type[Exception]) -> T:
    """`call()` in a thread; the library's own errors as ours."""
    try:
        return await asyncio.to_thread(call)
    except expected as error:
        raise explain(error) from error


async def pieces(
    reader: Reader, size_bytes: int, explain: Callable[[Exception], FetchError], *expected: type[Exception]
) -> AsyncGenerator[bytes, None]:
    """Everything that `reader` gives, at most `size_bytes` at a time and less while it is slow, so that it is seen.

    A cancelled read goes on in its thread and closing waits for it, so that is done in another one.
    """
    next_bytes = min(LEAST_BYTES, size_bytes)
    try:
        while True:
            asked_bytes, began_s = next_bytes, time.monotonic()
            piece = await in_thread(partial(reader.read, asked_bytes), explain, *expected)
            if len(piece) > asked_bytes:
                raise WrongContent(f"{len(piece)} bytes came for {asked_bytes}: the server ignores ranges.")
            if not piece:
                return
            next_bytes = _next_bytes(asked_bytes, time.monotonic() - began_s, size_bytes)
            yield piece
    finally:
        asyncio.get_running_loop().run_in_executor(None, reader.close)


def _next_bytes(asked_bytes: int, took_s: float, most_bytes: int) -> int:
    if took_s < PATIENCE_S:
        return min(2 * asked_bytes, most_bytes)
    if took_s > 4 * PATIENCE_S:
        return min(max(asked_bytes // 2, LEAST_BYTES), most_bytes)
    return asked_bytes
