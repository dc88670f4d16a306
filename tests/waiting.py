"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    """Returns as soon as `condition()` is true; fails with `what` when it is not in time."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"Not within {within_s:g} s: {what}.")
        await asyncio.sleep(0.005)


async def eventually_told(ask: Callable[[], Awaitable[object]], what: str, within_s: float = 60.0) -> None:
    """The same where somebody else has to be asked, which takes as long as it takes."""
    deadline_s = time.monotonic() + within_s
    while not await ask():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"Not within {within_s:g} s: {what}.")
        await asyncio.sleep(0.02)


def eventually_blocking(condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    """The same outside of an event loop."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"Not within {within_s:g} s: {what}.")
        time.sleep(0.01)
