"""The loop of alerts alone: when it looks, whom it sends to at once, what it takes in. The clocks are the test's."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from controllers.alerting.desk import AlertDesk, TooManyAlerts
from controllers.alerting.slots import OF_A_POLICY, OF_A_RECEIVER, OF_ALL
from controllers.alerting.wishes import WishBoard
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.inbound import Heard, read
from controllers.plans.alerting.incidents import Sight
from controllers.plans.alerting.notices import Notice
from controllers.plans.alerting.readings import ServiceFacts
from controllers.runtime.interface import Key
from crds.alert_policy import Metric
from kube.informer import Informer
from kube.resources import Object
from tests.plans.alerting.build import DOWN, HOOK, facts, fleet, sight
from tests.waiting import eventually


@dataclass
class Policies:
    """An informer's cache."""

    held: dict[tuple[str, str], Object] = field(default_factory=dict)

    def put(self, namespace: str, name: str, **spec: Any) -> None:
        plain = {"rules": [DOWN], "receivers": [HOOK], "grouping": {"wait": "1s"}}
        meta = {"namespace": namespace, "name": name, "uid": name}
        self.held[namespace, name] = {"metadata": meta, "spec": plain | spec}

    def items(self) -> list[Object]:
        return list(self.held.values())

    def get(self, namespace: str, name: str) -> Object | None:
        return self.held.get((namespace, name))


@dataclass
class Seen:
    """`chat`, which is down or not."""

    down: bool = False
    looks: int = 0
    meanwhile: Callable[[], None] = lambda: None
    """Happens after the service was looked at, before the look is over."""

    async def facts(self, policy: Policy) -> list[ServiceFacts]:
        self.looks += 1
        found = [facts("chat", gauges={Metric.UNSERVABLE: float(self.down)})]
        self.meanwhile()
        return found

    def sight(self, policy: Policy, book: Book) -> Sight:
        return sight(fleet())


@dataclass
class Post:
    """A courier; `send` is what each receiver does with a message."""

    sent: list[tuple[str, str, str]] = field(default_factory=list)
    """(policy, receiver, status) of each message that was begun."""
    hooks: Mapping[str, Callable[[], Any]] = field(default_factory=dict)

    async def send(self, notice: Notice, policy: Policy) -> None:
        self.sent.append((policy.name, notice.receiver.name, notice.status))
        if notice.receiver.name in self.hooks:
            await self.hooks[notice.receiver.name]()

    async def close(self) -> None: ...


class Queue:
    def add(self, key: Key) -> None: ...
    def add_after(self, key: Key, delay_s: float) -> None: ...


@dataclass
class Office:
    """One desk and all around it."""

    policies: Policies = field(default_factory=Policies)
    seen: Seen = field(default_factory=Seen)
    post: Post = field(default_factory=Post)
    store: StoreThread = field(default_factory=lambda: StoreThread(Store(None)))
    wall_s: float = 1e9
    steady_s: float = 0.0

    def __post_init__(self) -> None:
        informer = cast("Informer[Object]", self.policies)
        self.desk = AlertDesk(
            informer, self.seen, self.store, self.post, Queue(), "sys", WishBoard(),
            clock=lambda: self.wall_s, steady=lambda: self.steady_s,
        )  # fmt: skip

    async def after(self, seconds: float) -> None:
        """A round so long after the last."""
        self.wall_s, self.steady_s = self.wall_s + seconds, self.steady_s + seconds
        await self.desk.round()
        await asyncio.sleep(0)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    it = Office()
    yield it
    await it.desk._stop()
    await it.store.close()


# --- when it looks --------------------------------------------------------------------------------------------------
async def test_a_clock_that_is_set_back_costs_no_look(office: Office) -> None:
    office.policies.put("demo", "watch", interval="15s")
    await office.after(0)
    office.wall_s -= 3600
    office.seen.down = True
    for _ in range(12):
        await office.after(5)
    assert office.seen.looks == 5
    await eventually(lambda: office.post.sent == [("watch", "hook", "firing")], "the page is sent")


async def test_who_wakes_a_policy_while_it_is_looked_at_is_not_forgotten(office: Office) -> None:
    office.policies.put("demo", "watch", interval="1h")

    def breaks() -> None:
        office.seen.meanwhile = lambda: None
        office.seen.down = True
        office.desk.wake(("demo", "watch"))

    office.seen.meanwhile = breaks
    await office.after(0)
    for _ in range(5):
        await office.after(1)
    await eventually(lambda: office.post.sent == [("watch", "hook", "firing")], "the page is sent")


# --- whom it sends to at once -----------------------------------------------------------------------------------------
async def never() -> None:
    await asyncio.Event().wait()


def begun_of(office: Office) -> dict[str, int]:
    """Messages of each policy."""
    return dict(Counter(policy for policy, *_ in office.post.sent))


async def test_a_dead_receiver_with_many_messages_delays_nobody_else(office: Office) -> None:
    """One incident of each alert: more than all slots."""
    dead = {"receivers": [HOOK | {"name": "dead"}], "grouping": {"by": ["alertname"], "wait": "1s"}}
    office.post.hooks = {"dead": never}
    office.policies.put("a", "slow", **dead, rules=[DOWN | {"name": f"down-{n}"} for n in range(40)])
    office.policies.put("demo", "watch")
    office.seen.down = True
    for _ in range(3):
        await office.after(2)
    await eventually(lambda: begun_of(office) == {"slow": OF_A_RECEIVER, "watch": 1}, "its two, and the other's page")


async def test_many_dead_receivers_of_one_policy_do_not_take_all_slots(office: Office) -> None:
    names = [f"dead-{n}" for n in range(16)]
    office.post.hooks = dict.fromkeys(names, never)
    receivers = [HOOK | {"name": name} for name in names]
    rules = [DOWN | {"name": f"down-{n}"} for n in range(OF_ALL)]
    office.policies.put("a", "slow", receivers=receivers, rules=rules, grouping={"by": ["alertname"], "wait": "1s"})
    office.policies.put("demo", "watch")
    office.seen.down = True
    for _ in range(3):
        await office.after(2)
    await eventually(lambda: begun_of(office) == {"slow": OF_A_POLICY, "watch": 1}, "its four, and the other's page")


# --- what it takes in -------------------------------------------------------------------------------------------------
def heard(namespace: str, *names: str, status: str = "firing") -> list[Heard]:
    alerts = [{"status": status, "labels": {"alertname": name, "namespace": namespace}} for name in names]
    return read(json.dumps({"version": "4", "alerts": alerts}).encode())


def external(office: Office, *place: str) -> dict[str, bool]:
    """Of each alert of a policy, whether an Alertmanager says that it fires."""
    book = office.desk.book((place[0], place[1])) or Book()
    return {one.labels["alertname"]: one.external for one in book.alerts.values()}


@pytest.fixture
def receiving(office: Office) -> Office:
    """The platform's policy, which takes everything, comes before the tenant's."""
    office.policies.put("sys", "all", receive={"matchers": []})
    office.policies.put("tenant", "own", receive={"matchers": []})
    office.desk._leads = True
    return office


async def test_a_full_policy_refuses_new_alerts_alone_and_keeps_no_other_from_them(
    receiving: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controllers.plans.alerting.book.EXTERNAL_MOST", 2)
    await receiving.desk.hear(heard("sys", "Disk", "Fan"))
    with pytest.raises(TooManyAlerts, match="1 of AlertPolicy sys/all, which has 2"):
        await receiving.desk.hear([*heard("tenant", "Node"), *heard("sys", "Disk", status="resolved")])
    assert external(receiving, "tenant", "own") == {"Node": True}
    assert external(receiving, "sys", "all") == {"Disk": False, "Fan": True}


async def test_a_disk_that_refuses_one_policy_keeps_no_other_from_its_alerts(
    receiving: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.set_alerts

    def refuse(store: Store, policy: str, *others: Any) -> None:
        if policy.startswith("sys/"):
            raise sqlite3.OperationalError("disk is full")
        write(store, policy, *others)

    monkeypatch.setattr(Store, "set_alerts", refuse)
    with pytest.raises(sqlite3.OperationalError):
        await receiving.desk.hear(heard("tenant", "Node"))
    assert external(receiving, "tenant", "own") == {"Node": True}
    assert external(receiving, "sys", "all") == {}
