"""Limits and the queue as clients meet them, through real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.admission.gate import QueueBounds
from gateway.admission.pace import Pace
from gateway.admission.terms import Limits, Prices, Priority, Terms
from gateway.catalog import Catalog, Service
from tests.gateway.harness import (
    CHAT,
    KEY,
    OTHER_KEY,
    SETTINGS,
    Exchange,
    FakeWorker,
    Running,
    answers,
    catalog,
    completion,
    load,
    running,
    service,
    workers,
)
from tests.waiting import eventually, eventually_told

ASK = {"model": "chat", "messages": [], "max_tokens": 100}
P1, P2, P3 = Priority.P1, Priority.P2, Priority.P3


def with_terms(one: Catalog, tenant: str = "acme", **terms: Any) -> Catalog:
    """The same view, with a Tenant on these terms."""
    return replace(one, tenants={**one.tenants, tenant: replace(one.tenants[tenant], terms=Terms(**terms))})


@contextlib.asynccontextmanager
async def serving(
    *all_: FakeWorker, settings: Any = SETTINGS, slots: int | None = None, **terms: Any
) -> AsyncIterator[Running]:
    async with workers(*all_):
        view = with_terms(catalog(replace(service(*all_), worker_slots=slots)), **terms)
        async with running(view, settings) as one:
            yield one


async def test_requests_beyond_the_limit_are_refused_with_the_limit_and_the_time_named() -> None:
    async with serving(FakeWorker(answers), limits=Limits(requests_per_minute=60, burst_s=2.0)) as gateway:
        got = [await gateway.post(ASK) for _ in range(4)]
        assert [one.status for one in got[:2]] == [200, 200]
        refused = next(one for one in got if one.status == 429)
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-ratelimit-limit-requests"] == "60"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.error["type"] == "rate_limit_error"
        assert refused.error["code"] == "rate_limit_exceeded"
        assert (
            "Tenant 'acme' is at its limit of 60 requests a minute (spec.limits.requestsPerMinute)"
            in refused.error["message"]
        )
        assert await gateway.metric("limited_total", tenant="acme", limit="requests") >= 1
        assert await gateway.metric("arrivals_total") == sum(one.status == 200 for one in got)


async def test_an_answer_tells_what_is_left() -> None:
    limits = Limits(requests_per_minute=60, tokens_per_minute=6000, burst_s=60.0)
    async with serving(FakeWorker(answers), limits=limits) as gateway:
        headers = (await gateway.post(ASK)).headers
        assert headers["x-ratelimit-limit-tokens"] == "6000"
        assert headers["x-ratelimit-remaining-requests"] == "59"
        assert 5800 < int(headers["x-ratelimit-remaining-tokens"]) < 5900
        assert headers["x-ratelimit-reset-requests"].endswith("s")


async def test_tokens_that_an_answer_did_not_take_are_given_back() -> None:
    limits = Limits(tokens_per_minute=600, burst_s=60.0)
    async with serving(FakeWorker(answers), limits=limits) as gateway:
        for _ in range(20):  # 20 × 100 reserved, 20 × 2 taken
            assert (await gateway.post(ASK)).status == 200
        assert await gateway.metric("tenant_tokens_total", tenant="acme") == 40
        assert await gateway.metric("tenant_refunded_tokens_total", tenant="acme") > 1900


async def test_tokens_beyond_what_was_reserved_are_charged() -> None:
    async def long(exchange: Exchange) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 700, "total_tokens": 710}
        await exchange.json(200, completion("x") | {"usage": usage})

    async with serving(FakeWorker(long), limits=Limits(tokens_per_minute=600, burst_s=60.0)) as gateway:
        assert (await gateway.post(ASK)).status == 200
        refused = await gateway.post(ASK)
        assert refused.status == 429
        assert "600 tokens a minute (spec.limits.tokensPerMinute)" in refused.error["message"]
        assert int(refused.headers["retry-after"]) > 10


async def test_whoever_owes_tokens_is_told_to_wait_until_they_are_paid() -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.hang()

    worker = FakeWorker(hangs)
    async with serving(worker, limits=Limits(tokens_per_minute=6000, burst_s=1.0)) as gateway:
        asking = asyncio.create_task(gateway.post(ASK | {"max_tokens": 5900}))
        await eventually(lambda: worker.asked, "it is admitted, and owes nearly a minute of the limit")
        refused = await gateway.post(ASK)
        assert refused.status == 429
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert 40 < int(refused.headers["retry-after"]) <= 60
    assert 40.0 < float(refused.headers["x-ratelimit-reset-tokens"].removesuffix("s")) <= 60.0


async def test_a_request_that_never_fits_is_told_so_and_not_to_try_again() -> None:
    async with serving(FakeWorker(answers), limits=Limits(tokens_per_minute=600)) as gateway:
        got = await gateway.post(ASK | {"max_tokens": 4000})
        assert got.status == 400
        assert got.error["code"] == "tokens_exceed_limit"
        assert "retry-after" not in got.headers


async def test_a_stream_that_its_client_leaves_costs_what_was_seen() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin_events()
        for number in range(5):
            await exchange.event(number)
        await exchange.hang()

    worker = FakeWorker(endless)
    async with serving(worker, limits=Limits(tokens_per_minute=6000, burst_s=60.0)) as gateway:
        body = ASK | {"stream": True, "max_tokens": 1000}
        request = gateway.session.post(
            gateway.url + "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}
        )
        async with request as response:
            await response.content.readuntil(b"t4")
        await eventually(lambda: worker.left == 1, "the worker was released")
        assert await gateway.metric("tenant_tokens_total", direction="output") == 5
        assert await gateway.metric("tenant_refunded_tokens_total") > 900


async def test_an_answer_too_large_to_hold_back_is_charged_as_its_worker_says() -> None:
    async def huge(exchange: Exchange) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 700, "total_tokens": 710}
        await exchange.json(200, completion("x" * 9_000_000) | {"usage": usage})

    async with serving(FakeWorker(huge), limits=Limits(tokens_per_minute=6000, burst_s=60.0)) as gateway:
        assert (await gateway.post(ASK)).status == 200
        assert (await charged(gateway, "input"), await charged(gateway)) == (10, 700)


@contextlib.asynccontextmanager
async def left_alone(gateway: Running, worker: FakeWorker, **changes: Any) -> AsyncIterator[None]:
    """A request that a worker has, and that its client leaves at the end."""
    before = len(worker.asked)
    asking = asyncio.create_task(gateway.post(ASK | {"max_tokens": 1000} | changes))
    await eventually(lambda: len(worker.asked) > before, "a worker has it")
    yield
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: not gateway.gateway._proxy.in_flight, "the gateway has noticed")


async def charged(gateway: Running, direction: str = "output") -> float:
    return await gateway.metric("tenant_tokens_total", tenant="acme", direction=direction)


async def hangs(exchange: Exchange) -> None:
    await exchange.hang()


async def test_an_answer_that_its_client_leaves_costs_what_a_worker_makes_in_that_time() -> None:
    worker = FakeWorker(answers, hangs)
    async with serving(worker, limits=Limits(tokens_per_minute=6000, burst_s=60.0)) as gateway:
        assert (await gateway.post(ASK)).status == 200
        assert (await charged(gateway), await charged(gateway, "input")) == (1, 1)
        pace = gateway.gateway._admission._gates[CHAT].pace
        assert pace.tokens_per_s is not None, "the answer has told it"
        pace.tokens_per_s = 1e6
        async with left_alone(gateway, worker):
            began_s = time.perf_counter()
            await eventually(lambda: time.perf_counter() - began_s > 0.002, "two thousand tokens are made")
        assert await charged(gateway) == 1 + 1000, "no more than it reserved"
        pace.tokens_per_s = 1e-6
        async with left_alone(gateway, worker):
            pass
        assert await charged(gateway) == 1 + 1000
        assert await charged(gateway, "input") > 1


async def test_an_answer_whose_time_is_up_costs_what_a_fast_worker_makes_while_no_pace_is_known() -> None:
    async with serving(FakeWorker(hangs), limits=Limits(tokens_per_minute=6000, burst_s=60.0)) as gateway:
        got = await gateway.post(ASK | {"max_tokens": 10}, headers={"x-request-timeout": "1"})
        assert (got.status, await charged(gateway)) == (504, 10)
        meter = gateway.gateway._admission._gates[CHAT].queue.meter(P2)
        assert meter.counter("acme") >= 10, "it is no more the next than one that took its answer"


async def test_an_answer_that_its_client_leaves_at_once_does_not_cost_all_that_it_reserved() -> None:
    worker = FakeWorker(hangs)
    async with serving(worker, limits=Limits(tokens_per_minute=600_000, burst_s=60.0)) as gateway:
        async with left_alone(gateway, worker, max_tokens=8192):
            pass
        assert await charged(gateway) < 8192


def test_while_no_pace_is_known_each_choice_is_charged_as_of_a_fast_worker_and_no_more_than_reserved() -> None:
    pace = Pace()
    assert [pace.made(2.0, 1000, choices) for choices in (1, 2, 3)] == [400, 800, 1000]
    pace.saw_whole(30, 1.0)
    assert pace.made(2.0, 1000, 3) == 60


@pytest.mark.parametrize("ends", ["its client leaves", "its time is up"])
async def test_an_answer_that_its_worker_hangs_over_costs_nothing(ends: str) -> None:
    worker = FakeWorker(hangs)
    worker.load = load()
    async with serving(worker, limits=Limits(tokens_per_minute=6000, burst_s=60.0)) as gateway:
        (state,) = gateway.gateway._fleet
        (backend,) = state.backends
        async with left_alone(gateway, worker):
            worker.silent = True
            await eventually(lambda: backend.doubted, "the worker is found to say nothing")
            if ends == "its time is up":
                (relay,) = gateway.gateway._proxy._relays
                relay.flight.deadline_s = 0.0
                await eventually(lambda: not gateway.gateway._proxy.in_flight, "it was answered")
        assert await gateway.metric("tenant_tokens_total") == 0


async def test_a_stream_that_its_client_leaves_before_it_begins_costs_its_prompt() -> None:
    worker = FakeWorker(hangs)
    async with serving(worker, limits=Limits(tokens_per_minute=6000, burst_s=60.0)) as gateway:
        async with left_alone(gateway, worker, stream=True):
            pass
        assert await charged(gateway) == 0
        assert await charged(gateway, "input") > 0


async def test_a_client_that_leaves_after_its_worker_has_failed_pays_nothing() -> None:
    gone = asyncio.Event()

    async def dies(exchange: Exchange) -> None:
        await gone.wait()
        exchange.reset()

    worker = FakeWorker(dies)
    async with serving(worker, limits=Limits(tokens_per_minute=6000, burst_s=60.0)) as gateway:
        async with left_alone(gateway, worker):
            gateway.source.publish_services(replace(service(worker), endpoints=()))
            gone.set()
            await eventually_told(lambda: gateway.metric("retries_total"), "it waits for another worker")
        assert await gateway.metric("tenant_tokens_total") == 0


async def test_a_failed_request_costs_no_tokens() -> None:
    async def broken(exchange: Exchange) -> None:
        await exchange.json(400, {"error": {"message": "no"}})

    async with serving(FakeWorker(broken), limits=Limits(tokens_per_minute=600, burst_s=60.0)) as gateway:
        for _ in range(10):
            assert (await gateway.post(ASK)).status == 400
        assert await gateway.metric("tenant_tokens_total") == 0


async def test_open_requests_are_limited_and_free_again_when_they_end() -> None:
    started, release = asyncio.Semaphore(0), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        started.release()
        await release.wait()
        await answers(exchange)

    async with serving(FakeWorker(slow), limits=Limits(concurrency=2)) as gateway:
        two = [asyncio.create_task(gateway.post(ASK)) for _ in range(2)]
        for _ in two:
            await started.acquire()
        refused = await gateway.post(ASK)
        assert refused.status == 429
        assert "has its 2 requests open at the same time (spec.limits.concurrency)" in refused.error["message"]
        release.set()
        assert [(await one).status for one in two] == [200, 200]
        assert (await gateway.post(ASK)).status == 200


async def test_a_changed_limit_holds_from_the_next_request_on() -> None:
    async with serving(FakeWorker(answers), limits=Limits(requests_per_minute=1, burst_s=60.0)) as gateway:
        assert [(await gateway.post(ASK)).status for _ in range(2)] == [200, 429]
        gateway.source.publish(with_terms(gateway.source.catalog))
        assert (await gateway.post(ASK)).status == 200


async def test_the_cost_follows_the_tenants_prices() -> None:
    async with serving(FakeWorker(answers), prices=Prices(0.001, 0.002)) as gateway:
        await gateway.post(ASK)
        assert await gateway.metric("tenant_cost_total", tenant="acme", service="chat") == pytest.approx(0.003)


async def test_the_openai_client_raises_its_own_error() -> None:
    async with serving(FakeWorker(answers), limits=Limits(requests_per_minute=1, burst_s=60.0)) as gateway:
        client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=KEY, max_retries=0)
        async with client:
            await client.chat.completions.create(model="chat", messages=[])
            with pytest.raises(openai.RateLimitError, match="1 requests a minute"):
                await client.chat.completions.create(model="chat", messages=[])


# --- the queue --------------------------------------------------------------------------------------------------------


class Held:
    """A worker's behaviour that answers one request each time it is told to."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)
        self.order: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.order.append(exchange.asked.headers["x-foretide-tenant"])
        await self.turns.acquire()
        await answers(exchange)


def shared(one: Service, *, priority: Priority | None = None, target_s: float | None = None) -> Catalog:
    """Both tenants may use the service; each worker has 1 slot, and 1 at hand."""
    view = catalog(replace(one, worker_slots=1, priority=priority, ttft_target_s=target_s))
    globex = replace(view.tenants["globex"], namespaces=frozenset({"demo"}))
    return replace(view, tenants={**view.tenants, "globex": globex})


async def queued(gateway: Running, count: int) -> None:
    def waiting() -> int:
        return sum(len(gate.queue) for gate in gateway.gateway._admission._gates.values())

    await eventually(lambda: waiting() == count, f"{count} requests wait")


async def test_a_flooding_tenant_waits_and_another_is_served_in_turn() -> None:
    held, worker = Held(), FakeWorker()
    worker.behaviours = [held]
    async with workers(worker), running(shared(service(worker))) as gateway:
        flood = [asyncio.create_task(gateway.post(ASK)) for _ in range(12)]
        await queued(gateway, 10)
        other = asyncio.create_task(gateway.post(ASK, key=OTHER_KEY))
        await queued(gateway, 11)
        for _ in range(13):
            held.turns.release()
        assert [(await one).status for one in (other, *flood)] == [200] * 13
        assert "globex" in held.order[2:4]
        assert await gateway.metric("queue_seconds_count", service="chat") == 11


async def test_a_client_lowers_its_class_and_is_served_last() -> None:
    held, worker = Held(), FakeWorker()
    worker.behaviours = [held]
    async with workers(worker), running(shared(service(worker))) as gateway:
        busy = [asyncio.create_task(gateway.post(ASK)) for _ in range(2)]
        await eventually(lambda: len(worker.asked) == 2, "the worker is full")
        low = asyncio.create_task(gateway.post(ASK, headers={"x-foretide-priority": "P3"}))
        await queued(gateway, 1)
        high = asyncio.create_task(gateway.post(ASK))
        await queued(gateway, 2)
        held.turns.release()
        await eventually(lambda: len(worker.asked) == 3, "the next one is at the worker")
        assert worker.asked[2].headers["x-foretide-class"] == "P2"
        for _ in range(3):
            held.turns.release()
        assert [(await one).status for one in (*busy, low, high)] == [200] * 4


async def test_whoever_queues_for_a_service_that_is_deleted_is_told_at_once() -> None:
    held, worker = Held(), FakeWorker()
    worker.behaviours = [held]
    patient = replace(SETTINGS, requests=replace(SETTINGS.requests, wait_s=600.0, deadline_s=600.0))
    async with workers(worker), running(shared(service(worker)), patient) as gateway:
        busy = [asyncio.create_task(gateway.post(ASK)) for _ in range(2)]
        await eventually(lambda: len(worker.asked) == 2, "the worker is full")
        waiting = asyncio.create_task(gateway.post(ASK))
        await queued(gateway, 1)
        gateway.source.publish_services()
        assert (await waiting).status == 404
        for _ in range(2):
            held.turns.release()
        assert [(await one).status for one in busy] == [200, 200]


async def test_a_class_that_is_none_is_refused() -> None:
    async with serving(FakeWorker(answers)) as gateway:
        got = await gateway.post(ASK, headers={"x-foretide-priority": "high"})
        assert got.status == 400
        assert "must be P0, P1, P2 or P3" in got.error["message"]


async def test_a_client_can_not_raise_its_class_and_a_tenant_caps_it() -> None:
    worker = FakeWorker(answers)
    async with workers(worker):
        view = with_terms(
            catalog(replace(service(worker), priority=P1, ttft_target_s=0.5)), max_priority=P2, weight=3.0
        )
        async with running(view) as gateway:
            await gateway.post(ASK, headers={"x-foretide-priority": "P0"})
            headers = worker.asked[0].headers
            assert headers["x-foretide-class"] == "P2"
            assert headers["x-foretide-weight"] == "3"
            assert headers["x-foretide-tenant"] == "acme"
            assert 9000 < int(headers["x-foretide-ttft-target-ms"]) <= 10000
            assert 19000 < int(headers["x-foretide-deadline-ms"]) <= 20000


async def test_a_predicted_miss_is_refused_at_once_with_the_arithmetic() -> None:
    held, worker = Held(), FakeWorker()
    worker.behaviours = [held]
    async with workers(worker), running(shared(service(worker), priority=P1, target_s=0.2)) as gateway:
        held.turns.release()
        await gateway.post(ASK)
        for gate in gateway.gateway._admission._gates.values():
            gate.pace.saw(30.0)  # it has seen slow ones
        busy = [asyncio.create_task(gateway.post(ASK)) for _ in range(2)]
        await eventually(lambda: len(worker.asked) == 3, "the worker is full")
        refused = await gateway.post(ASK)
        assert refused.status == 503
        assert refused.error["code"] == "overloaded"
        assert "and P1 may wait 0.2 s" in refused.error["message"]
        assert int(refused.headers["retry-after"]) >= 1
        assert await gateway.metric("shed_total", reason="PredictedMiss", **{"class": "P1"}) == 1
        for _ in busy:
            held.turns.release()
        assert [(await one).status for one in busy] == [200, 200]


async def test_a_full_queue_lets_go_of_its_lowest_class_first() -> None:
    held, worker = Held(), FakeWorker()
    worker.behaviours = [held]
    bounded = replace(SETTINGS, queue=QueueBounds(requests=2))
    async with workers(worker), running(shared(service(worker)), bounded) as gateway:
        busy = [asyncio.create_task(gateway.post(ASK)) for _ in range(2)]
        await eventually(lambda: len(worker.asked) == 2, "the worker is full")
        low = [asyncio.create_task(gateway.post(ASK, headers={"x-foretide-priority": "P3"})) for _ in range(2)]
        await queued(gateway, 2)
        full = await gateway.post(ASK, headers={"x-foretide-priority": "P3"})
        assert full.status == 503
        high = asyncio.create_task(gateway.post(ASK))
        shed = next(iter((await asyncio.wait(low, return_when=asyncio.FIRST_COMPLETED))[0])).result()
        assert shed.status == 503
        assert "gave way to a higher class" in shed.error["message"]
        for _ in range(4):
            held.turns.release()
        await asyncio.gather(*busy, *low, high)
        assert high.result().status == 200


async def test_a_client_that_leaves_the_queue_takes_no_slot_along() -> None:
    held, worker = Held(), FakeWorker()
    worker.behaviours = [held]
    async with workers(worker), running(shared(service(worker))) as gateway:
        busy = [asyncio.create_task(gateway.post(ASK)) for _ in range(2)]
        await eventually(lambda: len(worker.asked) == 2, "the worker is full")
        leaving = asyncio.create_task(gateway.post(ASK))
        await queued(gateway, 1)
        leaving.cancel()
        await queued(gateway, 0)
        for _ in range(3):
            held.turns.release()
        assert [(await one).status for one in busy] == [200, 200]
        assert (await gateway.post(ASK)).status == 200
        assert len(worker.asked) == 3


# --- several gateways -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def pair(tmp_path: Path, view: Catalog) -> AsyncIterator[tuple[Running, Running]]:
    """Two gateways that know each other."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    settings = replace(SETTINGS, peer_secret=secret)
    async with running(view, settings) as first:
        second_settings = replace(settings, peers=(("127.0.0.1", first.gateway.peer_port),))
        async with running(view, second_settings) as second:
            for one in (first, second):
                await eventually(lambda one=one: one.gateway._ledger.members == 2, "they know each other")  # type: ignore[misc]
                await eventually(lambda one=one: one.gateway._ledger.joined, "they agree")  # type: ignore[misc]
            yield first, second


async def test_two_gateways_admit_together_what_one_would(tmp_path: Path) -> None:
    worker = FakeWorker(answers)
    limits = Limits(requests_per_minute=60, burst_s=30.0)
    async with workers(worker), pair(tmp_path, with_terms(catalog(service(worker)), limits=limits)) as gateways:
        began_s = time.monotonic()
        got = await asyncio.gather(*(gateways[number % 2].post(ASK) for number in range(100)))
        admitted = sum(one.status == 200 for one in got)
        assert sum(one.status == 429 for one in got) == 100 - admitted
        assert 30 <= admitted <= 32 + time.monotonic() - began_s


async def test_one_gateway_of_two_may_spend_the_whole_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admission.door.HOLD_S", 4.0)  # the other's help may be late on a busy machine
    worker = FakeWorker(answers)
    limits = Limits(requests_per_minute=60, burst_s=30.0)
    async with workers(worker), pair(tmp_path, with_terms(catalog(service(worker)), limits=limits)) as (first, _):
        began_s = time.monotonic()
        got = await asyncio.gather(*(first.post(ASK) for _ in range(60)))
        assert 29 <= sum(one.status == 200 for one in got) <= 32 + time.monotonic() - began_s


async def test_a_stranger_on_the_peer_port_changes_nothing(tmp_path: Path) -> None:
    worker = FakeWorker(answers)
    async with workers(worker), pair(tmp_path, catalog(service(worker))) as (first, second):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", first.gateway.peer_port)
        )
        transport.sendto(b"FTQ1" + b"\0" * 100)
        transport.sendto(b"")
        await eventually(lambda: first.gateway._gossip.rejected >= 1, "it was heard and refused")
        transport.close()
        assert first.gateway._ledger.members == second.gateway._ledger.members == 2
