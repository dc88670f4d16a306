"""Bytes a second of a Tenant: its answers wait, everybody else's go on, nothing is refused or lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest

from crds.tenant import Limits as ApiLimits
from gateway.admission.account import Account
from gateway.admission.bandwidth import LOOK_S, Meter, PacedReply, enter
from gateway.admission.link import Link, Portion
from gateway.admission.terms import Limits, Terms, terms_of
from gateway.catalog import ServiceKey
from gateway.errors import DeadlineExceeded
from gateway.figures import Count
from gateway.http1.messages import Answer, Flow
from tests.gateway.admission.test_limits_seen import with_terms
from tests.gateway.harness import OTHER_KEY, SETTINGS, Exchange, FakeWorker, answers, catalog, running, service, workers
from tests.waiting import eventually

RATE = 1000.0
"""Bytes a second, of which one second's worth can be saved up."""


@dataclass
class Timer:
    at_s: float
    act: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """A loop whose time passes when it is told to."""

    now_s: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, act: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now_s + delay_s, act))
        return self.timers[-1]

    def pass_to(self, until_s: float) -> None:
        while due := [one for one in self.timers if one.at_s <= until_s and not one.cancelled]:
            first = min(due, key=lambda one: one.at_s)
            self.timers.remove(first)
            self.now_s = max(self.now_s, first.at_s)
            first.act()
        self.now_s = until_s


@dataclass
class Source:
    """The worker's side."""

    paused: bool = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


@dataclass
class Client:
    """The reply inside; it notes what reaches the client."""

    came: list[bytes] = field(default_factory=list)
    flow: Flow | None = None
    closed: bool = False
    ended: bool = False

    def answer(self, answer: Answer) -> None:
        self.came.append(answer.body)

    def respond(self, status: int, block: bytes, body: bytes) -> None:
        self.came.append(body)

    def begin(self, status: int, block: bytes, length: int | None, first: bytes) -> None:
        self.came.append(first)

    def write(self, data: bytes) -> None:
        self.came.append(data)

    def end(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def govern(self, flow: Flow | None) -> None:
        self.flow = flow


@dataclass
class World:
    loop: Loop = field(default_factory=Loop)
    client: Client = field(default_factory=Client)
    source: Source = field(default_factory=Source)
    waits: Count = field(default_factory=Count)
    passed: Count = field(default_factory=Count)

    def __post_init__(self) -> None:
        self.account: Account | None = Account(60 * RATE, 1.0, 0.0)
        self.reply = self.another(self.client)
        self.reply.govern(self.source)

    def another(self, client: Client) -> PacedReply:
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        return PacedReply(client, Meter(lambda: self.account, loop, self.passed, self.waits), loop)

    def around(self, link: Link) -> PacedReply:
        """The same reply, whose Tenant also shares this link."""
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        return PacedReply(self.reply, Portion(link, "acme", 1.0, loop, self.waits), loop)


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_within_the_limit_never_waits(world: World) -> None:
    for at_s in range(10):
        world.loop.pass_to(float(at_s))
        world.reply.write(bytes(1000))
        assert not world.source.paused
    assert (world.waits.value, world.passed.value) == (0, 10_000)


def test_what_is_beyond_is_passed_on_and_then_the_source_waits_until_it_is_paid(world: World) -> None:
    world.reply.begin(200, b"", None, bytes(3000))
    assert (world.client.came, world.source.paused, world.waits.value) == ([bytes(3000)], True, 1)
    world.loop.pass_to(1.9)
    assert world.source.paused
    world.loop.pass_to(2.0 + LOOK_S)
    assert not world.source.paused


def test_over_time_no_more_passes_than_the_limit_and_what_one_read_brings(world: World) -> None:
    for tick in range(6000):
        world.loop.pass_to(tick / 100)
        if not world.source.paused:
            world.reply.write(bytes(50))
    assert 60 * RATE <= world.passed.value <= 61 * RATE + 50
    world.reply.end()
    assert sum(map(len, world.client.came)) == world.passed.value


def test_a_client_that_reads_slowly_and_the_limit_both_have_to_agree_that_it_goes_on(world: World) -> None:
    assert world.client.flow is world.reply
    world.reply.write(bytes(2000))
    world.reply.pause()
    world.loop.pass_to(5.0)
    assert world.source.paused, "the client does not read"
    world.reply.resume()
    assert not world.source.paused
    world.reply.write(bytes(2000))
    world.reply.pause()
    world.reply.resume()
    assert world.source.paused, "the limit is not paid"
    world.loop.pass_to(10.0)
    assert not world.source.paused


def test_a_stream_that_another_worker_goes_on_with_still_owes_what_it_owed(world: World) -> None:
    world.reply.write(bytes(4000))
    successor = Source()
    world.reply.govern(successor)
    assert successor.paused
    world.loop.pass_to(5.0)
    assert not successor.paused
    world.reply.write(bytes(4000))
    world.reply.govern(None)
    assert all(one.cancelled for one in world.loop.timers), "nothing is left behind"
    assert world.client.flow is None


def test_a_limit_that_is_lifted_lets_what_waits_go_on(world: World) -> None:
    world.reply.write(bytes(100_000))
    world.account = None
    world.loop.pass_to(LOOK_S)
    assert not world.source.paused
    world.reply.write(bytes(100_000))
    assert not world.source.paused


def test_what_is_owed_is_told_to_other_gateways_as_a_want(world: World) -> None:
    world.reply.write(bytes(4000))
    assert world.account
    assert world.account.want == pytest.approx(3000)


async def test_a_request_that_would_wait_beyond_its_deadline_is_told_so() -> None:
    loop = asyncio.get_running_loop()
    account = Account(60 * RATE, 1.0, loop.time())
    meter = Meter(lambda: account, loop, Count(), Count())
    with pytest.raises(DeadlineExceeded, match=r"spec\.limits\.bytesPerSecond"):
        await enter(meter, 100_000, loop.time() + 0.4, loop)


async def long_stream(exchange: Exchange) -> None:
    if not orjson.loads(exchange.asked.body).get("stream"):
        await answers(exchange)
        return
    await exchange.begin_events()
    for _ in range(12):
        await exchange.chunk(b"data: " + b"x" * 5000 + b"\n\n")
    await exchange.chunk(b"data: [DONE]\n\n")
    await exchange.end_events()


async def test_requests_of_a_tenant_beyond_its_bytes_wait_and_those_of_others_do_not() -> None:
    ask: dict[str, Any] = {"model": "chat", "messages": [], "stream": True}
    worker = FakeWorker(long_stream)
    async with workers(worker):
        both = catalog(service(worker), service(worker, key=ServiceKey("prod", "chat")))
        view = with_terms(both, limits=Limits(bytes_per_second=20_000, burst_s=1.0))
        async with running(view, SETTINGS) as gateway:
            since_s = time.monotonic()
            first = await gateway.post(ask)
            second = asyncio.ensure_future(gateway.post(ask | {"stream": False}))
            others = [await gateway.post(ask, key=OTHER_KEY) for _ in range(3)]
            assert (await second).status == 200
            took_s = time.monotonic() - since_s
            assert [one.status for one in (first, *others)] == [200] * 4
            assert all(
                one.body.count(b"x" * 5000) == 12 and one.body.endswith(b"[DONE]\n\n") for one in (first, *others)
            )
            assert took_s > 1.9, "60 kB less the 20 kB that were saved up, at 20 kB/s"
            assert await gateway.metric("bandwidth_waits_total", tenant="acme") >= 1
            assert await gateway.metric("limited_bytes_total", tenant="acme") > 60_000
            assert await gateway.metric("bandwidth_waits_total", tenant="globex") == 0


async def test_a_limit_may_change_while_a_stream_is_under_way() -> None:
    worker = FakeWorker(long_stream)
    async with workers(worker):
        plain = catalog(service(worker))
        slow = with_terms(plain, limits=Limits(bytes_per_second=1024, burst_s=1.0))
        async with running(slow, SETTINGS) as gateway:
            stream = asyncio.ensure_future(gateway.post({"model": "chat", "messages": [], "stream": True}))
            late = asyncio.ensure_future(gateway.post({"model": "chat", "messages": []}))
            waits = gateway.gateway._admission._counts.paces.labels("acme")
            await eventually(lambda: waits.value, "something waits")
            gateway.source.publish(with_terms(plain, limits=None))
            assert (await stream).body.endswith(b"[DONE]\n\n")
            assert (await late).status == 200


def test_terms_read_the_limit_from_the_api() -> None:

    terms = terms_of(ApiLimits.model_validate({"bytesPerSecond": 5_000_000}), 1, "P0", None)
    assert terms == Terms(limits=Limits(bytes_per_second=5_000_000))
