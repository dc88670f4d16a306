"""Reading from libraries that block: in a thread, piece by piece, so that a cancelled download ends soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

from controllers.model_cache.errors import FetchError, WrongContent

T = TypeVar("T")


class Reader(Protocol):
    """What all libraries give for the body of an answer."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> object: ...


async def in_thread(call: Callable[[], T], explain: Callable[[Exception], FetchError], *expected: type[Exception]) -> T:
    """`call()` in a thread; the library's own errors as ours."""
    try:
        return await asyncio.to_thread(call)
    except expected as error:
        raise explain(error) from error


async def pieces(
    reader: Reader, size_bytes: int, explain: Callable[[Exception], FetchError], *expected: type[Exception]
) -> AsyncGenerator[bytes, None]:
    """Everything that `reader` gives, at most `size_bytes` at a time."""
    try:
        while True:
            piece = await in_thread(lambda: reader.read(size_bytes), explain, *expected)
            if len(piece) > size_bytes:
                raise WrongContent(f"{len(piece)} bytes came for {size_bytes}: the server ignores ranges.")
            if not piece:
                return
            yield piece
    finally:
        reader.close()
