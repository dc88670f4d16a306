"""Write faults: a write is refused, or takes effect and its answer is lost; once, or for a while."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from enum import StrEnum
from typing import Final

from e2e.faults.crash import AtSite, Place, Site, place
from e2e.faults.proxy import CUT, Answer, Call, Fault, Forward, refused

CLIENTS_PATIENCE_S: Final = 31.0
"""Longer than the operator waits for an answer."""
LASTS_S: Final = 8.0
MOST_ATTEMPTS: Final = 24
"""At one object in that time: three a second. A loop without a pause makes hundreds."""


class Refusal(StrEnum):
    """What happens to the write."""

    CONFLICT = "409"
    THROTTLED = "429"
    BROKEN = "500"
    TIMED_OUT = "504"
    TIMED_OUT_AFTER = "504 after its commit"
    RESET = "reset"
    RESET_AFTER = "reset after its commit"
    SILENT_AFTER = "no answer after its commit"


async def answer(kind: Refusal, call: Call, forward: Forward) -> Answer:
    """Instead of the server's own."""
    if kind in (Refusal.TIMED_OUT_AFTER, Refusal.RESET_AFTER, Refusal.SILENT_AFTER):
        await forward(call)
    if kind is Refusal.SILENT_AFTER:
        await asyncio.sleep(CLIENTS_PATIENCE_S)
    return _ANSWERS.get(kind, CUT)


_ANSWERS: Final = {
    Refusal.CONFLICT: refused(409, "Conflict"),
    Refusal.THROTTLED: refused(429, "TooManyRequests", retry_after_s=1),
    Refusal.BROKEN: refused(500, "InternalError"),
    Refusal.TIMED_OUT: refused(504, "Timeout"),
    Refusal.TIMED_OUT_AFTER: refused(504, "Timeout"),
}


class Once(AtSite):
    """One write of the story."""

    def __init__(self, site: Site, kind: Refusal) -> None:
        super().__init__(site)
        self._kind = kind

    async def strike(self, call: Call, forward: Forward) -> Answer:
        return await answer(self._kind, call, forward)


class ForAWhile(Fault):
    """Every write like one of the story, from the first on; then it is over."""

    def __init__(self, site: Site, kind: Refusal) -> None:
        self._site, self._kind, self.awaited = site, kind, site.stage
        self._since_s: float | None = None
        self.attempts: Counter[Place] = Counter()

    async def meet(self, call: Call, forward: Forward) -> Answer:
        where = place(call)
        if not call.is_write or where[:2] != (self._site.verb, self._site.resource) or self._is_over():
            return await forward(call)
        self._since_s = self._since_s or time.monotonic()
        self.met = True
        self.attempts[where] += 1
        return await answer(self._kind, call, forward)

    def _is_over(self) -> bool:
        if self._since_s is None:
            return self.stage != self._site.stage
        return time.monotonic() - self._since_s > LASTS_S

    def wrong(self) -> list[str]:
        """Objects that were tried too often."""
        most = self.attempts.most_common(1)
        return [
            f"{number} attempts at {' '.join(where)} in {LASTS_S:g} s, at most {MOST_ATTEMPTS} are bounded"
            for where, number in most
            if number > MOST_ATTEMPTS
        ]
