"""The gate of one service: as many requests pass as its workers run at the same time, the others queue fairly.

Knows the workers by the number of their slots only. A service without a usable worker has an open gate: its requests
wait for a worker, not for a slot. Never grows beyond its bounds: the newest of the lowest class goes first, of the
tenant that has most there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from crds.contract import HEADER_CACHE_SALT, HEADER_CLASS, HEADER_TENANT, HEADER_WEIGHT
from gateway.admission.fair import Ask, FairQueue
from gateway.admission.pace import Pace, Patience, expired, surplus, too_late
from gateway.admission.slots import Slots
from gateway.admission.terms import Priority
from gateway.catalog import Tenant
from gateway.errors import Shed

_STANDING: Final = (
    f"{HEADER_CLASS}: %b\r\n{HEADER_TENANT}: %b\r\n{HEADER_WEIGHT}: %g\r\n{HEADER_CACHE_SALT}: %b\r\n"
).encode()


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """Of one service's queue."""

    requests: int = 4096
    bytes: int = 64 * 1024 * 1024
    wait_s: float = 60.0
    """For whom nothing is promised."""


class Waiting(Ask):
    """An `Ask` that somebody awaits."""

    __slots__ = ("admitted",)

    def __init__(
        self, tenant: str, weight: float, priority: Priority, tokens: float, came_s: float, deadline_s: float, size: int
    ) -> None:
        super().__init__(tenant, weight, priority, tokens, came_s, deadline_s, size)
        self.admitted: asyncio.Future[Slots | None] = asyncio.get_running_loop().create_future()


class Gate:
    """`enter`, and `leave` for everything that has entered."""

    def __init__(self, name: str, bounds: QueueBounds, on_shed: Callable[[Priority, str], None]) -> None:
        self.queue = FairQueue()
        self.pace = Pace()
        self.slots: Slots | None = None
        """None: open."""
        self.patience = Patience(None, None, bounds.wait_s)
        self._standings: dict[tuple[str, Priority], tuple[Tenant, bytes]] = {}
        self._name = name
        self._bounds = bounds
        self._on_shed = on_shed

    def standing(self, tenant: Tenant, priority: Priority) -> bytes:
        """The headers by which a worker knows the class, the share and the cached prefixes; rendered once."""
        known = self._standings.get((tenant.name, priority))
        if known is not None and known[0] is tenant:
            return known[1]
        whose = (priority.name.encode(), tenant.name.encode(), tenant.terms.weight, tenant.cache_salt)
        rendered = _STANDING % whose
        self._standings[tenant.name, priority] = (tenant, rendered)
        return rendered

    def pass_at_once(self, tenant: str, weight: float, priority: Priority, tokens: float) -> bool:
        """True, and through, where nobody waits and a slot is free."""
        slots = self.slots
        if slots is not None and (self.queue or not slots.take()):
            return False
        self.queue.meter(priority).pass_by(tenant, weight, tokens)
        return True

    def wait(self, waiting: Waiting) -> Waiting:
        """A place in the queue.

        Raises:
            Shed: it would wait for too long, or the queue is full of what is no lower.
        """
        refusal = too_late(self.queue, self.pace, self.patience, self._slots(), waiting)
        if refusal is not None:
            self._on_shed(waiting.priority, refusal.reason)
            message = f"The model '{self._name}' is busy: this request {refusal.message}."
            raise Shed(message, retry_after_s=refusal.retry_after_s)
        self._make_room(waiting)
        waiting.due_s = waiting.came_s + self.patience.allowed_s(waiting.priority)
        self.queue.push(waiting)
        return waiting

    def abandon(self, waiting: Waiting, now_s: float) -> None:
        """Whoever awaited it is gone."""
        if waiting.waits:
            self.queue.discard(waiting)
        elif waiting.admitted.done() and not waiting.admitted.cancelled() and waiting.admitted.exception() is None:
            self.leave(waiting.admitted.result(), None, now_s)

    def leave(self, slots: Slots | None, held_s: float | None, now_s: float) -> None:
        """It gives back what it took; `held_s` tells for how long it had it, where that tells something."""
        if held_s is not None:
            self.pace.saw(held_s)
        if slots is not None:
            slots.give_back()
        if self.queue:
            self.admit(now_s)

    def admit(self, now_s: float) -> None:
        """Lets in as many as there are slots for."""
        slots = self.slots
        while self.queue and (slots is None or slots.free > 0):
            waiting = self.queue.pop(now_s)
            assert isinstance(waiting, Waiting)
            if waiting.admitted.done():
                continue  # its client has just left
            if slots is not None:
                slots.take()
            waiting.admitted.set_result(slots)

    def tick(self, now_s: float) -> None:
        """Sheds who cannot be served in time, and admits after the number of slots has changed."""
        self.admit(now_s)
        if self.queue:
            for one in expired(self.queue, self.patience, now_s):
                self._shed(one, "Expired", "has waited for longer than it may")
            for one in surplus(self.queue, self.pace, self.patience, self._slots()):
                self._shed(one, "LowestClass", "gave way to higher classes, whose requests fill the queue")

    def close(self) -> None:
        """The service is gone; whoever waited will find that out."""
        self.slots = None
        self.admit(0.0)

    def _slots(self) -> int:
        return max(1, self.slots.held) if self.slots is not None else 1

    def _make_room(self, ask: Ask) -> None:
        bounds, queue, name = self._bounds, self.queue, ask.priority.name
        while len(queue) >= bounds.requests or queue.bytes + ask.bytes > bounds.bytes:
            other = queue.gives_way(ask.tenant, ask.weight, ask.priority)
            if other is None:
                self._on_shed(ask.priority, "QueueFull")
                raise Shed(
                    f"The model '{self._name}' is busy: {len(queue)} requests wait for it already, of {name} or higher."
                    " Try again later.",
                    retry_after_s=5,
                )
            queue.discard(other)
            if other.priority is ask.priority:
                self._shed(other, "QueueFull", "gave way to a tenant that has fewer in a full queue")
            else:
                self._shed(other, "LowestClass", "gave way to a higher class in a full queue")

    def _shed(self, ask: Ask, reason: str, why: str) -> None:
        assert isinstance(ask, Waiting)
        self._on_shed(ask.priority, reason)
        if not ask.admitted.done():
            message = f"The model '{self._name}' is busy: this {ask.priority.name} request {why}."
            ask.admitted.set_exception(Shed(message, retry_after_s=5))
