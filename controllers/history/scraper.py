"""Asks every gateway what it counted, and writes what happened in between into the store. Decides nothing.

Runs in standbys too, so that a new leader knows the past as well as the old one did.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from controllers.history.counters import Page, Seen, read_page, tally
from controllers.history.store import Store
from controllers.history.thread import StoreThread

log = logging.getLogger(__name__)

PRUNE_EVERY_S: Final = 600.0


class Gateways(Protocol):
    """Who they are, and what they show."""

    def addresses(self) -> frozenset[str]:
        """Of those that are ready."""
        ...

    async def metrics(self, gateway: str) -> str | None:
        """The metrics page of one; None when it does not answer."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


class Scraper:
    """One round every `period_s`."""

    def __init__(
        self,
        gateways: Gateways,
        store: StoreThread,
        period_s: float,
        *,
        hears: Callable[[Mapping[str, str], float], None] = lambda texts, now_s: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`hears` gets the metrics pages of each round by gateway, and the Unix time."""
        self._gateways, self._store, self._period_s, self._clock = gateways, store, period_s, clock
        self._hears = hears
        self._seen: dict[str, Seen] = {}
        self._last_round_s: float | None = None
        self._pruned_s = float("-inf")

    async def run(self) -> None:
        """Until cancelled. A disk that refuses is logged, and asked again in the next round."""
        try:
            while True:
                await self._round_or_warn()
                await asyncio.sleep(self._period_s)
        finally:
            await self._gateways.close()

    async def _round_or_warn(self) -> None:
        try:
            await self.round()
        except sqlite3.Error as error:
            log.warning("The history was not written: %s. It is tried again in %.0f s.", error, self._period_s)

    async def round(self) -> None:
        """Ask all, count, write."""
        asked = sorted(self._gateways.addresses())
        answers = await asyncio.gather(*(self._gateways.metrics(one) for one in asked))
        texts = {one: text for one, text in zip(asked, answers, strict=True) if text is not None}
        pages = {one: read_page(text) for one, text in texts.items()}
        now_s = self._clock()
        self._hears(texts, now_s)
        counted = tally(self._seen, pages, self._last_round_s, now_s, self._period_s)
        self._remember(pages, frozenset(asked), now_s)
        await self._prune(now_s)
        if counted.rows:
            await self._store.call(Store.add, counted.rows, counted.seconds, now_s)

    async def _prune(self, now_s: float) -> None:
        """First: where there is no room, nothing can be added before."""
        if 0 <= now_s - self._pruned_s < PRUNE_EVERY_S:  # A clock may be set back.
            return
        self._pruned_s = now_s
        try:
            await self._store.call(Store.prune, now_s)
        except sqlite3.Error as error:
            log.warning("The history was not pruned: %s. It is tried again in %.0f s.", error, PRUNE_EVERY_S)

    def _remember(self, pages: Mapping[str, Page], asked: frozenset[str], now_s: float) -> None:
        if pages:
            self._last_round_s = now_s
        kept = {one: seen for one, seen in self._seen.items() if one in asked}
        self._seen = kept | {one: Seen(now_s, page) for one, page in pages.items()}
