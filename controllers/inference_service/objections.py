"""What gateways hold against workers: asked of all of them each second, kept with its age.

A gateway that does not answer says nothing; when none does, nothing is known. Judges nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from controllers.history.interface import ServiceId
from controllers.inference_service.admin_ports import AdminPorts
from controllers.plans.healing.values import Objection, Objections
from controllers.runtime.interface import Key, Marker
from kube.resources import INFERENCE_SERVICES

PERIOD_S: Final = 1.0
Told = Mapping[ServiceId, Mapping[str, Objection]]


class ObjectionBoard:
    """The last word of each gateway."""

    def __init__(
        self, ports: AdminPorts, queue: Marker, gateways: Callable[[], frozenset[str]], clock: Callable[[], float]
    ) -> None:
        self._ports, self._queue, self._gateways, self._clock = ports, queue, gateways, clock
        self._told: dict[str, Told] = {}
        self._at_s: float | None = None

    def last(self, key: Key) -> Objections | None:
        """Of this service; None before the first answer."""
        if self._at_s is None:
            return None
        service = ServiceId.of(key)
        said = {gateway: told.get(service, {}) for gateway, told in self._told.items()}
        return Objections(said, self._clock() - self._at_s)

    async def run(self) -> None:
        """Ask, again and again, until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(PERIOD_S)

    async def round(self) -> None:
        """Services that something is held against are looked at each time: it grows older."""
        asked = sorted(self._gateways())
        answers = await asyncio.gather(*(self._ports.endpoints(one) for one in asked))
        before = {service for told in self._told.values() for service in told}
        told = {gateway: objections_in(one) for gateway, one in zip(asked, answers, strict=True) if one is not None}
        self._told = {gateway: one for gateway, one in told.items() if one is not None}
        if self._told:
            self._at_s = self._clock()
        for service in before | {service for one in self._told.values() for service in one}:
            self._queue.add(Key(INFERENCE_SERVICES.kind, service.namespace, service.name))


def objections_in(body: bytes) -> Told | None:
    """Of a gateway's answer; None when it is none. Entries that make no sense are left out."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    found: dict[ServiceId, dict[str, Objection]] = {}
    for name, pods in said.items():
        namespace, slash, service = str(name).partition("/")
        known = {str(pod): one for pod, entry in _items(pods) if (one := _objection(entry)) is not None}
        if slash and known:
            found[ServiceId(namespace, service)] = known
    return found


def _items(value: object) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _objection(entry: object) -> Objection | None:
    if not isinstance(entry, dict):
        return None
    state, reason, since_s = entry.get("state"), entry.get("reason"), entry.get("since_s")
    if state not in ("lost", "ejected", "returning") or not isinstance(reason, str):
        return None
    times = entry.get("times")
    if not isinstance(since_s, int | float) or since_s < 0 or type(times) is not int:
        return None
    return Objection(state, reason[:64], float(since_s), str(entry.get("message", ""))[:400], times)
