"""A service that may have no worker at all: its first request waits, is seen, and is served. And tokens are counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from crds.contract import GATEWAY_PATH_DEMAND
from gateway.asked import RequestLimits
from gateway.kept import keep_service
from gateway.usage import Usage, estimated, events_in, usage_in
from tests.gateway.harness import SETTINGS, Exchange, FakeWorker, Running, answers, catalog, running, service, workers

ASLEEP = replace(service(), may_sleep=True)
BODY = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
IMPATIENT = replace(SETTINGS, requests=RequestLimits(deadline_s=20.0, wait_s=5.0, cold_wait_s=0.05))


async def waiting(gateway: Running) -> int:
    """Requests of the one service that wait, as the operator sees them."""
    return int((await demand(gateway))["waiting"])


async def demand(gateway: Running) -> dict[str, float]:
    found: dict[str, dict[str, float]] = (await gateway.get(GATEWAY_PATH_DEMAND, admin=True)).json
    assert found.keys() == {"demo/chat"}
    return found["demo/chat"]


async def test_the_first_request_waits_is_seen_by_the_operator_and_is_served() -> None:
    worker = FakeWorker(answers)
    patient = replace(SETTINGS, requests=RequestLimits(deadline_s=20.0, wait_s=0.001, cold_wait_s=15.0))
    async with workers(worker), running(catalog(ASLEEP), patient) as gateway:
        assert await waiting(gateway) == 0
        first = asyncio.ensure_future(gateway.post(BODY))
        while await waiting(gateway) != 1:
            assert not first.done()
        assert (await demand(gateway)) == {"open": 1, "waiting": 1, "idle_s": 0.0}
        assert await gateway.metric("waiting", service="chat") == 1
        assert await gateway.metric("arrivals_total", service="chat") == 1
        gateway.source.publish_services(replace(service(worker), may_sleep=True))
        assert (await first).status == 200
        assert await waiting(gateway) == 0


async def test_probes_do_not_keep_a_service_awake() -> None:
    worker = FakeWorker(answers)
    async with workers(worker), running(catalog(replace(service(worker), may_sleep=True))) as gateway:
        before = (await demand(gateway))["idle_s"]
        async with gateway.session.post(f"http://127.0.0.1:{gateway.admin_port}/probe/demo/chat") as response:
            assert response.status == 200
        assert (await demand(gateway))["idle_s"] >= before
        assert (await gateway.post(BODY)).status == 200
        seen = await demand(gateway)
        assert seen["open"] == 0
        assert await gateway.metric("arrivals_total", service="chat") == 1


async def test_only_services_that_may_sleep_are_told_of() -> None:
    worker = FakeWorker(answers)
    async with workers(worker), running(catalog(service(worker))) as gateway:
        assert (await gateway.get(GATEWAY_PATH_DEMAND, admin=True)).json == {}


async def test_a_worker_that_does_not_start_in_time_is_503_with_a_time_to_try_again() -> None:
    async with running(catalog(ASLEEP), IMPATIENT) as gateway:
        got = await gateway.post(BODY)
    assert (got.status, got.headers["retry-after"]) == (503, "15")
    assert "no worker that is ready" in got.error["message"]


async def test_only_so_many_wait_and_the_next_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.demand.WAITING_MOST", 1)
    async with running(catalog(ASLEEP)) as gateway:
        first = asyncio.ensure_future(gateway.post(BODY))
        while not await waiting(gateway):
            assert not first.done()
        assert (await gateway.post(BODY)).status == 503
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


NIGHT = {"name": "night", "min": 0, "start": "22:00", "end": "06:00"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": 0}, False),
        ({"scaling": {"max": 2}}, False),
        ({"scaling": {"min": 0, "max": 2}}, True),
        ({"scaling": {"min": 0, "max": 2, "policy": "advisory"}}, False),
        ({"scaling": {"min": 1, "max": 2, "schedule": [NIGHT]}}, True),
    ],
)
def test_a_service_may_sleep_where_its_limits_allow_no_worker(spec: dict[str, object], expected: bool) -> None:
    meta = {"namespace": "demo", "name": "chat", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert keep_service({"metadata": meta, "spec": {"model": "m"} | spec}).may_sleep is expected


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_tokens_of_whole_answers_are_those_that_the_worker_says() -> None:
    worker = FakeWorker(answers)
    async with workers(worker), running(catalog(service(worker))) as gateway:
        await gateway.post(BODY)
        assert await gateway.metric("completed_total", service="chat") == 1
        assert await gateway.metric("input_tokens_total", service="chat") == 1
        assert await gateway.metric("output_tokens_total", service="chat") == 1


async def streams(exchange: Exchange) -> None:
    await exchange.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-foretide-prompt-tokens: 7\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    for number in range(4):
        await exchange.event(number)
    await exchange.end_events()


async def test_tokens_of_a_stream_are_its_events_and_the_prompts_are_in_a_header_that_stays_inside() -> None:
    worker = FakeWorker(streams)
    async with workers(worker), running(catalog(service(worker))) as gateway:
        got = await gateway.post(BODY | {"stream": True})
        assert "x-foretide-prompt-tokens" not in got.headers
        assert await gateway.metric("input_tokens_total", service="chat") == 7
        assert await gateway.metric("output_tokens_total", service="chat") == 3


async def with_usage(exchange: Exchange) -> None:
    await exchange.begin_events()
    await exchange.event(1)
    await exchange.chunk(b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":23}}\n\n')
    await exchange.end_events()


async def test_a_stream_that_tells_its_usage_is_believed() -> None:
    worker = FakeWorker(with_usage)
    async with workers(worker), running(catalog(service(worker))) as gateway:
        await gateway.post(BODY | {"stream": True})
        assert await gateway.metric("input_tokens_total", service="chat") == 11
        assert await gateway.metric("output_tokens_total", service="chat") == 23


async def refuses(exchange: Exchange) -> None:
    await exchange.json(400, {"error": {"message": "no", "usage": {"prompt_tokens": 5, "completion_tokens": 5}}})


async def test_refused_requests_arrive_and_count_no_tokens() -> None:
    worker = FakeWorker(refuses)
    async with workers(worker), running(catalog(service(worker))) as gateway:
        await gateway.post(BODY)
        assert await gateway.metric("arrivals_total", service="chat") == 1
        assert await gateway.metric("completed_total", service="chat") == 0


async def test_counters_of_a_service_end_with_it() -> None:
    worker = FakeWorker(answers)
    async with workers(worker), running(catalog(service(worker))) as gateway:
        await gateway.post(BODY)
        gateway.source.publish_services()
        assert b"foretide_gateway_arrivals_total{" not in (await gateway.get("/metrics", admin=True)).body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}', Usage(3, 4)),
        (b'{"usage": {"completion_tokens": 4, "prompt_tokens": 3}}', Usage(3, 4)),
        (b'{"usage": null}', None),
        (b'{"choices":[{"text":"\\"usage\\": none"}]}', None),
        (b"", None),
    ],
)
def test_usage_is_read_without_parsing_the_answer(body: bytes, expected: Usage | None) -> None:
    assert usage_in(body) == expected


def test_events_are_counted_and_a_prompt_without_a_count_is_judged_by_its_length() -> None:
    assert events_in(b"data: {}\n\ndata: {}\n\n") == 2
    assert estimated(None, 400, 12) == Usage(100, 10)
    assert estimated(9, 400, 1) == Usage(9, 0)
