"""Services that cannot take a request, and what takes it instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.catalog import Fallback, Service, ServiceKey
from gateway.degradation import Road
from gateway.errors import Degrades
from tests.gateway.harness import (
    CHAT,
    SETTINGS,
    Exchange,
    FakeWorker,
    answers,
    catalog,
    load,
    running,
    service,
    workers,
)
from tests.waiting import eventually

ASK: dict[str, Any] = {"model": "chat", "messages": [], "max_tokens": 500}
SMALL, TINY = ServiceKey("demo", "small"), ServiceKey("demo", "tiny")
HEADER = "x-foretide-fallback"


def chat_with(*fallbacks: Fallback) -> Service:
    return Service(CHAT, fallbacks=fallbacks)


def test_fallbacks_are_tried_in_their_order_and_those_without_a_worker_are_passed_over() -> None:
    road = Road(chat_with(Fallback(SMALL), Fallback(TINY, 64)), lambda key: key == TINY)
    assert road.told == b""
    assert road.leave(Degrades.OVERLOADED)
    assert (road.key, road.told) == (TINY, b"x-foretide-fallback: demo/tiny; reason=overloaded; max_tokens=64\r\n")
    assert not road.leave(Degrades.NO_ENDPOINT), "there is no further one"
    assert road.key == TINY


def test_a_shorter_limit_helps_against_a_full_service_and_not_against_a_missing_one() -> None:
    for reason, leaves in ((Degrades.OVERLOADED, True), (Degrades.NO_ENDPOINT, False)):
        assert Road(chat_with(Fallback(CHAT, 64)), lambda key: True).leave(reason) is leaves


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"max_tokens": 64}),
        ({"max_tokens": 500}, {"max_tokens": 64}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 64}),
        ({"max_tokens": None}, {"max_tokens": 64}),
        ({"max_tokens": "many"}, {"max_tokens": "many"}),
    ],
)
def test_the_body_names_the_fallback_and_its_limit(body: dict[str, Any], expected: dict[str, Any]) -> None:
    road = Road(chat_with(Fallback(SMALL, 64)), lambda key: True)
    asked = orjson.dumps(body | {"model": "demo/chat"})
    assert road.body(asked) is asked
    assert road.leave(Degrades.NO_ENDPOINT)
    assert orjson.loads(road.body(asked)) == expected | {"model": "small"}


async def test_without_a_healthy_worker_the_fallback_answers_at_once_and_says_so() -> None:
    small = FakeWorker(answers, name="small-bb-1-2")
    async with workers(small), running(catalog(chat_with(Fallback(SMALL, 64)), service(small, key=SMALL))) as gateway:
        got = await gateway.post(ASK)
        assert (got.status, got.headers[HEADER]) == (200, "demo/small; reason=no_endpoint; max_tokens=64")
        asked = orjson.loads(small.asked[0].body)
        assert (asked["model"], asked["max_tokens"]) == ("small", 64)
        assert await gateway.metric("fallbacks_total", service="chat", reason="no_endpoint") == 1
        assert await gateway.metric("arrivals_total", service="chat") == 1
        assert await gateway.metric("requests_total", service="small", code="200") == 1
        assert await gateway.metric("requests_total", service="chat") == 0


async def test_a_sleeping_service_is_woken_although_its_fallback_answers() -> None:
    small = FakeWorker(answers, name="small-bb-1-2")
    asleep = replace(chat_with(Fallback(SMALL)), may_sleep=True)
    async with workers(small), running(catalog(asleep, service(small, key=SMALL))) as gateway:
        before = (await gateway.get("/demand", admin=True)).json["demo/chat"]
        assert before["waiting"] == 0
        assert (await gateway.post(ASK)).status == 200
        after = (await gateway.get("/demand", admin=True)).json["demo/chat"]
        assert (after["open"], after["waiting"]) == (0, 1)


async def test_a_healthy_service_is_not_left() -> None:
    own, small = FakeWorker(answers), FakeWorker(answers, name="small-bb-1-2")
    first = replace(service(), fallbacks=(Fallback(SMALL),))
    async with workers(own, small), running(catalog(first, service(small, key=SMALL))) as gateway:
        gateway.source.publish_services(replace(service(own), fallbacks=(Fallback(SMALL),)), service(small, key=SMALL))
        got = await gateway.post(ASK)
        assert (got.status, HEADER in got.headers, len(small.asked)) == (200, False, 0)


async def test_a_lost_worker_s_service_is_left_while_it_is_lost() -> None:
    own, small = FakeWorker(answers), FakeWorker(answers, name="small-bb-1-2")
    own.load = load()
    async with workers(own, small), running(catalog()) as gateway:
        gateway.source.publish_services(replace(service(own), fallbacks=(Fallback(SMALL),)), service(small, key=SMALL))
        state = gateway.gateway._fleet.get(CHAT)
        assert state is not None
        await eventually(lambda: state.backends[0].load is not None, "the worker was heard")
        own.silent = True
        await eventually(lambda: state.backends[0].loss is not None, "the worker is lost")
        assert (await gateway.post(ASK)).headers[HEADER] == "demo/small; reason=no_endpoint"
        own.silent = False
        await eventually(lambda: state.backends[0].loss is None, "the worker is back")
        assert HEADER not in (await gateway.post(ASK)).headers


async def test_workers_that_all_fail_are_left_after_the_retries() -> None:
    async def resets(exchange: Exchange) -> None:
        exchange.reset()

    own, small = FakeWorker(resets), FakeWorker(answers, name="small-bb-1-2")
    async with workers(own, small), running(catalog()) as gateway:
        gateway.gateway._proxy._policy = replace(gateway.gateway._proxy._policy, attempts=2)
        gateway.source.publish_services(replace(service(own), fallbacks=(Fallback(SMALL),)), service(small, key=SMALL))
        got = await gateway.post(ASK)
        assert (got.status, got.headers[HEADER]) == (200, "demo/small; reason=no_endpoint")
        assert await gateway.metric("in_flight") == 0


async def test_without_a_fallback_that_could_help_the_request_waits_as_ever() -> None:
    brief = replace(SETTINGS, requests=replace(SETTINGS.requests, wait_s=0.3))
    async with running(catalog(chat_with(Fallback(SMALL)), Service(SMALL)), brief) as gateway:
        got = await gateway.post(ASK)
        assert (got.status, got.error["code"]) == (503, "no_endpoint")
        assert "demo/chat" in got.error["message"]


async def test_a_body_too_deep_to_be_written_again_is_refused_and_leaves_nothing_open() -> None:
    small = FakeWorker(answers, name="small-bb-1-2")
    deep = b'{"model":"chat","messages":' + b"[" * 500 + b"]" * 500 + b"}"
    async with workers(small), running(catalog()) as gateway:
        gateway.source.publish_services(chat_with(Fallback(SMALL, 64)), service(small, key=SMALL))
        got = await gateway.post(deep)
        assert (got.status, got.error["type"]) == (400, "invalid_request_error")
        assert [one.demand.open for one in gateway.gateway._fleet] == [0, 0]
