"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

LOOK_S = 0.05


async def eventually(condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    """Returns as soon as `condition()` is true; fails with `what` when it is not in time."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"Not within {within_s:g} s: {what}.")
        await asyncio.sleep(0.005)


async def eventually_told(
    ask: Callable[[], Awaitable[object]], what: str | Callable[[], str], within_s: float = 60.0
) -> None:
    """The same where somebody else has to be asked, which takes as long as it takes."""
    deadline_s = time.monotonic() + within_s
    while not await ask():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"Not within {within_s:g} s: {what if isinstance(what, str) else what()}.")
        await asyncio.sleep(0.02)


async def quiet_for(count: Callable[[], int], quiet_s: float, within_s: float = 60.0) -> int:
    """The count once it has stayed the same for `quiet_s`, told by looks: a stall of the machine is one look."""
    deadline_s = time.monotonic() + within_s
    seen, same = count(), 0
    while same < math.ceil(quiet_s / LOOK_S):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"Not quiet for {quiet_s:g} s within {within_s:g} s: {seen} so far.")
        await asyncio.sleep(LOOK_S)
        now = count()
        seen, same = now, same + 1 if now == seen else 0
    return seen


def eventually_blocking(condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    """The same outside of an event loop."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"Not within {within_s:g} s: {what}.")
        time.sleep(0.01)
