"""A second attempt beside a slow first one, for requests that cannot wait: the first byte wins, the other is dropped.

Only when the first is later than nearly all that the service has answered lately, only inside the retry budget, and
never a third. Knows attempts as coroutines; what they are is the proxy's business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gateway.retries import Failure

Attempt = Coroutine[Any, Any, Failure | None]

WINDOW: Final = 128
LEAST: Final = 20
"""Answers before anything can be called late."""
RENEW: Final = 16
"""Answers between two looks at them."""
QUANTILE: Final = 0.95


class FirstTokens:
    """How long streams of one service took to their first event lately."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=WINDOW)
        self._new = 0
        self.late_s: float | None = None
        """What one in twenty took longer than; None while too little is known."""

    def add(self, ttft_s: float) -> None:
        self._seen.append(ttft_s)
        self._new += 1
        if len(self._seen) >= LEAST and (self._new >= RENEW or self.late_s is None):
            self._new = 0
            self.late_s = sorted(self._seen)[int(len(self._seen) * QUANTILE)]


async def hedged(first: Attempt, second: Callable[[], Attempt | None], late_s: float) -> Failure | None:
    """Runs the first; after `late_s`, the second beside it, if it gives one. Ends when nothing of both is left to
    wait for: with None where one of them answered, else with why the last of them did not."""
    tasks = [asyncio.ensure_future(first)]
    try:
        await asyncio.wait(tasks, timeout=late_s)
        if not tasks[0].done() and (attempt := second()) is not None:
            tasks.append(asyncio.ensure_future(attempt))
        failures = []
        for task in asyncio.as_completed(tasks):
            failures.append(await task)
            if failures[-1] is None:
                return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next((one for one in reversed(failures) if one is not Failure.OUTRUN), Failure.OUTRUN)
