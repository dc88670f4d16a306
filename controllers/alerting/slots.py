"""How many messages are under way at once: of a receiver, of a policy, and of all. A receiver that answers nobody holds
each of its slots until it is given up; what waits for it waits before it takes any of the others'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

OF_A_RECEIVER: Final = 2
OF_A_POLICY: Final = 4
OF_ALL: Final = 32
"""Dead receivers of eight policies fill it; a message of another waits then behind four of each, no more."""


class Slots:
    """`of` holds one of each kind."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(OF_ALL)
        # Gone with the last that holds it or waits for it.
        self._some: WeakValueDictionary[tuple[str, ...], asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, namespace: str, policy: str, receiver: str) -> AsyncIterator[None]:
        """From the narrowest on."""
        async with (
            self._one((namespace, policy, receiver), OF_A_RECEIVER),
            self._one((namespace, policy), OF_A_POLICY),
            self._all,
        ):
            yield

    def _one(self, name: tuple[str, ...], most: int) -> asyncio.Semaphore:
        return self._some.setdefault(name, asyncio.Semaphore(most))
