"""What clients ask of services that may sleep, as the gateways see it: known within a second, for those services only.

A gateway that does not answer makes the whole unknown, except for requests that wait in the others: those are certain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from controllers.history.interface import ServiceId
from controllers.inference_service.admin_ports import AdminPorts
from controllers.plans.snapshot import Demanded
from controllers.runtime.interface import Key, Marker

PERIOD_S: Final = 0.25


class DemandBoard:
    """Who may sleep, and what is asked of them."""

    def __init__(self, ports: AdminPorts, queue: Marker, gateways: Callable[[], frozenset[str]]) -> None:
        self._ports, self._queue, self._gateways = ports, queue, gateways
        self._followed: set[Key] = set()
        self._known: dict[ServiceId, Demanded] = {}

    def follow(self, key: Key) -> None:
        """Ask for this service from now on; requests that begin or cease to wait wake the key."""
        self._followed.add(key)

    def forget(self, key: Key) -> None:
        self._followed.discard(key)

    def last(self, key: Key) -> Demanded | None:
        """Over all gateways; None while it is not known, and for services that are not followed."""
        return self._known.get(ServiceId.of(key)) if key in self._followed else None

    async def run(self) -> None:
        """Ask all gateways, again and again, while any service is followed; until cancelled."""
        while True:
            if self._followed:
                await self._round()
            else:
                self._known = {}
            await asyncio.sleep(PERIOD_S)

    async def _round(self) -> None:
        answers = await asyncio.gather(*(self._ports.demand(one) for one in sorted(self._gateways())))
        before = {key: self._waiting(key) for key in self._followed}
        services = {service for answer in answers if answer for service in answer}
        together = {
            one: over_all([None if answer is None else answer.get(one) for answer in answers]) for one in services
        }
        self._known = {service: demand for service, demand in together.items() if demand is not None}
        for key, waiting in before.items():
            if key in self._followed and self._waiting(key) != waiting:
                self._queue.add(key)

    def _waiting(self, key: Key) -> int | None:
        demand = self.last(key)
        return None if demand is None else demand.waiting


def over_all(said: Sequence[Demanded | None]) -> Demanded | None:
    """The sum over all gateways; one that says nothing may hold requests of its own."""
    known = [one for one in said if one is not None]
    total = Demanded(
        sum(one.open for one in known),
        sum(one.waiting for one in known),
        min((one.idle_s for one in known), default=0.0),
    )
    return total if known and (len(known) == len(said) or total.waiting) else None
