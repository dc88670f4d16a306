"""Requests that wait in the gateways for a worker of a service that may sleep: seen within a second.

A gateway that does not answer makes the number unknown rather than smaller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from controllers.history.interface import ServiceId
from controllers.inference_service.admin_ports import AdminPorts
from controllers.runtime.interface import Key, Marker

PERIOD_S: Final = 0.5


class WaitingBoard:
    """Who may sleep, and what waits for them."""

    def __init__(self, ports: AdminPorts, queue: Marker, gateways: Callable[[], frozenset[str]]) -> None:
        self._ports, self._queue, self._gateways = ports, queue, gateways
        self._followed: set[Key] = set()
        self._waiting: dict[ServiceId, int] = {}
        self._is_complete = False
        """Every gateway has answered; else what is not waiting may wait in one that was silent."""

    def follow(self, key: Key) -> None:
        """Ask for this service from now on; a change wakes the key."""
        self._followed.add(key)

    def forget(self, key: Key) -> None:
        self._followed.discard(key)

    def last(self, key: Key) -> int | None:
        """None while it is not known; 0 for services that are not followed."""
        if key not in self._followed:
            return 0
        return self._waiting.get(_id(key), 0 if self._is_complete else None)

    async def run(self) -> None:
        """Ask all gateways, again and again, while any service is followed; until cancelled."""
        while True:
            if self._followed:
                await self._round()
            else:
                self._waiting, self._is_complete = {}, False
            await asyncio.sleep(PERIOD_S)

    async def _round(self) -> None:
        answers = await asyncio.gather(*(self._ports.waiting(one) for one in sorted(self._gateways())))
        known = [answer for answer in answers if answer is not None]
        before = {key: self.last(key) for key in self._followed}
        self._is_complete = bool(known) and len(known) == len(answers)
        self._waiting = {}
        for service, number in (pair for answer in known for pair in answer.items()):
            self._waiting[service] = self._waiting.get(service, 0) + number
        for key, number_before in before.items():
            if key in self._followed and self.last(key) != number_before:
                self._queue.add(key)


def _id(key: Key) -> ServiceId:
    return ServiceId(key.namespace or "", key.name)
