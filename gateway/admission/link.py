"""A gateway's own bytes a second, where they are scarce: shared by weight among the Tenants that want to send.

Each Tenant has an account of the same depth. The link fills them by weight, and what a full one cannot take goes to the
others (weighted max-min fairness): nothing stays unused while anybody waits. A full account is as good as none, so only
what is missing is kept, of those who lately sent; an end of all answers forgives no debt. Knows one process and no
other, refuses nobody, and does not tell the answers of one Tenant apart. Pure: `now_s` is an argument.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from gateway.admission.bandwidth import bounded
from gateway.figures import Count

SAVED_S: Final = 0.1
"""Of the whole link, that a Tenant may send at once after a pause."""
FILL_S: Final = 0.002
"""Accounts are not filled more often, so that a chunk costs the same however many Tenants there are."""


@dataclass(slots=True)
class _Lack:
    """What a Tenant's account lacks to be full."""

    bytes: float
    weight: float


class Link:
    """What each Tenant may still send."""

    __slots__ = ("_at_s", "_bytes_per_second", "_lacks")

    def __init__(self, bytes_per_second: float, now_s: float) -> None:
        self._bytes_per_second, self._at_s = bytes_per_second, now_s
        self._lacks: dict[str, _Lack] = {}

    def charge(self, tenant: str, weight: float, amount: int, now_s: float) -> bool:
        """It was passed on; True when that is more than the Tenant may send by now."""
        self._fill(now_s)
        lack = self._lacks.setdefault(tenant, _Lack(0.0, weight))
        lack.bytes += amount
        lack.weight = weight
        return self._owed(lack) > 0

    def wait_s(self, tenant: str, now_s: float) -> float:
        """0 when it may send; else until then, if the same others go on to want as much."""
        self._fill(now_s)
        lack = self._lacks.get(tenant)
        if lack is None or self._owed(lack) <= 0:
            return 0.0
        return self._owed(lack) * self._weights() / (self._bytes_per_second * lack.weight)

    def _owed(self, lack: _Lack) -> float:
        return lack.bytes - SAVED_S * self._bytes_per_second

    def _weights(self) -> float:
        return sum(one.weight for one in self._lacks.values())

    def _fill(self, now_s: float) -> None:
        if now_s - self._at_s < FILL_S:
            return
        left = (now_s - self._at_s) * self._bytes_per_second
        self._at_s = now_s
        while left > 0 and self._lacks:
            each = left / self._weights()
            full = [name for name, one in self._lacks.items() if one.bytes <= each * one.weight]
            for name in full:
                left -= self._lacks.pop(name).bytes
            if not full:
                for one in self._lacks.values():
                    one.bytes -= each * one.weight
                return


class Portion:
    """A `Pace`: one Tenant's part of the link, by the weight that it had when the request came."""

    __slots__ = ("_link", "_loop", "_tenant", "_waits", "_weight")

    short = (
        "The gateway's bandwidth (Helm value gateway.bytesPerSecond) leaves the Tenant no room before the deadline of "
        "the request. Allow it more time, or ask for more gateways or a greater weight."
    )

    def __init__(self, link: Link, tenant: str, weight: float, loop: asyncio.AbstractEventLoop, waits: Count) -> None:
        self._link, self._tenant, self._weight = link, tenant, weight
        self._loop, self._waits = loop, waits

    def spend(self, amount: int) -> bool:
        return self._link.charge(self._tenant, self._weight, amount, self._loop.time())

    def wait_s(self) -> float:
        return bounded(self._link.wait_s(self._tenant, self._loop.time()))

    def begin_wait(self) -> None:
        self._waits.inc()
