"""The loop of alerts: look at each policy when it is due, write down what changed, then send what is due.

Nothing is sent before it and that it is begun are written down, and what a receiver took is written down at once: a
restart loses nothing, and repeats at most the messages that it interrupted, under the same keys. Receivers are waited
for outside of the loop; one that is slow holds up itself, a little its own policy, and nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import ValidationError

from controllers.alerting.courier import DeliveryFailed, Messenger
from controllers.alerting.memory import changed_rows, from_rows, from_status, newest
from controllers.alerting.slots import Slots
from controllers.alerting.wishes import WishBoard
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.plans.alerting.alerts import NAMESPACE, SERVICE
from controllers.plans.alerting.book import (
    Book,
    Policy,
    begin,
    delivered,
    failed,
    fitting,
    hear,
    known_as,
    look,
    next_look_s,
    notices,
)
from controllers.plans.alerting.inbound import Heard, belongs, exporter
from controllers.plans.alerting.incidents import Sight
from controllers.plans.alerting.notices import Notice
from controllers.plans.alerting.reactions import next_end_s, wishes
from controllers.plans.alerting.readings import ServiceFacts
from controllers.runtime.interface import Key, Marker
from crds.alert_policy import AlertPolicySpec
from crds.alert_status import AlertPolicyStatus
from kube.informer import Informer
from kube.resources import ALERT_POLICIES, Object

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
AFTER_ERROR_S: Final = 30.0
OFF_LOOP_FROM: Final = 500
"""A look at so many alerts takes longer than the loop should stand still."""

Place = tuple[str, str]
"""Namespace and name of a policy."""


class Facts(Protocol):
    """`controllers.alerting.facts.Observer`."""

    async def facts(self, policy: Policy) -> list[ServiceFacts]: ...
    def sight(self, policy: Policy, book: Book) -> Sight: ...


@dataclass(slots=True)
class Desk:
    """One policy as the loop holds it."""

    uid: str
    """Of the policy: another of its name is another's business."""
    book: Book
    written: Book
    """As the store has it: behind after a disk that refused, or where another operator has led."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    due_s: float = -math.inf
    """By a clock that nobody sets."""
    asked: bool = True
    """Somebody waits for the next look: it is shown, whatever came of it."""
    sending: set[tuple[str, str]] = field(default_factory=set)
    """Incident and receiver of the messages under way."""


class NotReady(Exception):
    """This operator does not lead, or has not read its memory yet."""


class TooManyAlerts(Exception):
    """Policies hold as many alerts as they may."""


class AlertDesk:
    """`run` while leading; `hear` from the HTTP port; `book` for those who show it."""

    def __init__(
        self,
        policies: Informer[Object],
        facts: Facts,
        store: StoreThread,
        courier: Messenger,
        queue: Marker,
        system_namespace: str,
        wishes: WishBoard,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policies, self._facts, self._store, self._courier = policies, facts, store, courier
        self._queue, self._system, self._wishes = queue, system_namespace, wishes
        self._clock, self._steady = clock, steady
        self._desks: dict[Place, Desk] = {}
        self._leads = False
        self._news = asyncio.Event()
        self._slots = Slots()
        self._tasks: set[asyncio.Task[None]] = set()

    def book(self, place: Place) -> Book | None:
        """None before it was read."""
        desk = self._desks.get(place)
        return desk.book if desk else None

    def books(self) -> Mapping[Place, Book]:
        return {place: desk.book for place, desk in self._desks.items()}

    def wake(self, place: Place) -> None:
        """Look soon."""
        if place in self._desks:
            self._desks[place].due_s, self._desks[place].asked = -math.inf, True
        self._news.set()

    # --- the loop ---------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled; what is being sent is cancelled with it."""
        self._leads = True
        try:
            await self._forget_strangers()
            while True:
                self._news.clear()
                await self.round()
                await self._pause()
        finally:
            self._leads = False
            await self._stop()

    async def round(self) -> None:
        """A look at every policy that is due, and everything that is due to be sent."""
        policies = dict(self._declared())
        await self._forget_gone()
        for place, policy in policies.items():
            desk = await self._desk(place, policy)
            try:
                await self._turn(desk, policy)
            except Exception as error:  # one policy must not stop the others
                log.exception("AlertPolicy %s: %s. It is looked at again.", _name(place), type(error).__name__)
                self._later(desk, AFTER_ERROR_S)
                self._react(desk, policy)  # By what is remembered: what held goes on holding.
        self._wishes.complete()

    async def _turn(self, desk: Desk, policy: Policy) -> None:
        if self._steady() >= desk.due_s:
            asked, desk.asked = desk.asked, False
            await self._look(desk, policy)
            if asked:
                self._show(policy)
            now_s = self._clock()
            at_s = min(next_look_s(policy, desk.book, now_s), next_end_s(policy, desk.book, now_s))
            self._later(desk, at_s - now_s)
        self._send(desk, policy)

    def _later(self, desk: Desk, wait_s: float) -> None:
        if not desk.asked:  # Else somebody woke it during the look, which may have gone by what was before.
            desk.due_s = self._steady() + wait_s

    def _declared(self) -> Iterable[tuple[Place, Policy]]:
        for obj in self._policies.items():
            meta = obj["metadata"]
            if meta.get("deletionTimestamp"):
                continue
            try:
                spec = AlertPolicySpec.model_validate(obj["spec"])
            except ValidationError:
                continue  # The reconciler says so in its status.
            place = (meta["namespace"], meta["name"])
            yield place, Policy(*place, spec)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(TICK_S):
                await self._news.wait()
        except TimeoutError:
            return

    async def _look(self, desk: Desk, policy: Policy) -> None:
        facts = await self._facts.facts(policy)
        async with desk.lock:
            old, now_s = desk.book, self._clock()
            sight = self._facts.sight(policy, old)
            if len(old.alerts) < OFF_LOOP_FROM:
                new = look(policy, old, facts, sight, now_s)
            else:
                new = await asyncio.to_thread(look, policy, old, facts, sight, now_s)
            await self._keep(desk, policy, new)
            self._react(desk, policy)

    def _react(self, desk: Desk, policy: Policy) -> None:
        self._wishes.put((policy.namespace, policy.name), wishes(policy, desk.book, self._clock()))

    # --- memory -----------------------------------------------------------------------------------------------------
    async def _desk(self, place: Place, policy: Policy) -> Desk:
        found = self._desks.get(place)
        if found is None:
            obj = self._policies.get(*place) or {}
            stored = await self._stored(place, _uid(obj))
            made = Desk(
                _uid(obj), newest(stored, _shown(policy, obj.get("status") or {}, self._clock())), stored or Book()
            )
            # Somebody else may have read it meanwhile; there must be one book.
            found = self._desks.setdefault(place, made)
        return found

    async def _stored(self, place: Place, uid: str) -> Book | None:
        try:
            found = await self._store.call(Store.alerts, _kept_as(place, uid))
        except sqlite3.Error as error:
            log.warning(
                "What was known of AlertPolicy %s cannot be read: %s. Its status is gone by.", _name(place), error
            )
            return None
        return None if found is None else from_rows(found[1], found[0])

    async def _keep(self, desk: Desk, policy: Policy, new: Book) -> None:
        """Write down, then hold, then show. A disk that refuses stops no page: the status remembers those, too."""
        if new is desk.book:
            return
        try:
            await self._write(desk, policy, new)
        except sqlite3.Error as error:
            log.warning("AlertPolicy %s/%s was not written down yet: %s", policy.namespace, policy.name, error)
        desk.book = new
        self._show(policy)

    def _show(self, policy: Policy) -> None:
        self._queue.add(Key(ALERT_POLICIES.kind, policy.namespace, policy.name))

    async def _write(self, desk: Desk, policy: Policy, new: Book) -> None:
        """All that the store lacks of the new book, not only the last change. Raises sqlite3.Error."""
        rows, gone = changed_rows(desk.written, new)
        if rows or gone:
            kept_as = _kept_as((policy.namespace, policy.name), desk.uid)
            await self._store.call(Store.set_alerts, kept_as, new.epoch, rows, gone)
        desk.written = new

    async def _forget_gone(self) -> None:
        """Policies that are there no more, and those that another of their name has replaced since the last look."""
        for place, desk in list(self._desks.items()):
            policy = self._policies.get(*place)
            if policy is None or _uid(policy) != desk.uid:
                del self._desks[place]
                self._wishes.put(place, {})
                await self._erase(_kept_as(place, desk.uid))

    async def _forget_strangers(self) -> None:
        """Policies that went while no operator of this store led, whatever has their names now."""
        metas = (one["metadata"] for one in self._policies.items())
        there = {_kept_as((meta["namespace"], meta["name"]), meta["uid"]) for meta in metas}
        try:
            known = await self._store.call(Store.alert_policies)
        except sqlite3.Error as error:
            log.warning("Of which AlertPolicies something is known cannot be read: %s.", error)
            return
        for kept_as in known:
            if kept_as not in there:
                await self._erase(kept_as)

    async def _erase(self, kept_as: str) -> None:
        try:
            await self._store.call(Store.forget_alerts, kept_as)
        except sqlite3.Error as error:
            log.warning("What was known of AlertPolicy %s was not removed: %s", kept_as, error)

    # --- sending ----------------------------------------------------------------------------------------------------
    def _send(self, desk: Desk, policy: Policy) -> None:
        for notice in notices(policy, desk.book, self._clock()):
            if notice.place not in desk.sending:
                desk.sending.add(notice.place)
                task = asyncio.create_task(self._deliver(desk, policy, notice), name=f"notice {notice.incident.id}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _deliver(self, desk: Desk, policy: Policy, notice: Notice) -> None:
        try:
            async with self._slots.of(policy.namespace, policy.name, notice.receiver.name):
                if not await self._begin(desk, policy, notice):
                    return
                error = await self._try(policy, notice)
            async with desk.lock:
                if self._is_there(desk, policy):
                    await self._keep(desk, policy, _after(desk.book, notice, error, self._clock()))
        finally:
            desk.sending.discard(notice.place)
        place = _name((policy.namespace, policy.name))
        if error is None:
            log.info(
                "%s: '%s' was told of incident %s: %s.", place, notice.receiver.name, notice.incident.id, notice.reason
            )
        else:
            log.warning(
                "%s: '%s' was not told of incident %s: %s", place, notice.receiver.name, notice.incident.id, error
            )

    async def _begin(self, desk: Desk, policy: Policy, notice: Notice) -> bool:
        """Write down that the message is under way; False when it is to be told no more."""
        async with desk.lock:
            begun = begin(desk.book, notice) if self._is_there(desk, policy) else None
            if begun is not None:
                await self._keep(desk, policy, begun)
            return begun is not None

    async def _try(self, policy: Policy, notice: Notice) -> DeliveryFailed | None:
        try:
            await self._courier.send(notice, policy)
        except DeliveryFailed as error:
            return error
        except Exception as error:  # a mistake of ours is tried again with patience, too
            log.exception("The message of incident %s was not made or sent.", notice.incident.id)
            return DeliveryFailed(f"The message was not made or sent ({type(error).__name__}).", doubtful=True)
        return None

    def _is_there(self, desk: Desk, policy: Policy) -> bool:
        """Whether the policy has not gone meanwhile."""
        return self._desks.get((policy.namespace, policy.name)) is desk

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._courier.close()

    # --- Alertmanagers ----------------------------------------------------------------------------------------------
    async def hear(self, heard: list[Heard]) -> int:
        """Take alerts in and write them down; how many belong to a policy.

        What one policy cannot take keeps no other from its own.
        Raises: NotReady; sqlite3.Error and TooManyAlerts, after every policy had its turn.
        """
        if not self._leads:
            raise NotReady("This operator does not lead.")
        taken: set[str] = set()
        unwritten: list[sqlite3.Error] = []
        full: list[str] = []
        declared = list(self._declared())
        echoed = {place for place, one in declared if one.spec.export and one.spec.receive is not None}
        whose = [(one, place if (place := exporter(one)) in echoed else None) for one in heard]
        for place, policy in declared:
            mine = [one for one, owner in whose if belongs(one, owner, policy.spec, place, self._system)]
            if not mine:
                continue
            desk = await self._desk(place, policy)
            try:
                fit = await self._take_in(desk, policy, mine)
            except sqlite3.Error as error:
                unwritten.append(error)
                continue
            if len(fit) < len(mine):
                full.append(f"{len(mine) - len(fit)} of AlertPolicy {_name(place)}, which has {len(desk.book.alerts)}")
            taken |= {one.fingerprint for one in mine}
            self.wake(place)
        if unwritten:
            raise unwritten[0]
        if full:
            raise TooManyAlerts(
                f"No room for new alerts: {'; '.join(full)}. Narrow spec.receive.matchers, or resolve what is over."
            )
        return len(taken)

    async def _take_in(self, desk: Desk, policy: Policy, heard: list[Heard]) -> list[Heard]:
        """What there was room for. Raises sqlite3.Error."""
        async with desk.lock:
            fit = fitting(desk.book, [known_as(policy, desk.book, one) for one in heard])
            new = hear(desk.book, fit, self._clock())
            await self._write(desk, policy, new)
            news = [one for one in fit if _is_news(desk.book, one)]
            desk.book = new
            self._react(desk, policy)
        for one in news:
            self._concern(one)
        return fit

    def _concern(self, heard: Heard) -> None:
        namespace, service = heard.labels.get(NAMESPACE), heard.labels.get(SERVICE)
        if namespace and service:
            self._wishes.concern(namespace, service)


def _is_news(book: Book, heard: Heard) -> bool:
    """Alertmanager repeats itself; a service is looked at when it says something else than before."""
    known = book.alerts.get(heard.fingerprint)
    return known is None or known.external is not heard.firing


def _after(book: Book, notice: Notice, error: DeliveryFailed | None, now_s: float) -> Book:
    if error is None:
        return delivered(book, notice, now_s)
    return failed(book, notice, str(error), now_s, error.retry_after_s, doubtful=error.doubtful)


def _shown(policy: Policy, status: Mapping[str, Any], now_s: float) -> Book:
    """As much of the book as the status holds; nothing of one that this release cannot read."""
    try:
        return from_status(policy, AlertPolicyStatus.model_validate(status), now_s)
    except ValueError as error:
        log.warning("The status of AlertPolicy %s/%s is not understood: %s", policy.namespace, policy.name, error)
        return Book()


def _uid(policy: Object | None) -> str:
    """Empty for one that is not there."""
    return str((policy or {}).get("metadata", {}).get("uid", ""))


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _kept_as(place: Place, uid: str) -> str:
    """The store's name of a policy: what was known of one does not pass on to the next of its name."""
    return f"{_name(place)}/{uid}"
