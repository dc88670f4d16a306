"""Bytes a second, of a Tenant or of its part of the gateway: answers wait for their turn, nobody is refused.

What has come is passed on at once and counted; while more was passed on than is allowed, nothing more is read
from the workers that answer, as if the client read slowly, and new requests wait before they are admitted. A reply is
only wrapped where there is a limit, so others pay nothing. Not for what goes through the endpoint picker, which
carries no answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from gateway.admission.account import Account
from gateway.errors import DeadlineExceeded
from gateway.figures import Count
from gateway.http1.messages import Answer, Flow, Reply

LOOK_S: Final = 0.25
"""At most until it looks again: other gateways may have given of what they do not need."""
_SOON_S: Final = 0.005


class Pace(Protocol):
    """What may still be passed on."""

    @property
    def short(self) -> str:
        """Why a request ends that would have had to wait beyond its deadline, and what to do."""

    def spend(self, amount: int) -> bool:
        """Counts; True when more was passed on than is allowed by now."""

    def wait_s(self) -> float:
        """0 when it may go on; else when to ask again."""

    def begin_wait(self) -> None: ...


async def enter(pace: Pace, body_bytes: int, deadline_s: float, loop: asyncio.AbstractEventLoop) -> None:
    """A request with such a body came; returns when it may go on.

    Raises:
        DeadlineExceeded: what was passed on before leaves no time for it.
    """
    if pace.spend(body_bytes):
        pace.begin_wait()
    while wait_s := pace.wait_s():
        if loop.time() + wait_s >= deadline_s:
            raise DeadlineExceeded(pace.short)
        await asyncio.sleep(wait_s)


def bounded(wait_s: float) -> float:
    """How long to wait before another look; 0 stays 0."""
    return min(LOOK_S, max(_SOON_S, wait_s)) if wait_s else 0.0


class Meter:
    """A `Pace`: what one Tenant may still pass on, over all gateways together."""

    __slots__ = ("_account", "_bytes", "_loop", "_waits")

    short = (
        "The Tenant's bandwidth (spec.limits.bytesPerSecond) leaves no room before the deadline of the request. "
        "Allow it more time, or ask the owner of the Tenant for more."
    )

    def __init__(
        self, account: Callable[[], Account | None], loop: asyncio.AbstractEventLoop, bytes_: Count, waits: Count
    ) -> None:
        """`account`: the part of the limit that is held here, as the limit is now; None when there is none any more."""
        self._account, self._loop = account, loop
        self._bytes, self._waits = bytes_, waits

    def spend(self, amount: int) -> bool:
        self._bytes.inc(amount)
        account = self._account()
        if account is None:
            return False
        account.fill(self._loop.time())
        account.charge(amount)
        return account.level < 0

    def wait_s(self) -> float:
        """What is owed is told to the other gateways as a want."""
        account = self._account()
        if account is None:
            return 0.0
        account.fill(self._loop.time())
        if account.level >= 0:
            return 0.0
        account.want = max(account.want, -account.level)
        return bounded(-account.level / account.rate_per_s)

    def begin_wait(self) -> None:
        self._waits.inc()


class PacedReply:
    """A reply whose source waits while its pace says so. A `Reply`, and the `Flow` of the one inside."""

    __slots__ = ("_client_waits", "_flow", "_loop", "_pace", "_reply", "_timer")

    def __init__(self, reply: Reply, pace: Pace, loop: asyncio.AbstractEventLoop) -> None:
        self._reply, self._pace, self._loop = reply, pace, loop
        self._flow: Flow | None = None
        self._client_waits = False
        self._timer: asyncio.TimerHandle | None = None

    # --- Reply ------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._reply.closed

    def answer(self, answer: Answer) -> None:
        self._reply.answer(answer)
        self._spend(len(answer.body))

    def respond(self, status: int, block: bytes, body: bytes) -> None:
        self._reply.respond(status, block, body)
        self._spend(len(body))

    def begin(self, status: int, block: bytes, length: int | None, first: bytes) -> None:
        self._reply.begin(status, block, length, first)
        self._spend(len(first))

    def write(self, data: bytes) -> None:
        self._reply.write(data)
        self._spend(len(data))

    def end(self) -> None:
        self._reply.end()

    def abort(self) -> None:
        self._reply.abort()

    def govern(self, flow: Flow | None) -> None:
        self._flow = flow
        if flow is None:
            self._client_waits = False
            self._go_on()
            self._reply.govern(None)
            return
        if self._timer is not None:
            flow.pause()
        self._reply.govern(self)

    # --- Flow: the client does not read -----------------------------------------------------------------------------

    def pause(self) -> None:
        self._client_waits = True
        if self._flow is not None:
            self._flow.pause()

    def resume(self) -> None:
        self._client_waits = False
        if self._flow is not None and self._timer is None:
            self._flow.resume()

    # --- its turn ---------------------------------------------------------------------------------------------------

    def _spend(self, amount: int) -> None:
        if self._pace.spend(amount) and self._flow is not None and self._timer is None:
            self._flow.pause()
            self._pace.begin_wait()
            self._look()

    def _look(self) -> None:
        wait_s = self._pace.wait_s()
        if wait_s:
            self._timer = self._loop.call_later(wait_s, self._look)
            return
        self._go_on()
        if self._flow is not None and not self._client_waits:
            self._flow.resume()

    def _go_on(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
