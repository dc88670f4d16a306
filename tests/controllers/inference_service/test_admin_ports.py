"""Questions over HTTP: what gateways and workers answer, and what becomes of those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from controllers.history.interface import ServiceId
from controllers.inference_service.admin_ports import HttpAdminPorts, ProbeAnswer, demand_in
from controllers.inference_service.demand import over_all
from controllers.inference_service.worker_report import Rates, WorkerReport, rates_between, report_in
from controllers.plans.snapshot import Demanded
from crds import contract

Handler = Callable[[web.Request], Awaitable[web.Response]]
Ask = Callable[[Handler], Awaitable[HttpAdminPorts]]


@pytest.fixture
async def ask(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ask]:
    """Ports whose gateway and worker are one server of the test."""
    servers: list[TestServer] = []
    made: list[HttpAdminPorts] = []

    async def start(handler: Handler) -> HttpAdminPorts:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        assert server.port
        monkeypatch.setattr(contract, "GATEWAY_ADMIN_PORT", server.port)
        monkeypatch.setattr(contract, "WORKER_ADMIN_PORT", server.port)
        made.append(HttpAdminPorts())
        return made[-1]

    yield start
    for ports in made:
        await ports.close()
    for server in servers:
        await server.close()


async def test_a_probe_is_a_post_to_the_path_of_the_contract(ask: Ask) -> None:
    seen: list[tuple[str, str]] = []

    async def gateway(request: web.Request) -> web.Response:
        seen.append((request.method, request.path))
        return web.json_response({"revision": "r", "endpoint": "e", "latency_s": 0.1})

    ports = await ask(gateway)
    assert await ports.probe("127.0.0.1", "demo", "chat") == ProbeAnswer(True)
    assert seen == [("POST", "/probe/demo/chat")]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"reason": "NoEndpoint", "message": "No worker."}', ProbeAnswer(False, "NoEndpoint", "No worker.")),
        ('{"reason": "no good word", "message": "No worker."}', ProbeAnswer(False, "ProbeFailed", "No worker.")),
        ("<html>", ProbeAnswer(False, "ProbeFailed", "Gateway 127.0.0.1: answered 503.")),
        ("[1]", ProbeAnswer(False, "ProbeFailed", "Gateway 127.0.0.1: answered 503.")),
    ],
)
async def test_a_failed_probe_says_what_the_gateway_said(ask: Ask, body: str, answer: ProbeAnswer) -> None:
    async def gateway(_: web.Request) -> web.Response:
        return web.Response(status=503, text=body)

    ports = await ask(gateway)
    assert await ports.probe("127.0.0.1", "demo", "chat") == answer


async def test_a_gateway_that_is_not_there_is_a_failed_probe_and_a_worker_no_answer(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(contract, "GATEWAY_ADMIN_PORT", unused_tcp_port)
    monkeypatch.setattr(contract, "WORKER_ADMIN_PORT", unused_tcp_port)
    ports = HttpAdminPorts()
    assert (await ports.probe("127.0.0.1", "demo", "chat")).message == "Gateway 127.0.0.1: cannot be reached."
    assert await ports.worker_report("127.0.0.1") is None
    assert await ports.demand("127.0.0.1") is None
    assert await ports.gateway_page("127.0.0.1") is None
    await ports.close()


async def test_probes_that_hang_do_not_make_other_questions_wait(ask: Ask) -> None:
    async def gateway(request: web.Request) -> web.Response:
        if "probe" in request.path:
            await asyncio.Event().wait()
        return web.Response(text="{}")

    ports = await ask(gateway)
    hung = [asyncio.create_task(ports.probe("127.0.0.1", "demo", "chat")) for _ in range(120)]
    try:
        await asyncio.sleep(0)
        assert await ports.endpoints("127.0.0.1") == b"{}"
    finally:
        for one in hung:
            one.cancel()
        await asyncio.gather(*hung, return_exceptions=True)


async def test_a_probe_that_takes_too_long_is_given_up(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.inference_service.admin_ports.PROBE_TIMEOUT_S", 0.05)

    async def gateway(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    ports = await ask(gateway)
    answer = await ports.probe("127.0.0.1", "demo", "chat")
    assert answer.message == "Gateway 127.0.0.1: no answer within 0.05 s."


async def test_the_load_of_a_worker_is_running_and_waiting(ask: Ask) -> None:
    async def worker(request: web.Request) -> web.Response:
        assert request.path == "/metrics"
        return web.Response(text='vllm:num_requests_running{model_name="a b}c"} 3.0\nvllm:num_requests_waiting 2\n')

    ports = await ask(worker)
    assert await ports.worker_report("127.0.0.1") == WorkerReport(running=3, waiting=2)


@pytest.mark.parametrize(
    ("page", "held"),
    [
        ("", None),
        ("# HELP vllm:num_requests_running x\n# TYPE vllm:num_requests_running gauge\n", None),
        ("vllm:num_requests_running_total 9\n", None),
        ('vllm:num_requests_running{a="1"} 1\nvllm:num_requests_running{a="2"} 2 1700000000000\n', 3),
        ("vllm:num_requests_running NaN\nvllm:num_requests_waiting 4\n", 4),
        ("vllm:num_requests_running oops\n", None),
        ("vllm:num_requests_running\n", None),
        ("vllm:num_requests_waiting -1\n", None),
    ],
)
def test_a_metrics_page_is_read_with_care(page: str, held: int | None) -> None:
    report = report_in(page)
    assert (report.held if report else None) == held


def test_counters_and_the_cache_of_all_models_of_a_page_are_summed() -> None:
    page = (
        'vllm:num_requests_running{m="a"} 1\nvllm:kv_cache_usage_perc{m="a"} 0.25\n'
        'vllm:request_success_total{m="a",finished_reason="stop"} 4\n'
        'vllm:request_success_total{m="a",finished_reason="length"} 2\n'
        'vllm:prompt_tokens_total{m="a"} 100\nvllm:generation_tokens_total{m="a"} 300\n'
    )
    assert report_in(page) == WorkerReport(1, 0, 0.25, 6, 100, 300)


def test_rates_are_per_second_and_a_worker_that_restarted_counts_from_zero() -> None:
    before = WorkerReport(ended=10, input_tokens=100, output_tokens=1000)
    after = WorkerReport(ended=20, input_tokens=150, output_tokens=1500)
    assert rates_between(before, after, 5) == Rates(2, 10, 100)
    assert rates_between(after, before, 5) == Rates(2, 20, 200)
    assert rates_between(before, after, 0) == Rates()


async def test_what_clients_ask_of_a_gateway_is_known_by_service(ask: Ask) -> None:
    async def gateway(request: web.Request) -> web.Response:
        assert request.path == "/demand"
        return web.json_response({"demo/chat": {"open": 3, "waiting": 1, "idle_s": 0}})

    ports = await ask(gateway)
    assert await ports.demand("127.0.0.1") == {ServiceId("demo", "chat"): Demanded(3, 1, 0.0)}


def test_a_silent_gateway_hides_what_is_quiet_and_not_what_waits() -> None:
    quiet, waiting = Demanded(0, 0, 50.0), Demanded(2, 2, 0.0)
    assert over_all([quiet, Demanded(1, 0, 0.0)]) == Demanded(1, 0, 0.0)
    assert over_all([quiet, Demanded(0, 0, 9.0)]) == Demanded(0, 0, 9.0)
    assert over_all([quiet, None]) is None
    assert over_all([waiting, None]) == waiting
    assert over_all([]) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>"])
def test_an_answer_that_is_no_answer_is_not_known(body: bytes) -> None:
    assert demand_in(body) is None


@pytest.mark.parametrize(
    "entry",
    [
        "3",
        "[]",
        "{}",
        '{"open": true, "waiting": 0, "idle_s": 1}',
        '{"open": 1, "waiting": 2, "idle_s": 0}',
        '{"open": 0, "waiting": -1, "idle_s": 0}',
        '{"open": 0, "waiting": 0, "idle_s": -5}',
    ],
)
def test_an_entry_that_makes_no_sense_is_left_out(entry: str) -> None:
    assert demand_in(f'{{"demo/chat": {entry}}}'.encode()) == {}


async def test_no_session_is_opened_before_the_first_question() -> None:
    def never() -> aiohttp.ClientSession:
        raise AssertionError("opened")

    await HttpAdminPorts(never).close()


async def test_a_worker_is_asked_to_measure_itself_and_what_is_no_profile_is_none(ask: Ask) -> None:
    said = {
        "alpha_s": 0.007, "beta_s": 1.5e-5, "gamma_s": 3.9e-8, "delta_s": 3.3e-5, "request_s": 0.008,
        "kv_tokens": 400_000, "max_sequences": 256, "chunk_tokens": 2048,
    }  # fmt: skip
    answers = [web.json_response(said), web.json_response({"message": "busy"}, status=409), web.Response(body=b"?")]
    seen: list[tuple[str, str]] = []

    async def worker(request: web.Request) -> web.Response:
        seen.append((request.method, request.path))
        return answers[len(seen) - 1]

    ports = await ask(worker)
    profile = await ports.worker_profile("127.0.0.1")
    assert profile is not None
    assert profile.of("gpu 1", "2026-11-26T10:00:00Z").gamma_us == "0.039000"
    assert await ports.worker_profile("127.0.0.1") is None
    assert await ports.worker_profile("127.0.0.1") is None
    assert seen == [("POST", "/profile")] * 3


async def test_a_question_to_a_revision_names_the_model_and_gives_the_completion(ask: Ask) -> None:
    seen: list[tuple[str, dict[str, object]]] = []

    async def gateway(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json()))
        return web.json_response({"choices": []})

    ports = await ask(gateway)
    assert await ports.ask_revision("127.0.0.1", "demo", "chat", "abc", {"prompt": "x"}) == {"choices": []}
    assert seen == [("/ask/demo/chat/abc", {"model": "demo/chat", "prompt": "x"})]


@pytest.mark.parametrize(("status", "body"), [(503, b"{}"), (200, b"nonsense"), (200, b"[1]")])
async def test_an_answer_that_is_no_completion_is_none(ask: Ask, status: int, body: bytes) -> None:
    async def gateway(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    ports = await ask(gateway)
    assert await ports.ask_revision("127.0.0.1", "demo", "chat", "abc", {}) is None
