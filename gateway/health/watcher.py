"""Asks every endpoint for its load, several times a second, on a connection of its own.

One question at a time per endpoint, and a bounded number at all; the more endpoints, the longer between questions, so
that asking never costs more than a small part of a core. Tells what it hears; what follows is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from crds.contract import WORKER_PATH_LOAD
from gateway.health.load import (
    Evidence,
    Load,
    Loss,
    ProgressPolicy,
    StallPolicy,
    load_in,
    lost_at_s,
    stalls_in_s,
    suspect_at_s,
)
from gateway.http1.client import Lost, UpstreamConnection
from gateway.http1.messages import Headers
from gateway.http1.pool import ConnectError, Pool
from gateway.http1.sockets import start_task

ASKED_PER_S = 1_000
"""Questions of one process a second, at most."""
OPEN_MOST = 256
JITTER = 0.2
MUTE_S = 30.0
"""Between questions to a worker that has no such report."""
REPORT_BYTES = 64 * 1024
CLOSES = 3
"""So many connections that end without an answer, one after the other, are no report either."""
CLOCK_S = 0.001
"""As fine as the loop's clock is."""
READ_S = 0.05
"""For the loop to read what has come meanwhile."""
LATE_S = 0.1
"""A timer of ours that is later than this says that our own loop stood still, and nothing of the worker."""


class Watched(Protocol):
    """An endpoint, as far as asking is concerned."""

    host: bytes
    heard_s: float
    """When anything last came from it on any connection, by the loop's clock."""


class Ear(Protocol):
    """Who is told."""

    def on_load(self, load: Load) -> None: ...
    def on_mute(self) -> None:
        """It answers, but knows no `/load`."""

    def on_suspicion(self) -> None:
        """It has not answered yet, and nothing else has come from it either."""

    def on_loss(self, loss: Loss) -> None: ...


class Share:
    """What all watches of a process have in common."""

    def __init__(self, policy: ProgressPolicy, stall_policy: StallPolicy, loop: asyncio.AbstractEventLoop) -> None:
        self.policy = policy
        self.stall_policy = stall_policy
        self.loop = loop
        self.rng = random.Random()
        self.watches = 0
        self.open = 0

    def pause_s(self) -> float:
        every_s = max(self.policy.ask_every_s, self.watches / ASKED_PER_S)
        return every_s * (1.0 + JITTER * (2.0 * self.rng.random() - 1.0))

    def pause_after_s(self, load: Load) -> float:
        """Until the engine would have stalled, where that is sooner and not too many are asked for it."""
        pause_s, stalls_s = self.pause_s(), stalls_in_s(load, self.stall_policy)
        few = self.watches <= ASKED_PER_S * self.policy.ask_every_s
        return min(pause_s, stalls_s + CLOCK_S) if few and stalls_s is not None else pause_s


class Watch:
    """One endpoint. Also the `Receiver` of the answers."""

    def __init__(self, watched: Watched, pool: Pool, ear: Ear, share: Share) -> None:
        self._watched = watched
        self._pool = pool
        self._ear = ear
        self._share = share
        self._head = b"GET %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (WORKER_PATH_LOAD.encode(), watched.host)
        self._connection: UpstreamConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._status = 0
        self._parts: list[bytes] = []
        self._bytes = 0
        self._closes = 0
        self._asked_s = 0.0
        self._due_s = 0.0
        self._asking = False
        self._suspected = False
        self._stopped = False
        share.watches += 1
        # The first questions of a fleet are spread as the later ones are.
        self._timer = share.loop.call_later(share.rng.random() * share.policy.ask_every_s / 2, self._ask)

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._share.watches -= 1
            self._settle()
            self._pool.close()

    # --- asking -------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        share = self._share
        if share.open >= OPEN_MOST:
            self._timer = share.loop.call_later(0.02, self._ask)
            return
        share.open += 1
        self._asking = True
        self._asked_s = share.loop.time()
        self._suspected = False
        self._expect_within(self._suspect_at_s() - self._asked_s)
        connection = self._pool.take()
        if connection is None:
            self._task = start_task(self._connect_and_send(), share.loop)
        else:
            self._send(connection)

    async def _connect_and_send(self) -> None:
        try:
            connection = await self._pool.connect()
        except ConnectError as error:
            refused = isinstance(error.__cause__, ConnectionRefusedError)
            if refused:
                self._lost(Loss(Evidence.REFUSED, "its address refuses connections"))
            return  # otherwise the timer tells
        if self._asking:
            self._send(connection)
        else:
            connection.abort()

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self._status = 0
        self._parts = []
        self._bytes = 0
        connection.send(self._head, b"", self)

    def _expect_within(self, wait_s: float) -> None:
        self._due_s = self._share.loop.time() + wait_s
        self._timer = self._share.loop.call_later(wait_s, self._late)

    def _suspect_at_s(self) -> float:
        return suspect_at_s(self._asked_s, self._watched.heard_s, self._share.policy)

    def _late(self) -> None:
        policy, now_s = self._share.policy, self._share.loop.time()
        suspect_s, lost_s = self._suspect_at_s(), lost_at_s(self._asked_s, self._watched.heard_s, policy)
        if now_s - self._due_s > LATE_S:
            # Its answer may lie in our socket; and to call it lost, it is given the time that we did not have.
            self._expect_within(policy.answer_within_s / 2 if self._suspected else READ_S)
        elif suspect_s - now_s > CLOCK_S:
            self._suspected = False
            self._expect_within(suspect_s - now_s)  # busy, and alive
        elif not self._suspected:
            self._suspected = True
            self._expect_within(max(lost_s - now_s, policy.answer_within_s - policy.suspect_after_s))
            self._ear.on_suspicion()
        elif lost_s - now_s > CLOCK_S:
            self._expect_within(lost_s - now_s)
        else:
            self._lost(Loss(Evidence.SILENT, f"no answer and no byte for {policy.answer_within_s:g} s"))

    # --- Receiver -----------------------------------------------------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        self._status = status

    def on_data(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes <= REPORT_BYTES:
            self._parts.append(data)
        else:
            self._again(MUTE_S, self._ear.on_mute)

    def on_end(self) -> None:
        self._connection = None
        self._closes = 0
        load = load_in(b"".join(self._parts)) if self._status == 200 else None
        if load is None:
            self._again(MUTE_S, self._ear.on_mute)
        else:
            self._again(self._share.pause_after_s(load), lambda: self._ear.on_load(load))

    def on_lost(self, lost: Lost) -> None:
        """The connection ended: asked again at once, which tells whether anybody is there."""
        self._connection = None
        self._closes += 1
        if lost is Lost.MALFORMED or self._closes >= CLOSES:
            self._closes = 0
            self._again(MUTE_S, self._ear.on_mute)
        else:
            self._again(self._share.policy.ask_every_s / 10, None)

    # --- afterwards ---------------------------------------------------------------------------------------------

    def _lost(self, loss: Loss) -> None:
        self._again(self._share.pause_s(), lambda: self._ear.on_loss(loss))

    def _again(self, pause_s: float, tell: Callable[[], None] | None) -> None:
        self._settle()
        if self._stopped:
            return
        self._timer = self._share.loop.call_later(pause_s, self._ask)
        if tell is not None:
            tell()

    def _settle(self) -> None:
        """Nothing is asked any more."""
        if self._asking:
            self._asking = False
            self._share.open -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task(self._share.loop):
            task.cancel()
