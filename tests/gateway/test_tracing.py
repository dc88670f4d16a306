"""Spans as a collector gets them, and who decides that there are any."""

import asyncio
import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.admission.terms import Limits
from gateway.settings import Settings, TracingSettings
from gateway.tracing import Phase, Tracing, otlp, parent_of, phases_in
from tests.gateway.admission.test_limits_seen import with_terms
from tests.gateway.collector import Collector, attributes
from tests.gateway.harness import (
    KEY,
    SETTINGS,
    Exchange,
    FakeWorker,
    answers,
    catalog,
    completion,
    running,
    service,
    serving,
    workers,
)  # fmt: skip
from tests.waiting import eventually

ASKED = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"


def parent(flags: str = "01") -> bytes:
    return f"00-{TRACE_ID}-{SPAN_ID}-{flags}".encode()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def tracing(collector: Collector, share: float) -> Tracing:
    return Tracing(otlp(collector.url), share, random.Random(7), {"service.instance.id": "gateway-1"})


def test_a_request_is_a_tree_from_the_edge_to_the_engines_phases(collector: Collector) -> None:
    tracer = tracing(collector, 0.0)
    trace = tracer.begin("POST /v1/chat/completions", parent(), b"vendor=1")
    assert trace is not None
    trace.waited("queue", 0.25)
    made = trace.attempt({"server.address": "10.1.0.7:8000"})
    made.end(None, "queue;dur=10, prefill;dur=200;desc=812, decode;dur=1000;desc=40")
    trace.end(200, {"foretide.retries": 0})
    tracer.close()

    (edge,) = collector.named("POST /v1/chat/completions")
    (attempt,) = collector.named("attempt")
    assert edge.trace_id.hex() == TRACE_ID
    assert edge.parent_span_id.hex() == SPAN_ID
    assert attempt.parent_span_id == edge.span_id
    assert made.headers == f"traceparent: 00-{TRACE_ID}-{attempt.span_id.hex()}-01\r\ntracestate: vendor=1\r\n".encode()
    assert attributes(edge)["http.response.status_code"] == 200
    below = {span.name: span for span in collector.spans if span.parent_span_id == attempt.span_id}
    assert set(below) == {"queue", "prefill", "decode"}
    assert attributes(below["decode"]) == {"foretide.engine.steps": 40}
    assert below["decode"].end_time_unix_nano - below["decode"].start_time_unix_nano == 1_000_000_000
    assert below["prefill"].end_time_unix_nano == below["decode"].start_time_unix_nano
    (waited,) = [span for span in collector.named("queue") if span.parent_span_id == edge.span_id]
    assert waited.end_time_unix_nano - waited.start_time_unix_nano == 250_000_000


def test_a_caller_that_does_not_sample_is_obeyed_and_chance_decides_without_one(collector: Collector) -> None:
    always, never = tracing(collector, 1.0), tracing(collector, 0.0)
    assert always.begin("x", parent("00"), None) is None
    assert always.begin("x", None, None) is not None
    assert never.begin("x", None, None) is None
    assert never.begin("x", parent("01"), None) is not None
    half = tracing(collector, 0.5)
    sampled = sum(half.begin("x", None, None) is not None for _ in range(1000))
    assert 400 < sampled < 600
    for one in (always, never, half):
        one.close()


def test_a_failed_attempt_says_why_and_a_failed_request_is_one(collector: Collector) -> None:
    tracer = tracing(collector, 1.0)
    trace = tracer.begin("x", None, None)
    assert trace is not None
    trace.attempt({}).end("reset")
    trace.attempt({}).end(None)
    trace.end(503, {})
    tracer.close()
    first, second = sorted(collector.named("attempt"), key=lambda span: span.start_time_unix_nano)
    assert attributes(first)["error.type"] == "reset"
    assert "error.type" not in attributes(second)
    (edge,) = collector.named("x")
    assert edge.status.code == edge.status.STATUS_CODE_ERROR


@pytest.mark.parametrize(
    "header",
    [b"", b"00-xyz", b"01" + parent()[2:], parent() + b"-more", b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01"],
)
def test_a_traceparent_that_is_none_is_no_parent(header: bytes) -> None:
    assert parent_of(header, None) is None


def test_what_cannot_be_read_of_a_workers_timing_is_left_out() -> None:
    told = 'decode;dur=12.5;desc="40", queue;dur=1, prefill;dur=x, other;dur=3, "'
    assert phases_in(told) == [Phase("queue", 0.001), Phase("decode", 0.0125, 40)]
    assert phases_in("") == []


# --- through the gateway ----------------------------------------------------------------------------------------------


def traced(collector: Collector, share: float = 0.0) -> Settings:
    return replace(SETTINGS, tracing=TracingSettings(collector.url, share))


async def tells_its_time(exchange: Exchange) -> None:
    await exchange.json(
        200, completion("Paris"), server_timing="queue;dur=1, prefill;dur=20;desc=9, decode;dur=30;desc=4"
    )


async def test_a_traced_request_shows_every_attempt_and_the_workers_phases(collector: Collector) -> None:
    async def dies(exchange: Exchange) -> None:
        exchange.reset()

    worker = FakeWorker(dies, tells_its_time)
    async with serving(worker, settings=traced(collector)) as one:
        got = await one.post(ASKED, headers={"traceparent": parent().decode()})
        assert got.status == 200
        assert "server-timing" not in got.headers
        sent = [asked.headers["traceparent"] for asked in worker.asked]
    (edge,) = collector.named("POST /v1/chat/completions")
    failed, good = sorted(collector.named("attempt"), key=lambda span: span.start_time_unix_nano)
    assert [span.span_id.hex() for span in (failed, good)] == [one.split("-")[2] for one in sent]
    assert attributes(failed)["error.type"] in ("reset", "closed")
    assert {span.name for span in collector.spans if span.parent_span_id == good.span_id} == {
        "queue",
        "prefill",
        "decode",
    }
    said = attributes(edge)
    assert (said["foretide.tenant"], said["foretide.service"], said["foretide.class"]) == ("acme", "demo/chat", "P2")
    assert said["foretide.request_id"] == got.headers["x-request-id"]
    assert said["gen_ai.usage.output_tokens"] == 1


async def test_a_request_that_waits_for_bandwidth_ends_its_trace_when_it_is_refused_or_its_client_leaves(
    collector: Collector,
) -> None:
    worker = FakeWorker(answers)
    large = ASKED | {"user": "x" * 20_000}
    async with workers(worker):
        slow = with_terms(catalog(service(worker)), limits=Limits(bytes_per_second=1024, burst_s=1.0))
        async with running(slow, traced(collector)) as one:
            asked = {"traceparent": parent().decode(), "x-request-timeout": "0.1"}
            assert (await one.post(large, headers=asked)).status == 504
            waits = one.gateway._admission._counts.paces.labels("acme")
            before = waits.value
            leaves = asyncio.ensure_future(one.post(large, headers={"traceparent": parent().decode()}))
            await eventually(lambda: waits.value > before, "it waits")
            leaves.cancel()
    spans = collector.named("POST /v1/chat/completions")
    assert [attributes(span)["http.response.status_code"] for span in spans] == [504, 499]
    assert worker.asked == []


async def test_a_traced_requests_line_in_the_access_log_has_the_traces_id(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
    worker = FakeWorker(answers)
    async with serving(worker, settings=replace(traced(collector), access_log_share=1.0)) as one:
        for headers in ({"traceparent": parent().decode()}, {}):
            assert (await one.post(ASKED, headers=headers)).status == 200
        await eventually(lambda: out.getvalue().count(b"\n") == 2, "two lines", 20.0)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["trace_id"] for line in lines] == [TRACE_ID, None]


async def test_no_word_of_a_prompt_an_answer_or_a_key_leaves_with_a_trace(collector: Collector) -> None:
    worker = FakeWorker(tells_its_time)
    async with serving(worker, settings=traced(collector, share=1.0)) as one:
        secret = {"model": "chat", "messages": [{"role": "user", "content": "my secret plan"}]}
        assert (await one.post(secret)).status == 200
    assert collector.spans
    sent = b"".join(collector.bodies)
    for word in (b"secret", b"Paris", KEY.encode()):
        assert word not in sent


async def test_an_untraced_request_passes_its_callers_trace_on_unchanged(collector: Collector) -> None:
    worker = FakeWorker(answers)
    async with serving(worker, settings=traced(collector)) as one:
        await one.post(ASKED, headers={"traceparent": parent("00").decode()})
        await one.post(ASKED)
    assert worker.asked[0].headers["traceparent"] == parent("00").decode()
    assert "traceparent" not in worker.asked[1].headers
    assert collector.spans == []


async def test_a_collector_that_is_away_costs_no_request() -> None:
    worker = FakeWorker(answers)
    with Collector() as gone:
        settings = traced(gone, share=1.0)
    async with serving(worker, settings=settings) as one:
        for _ in range(3):
            assert (await one.post(ASKED)).status == 200
