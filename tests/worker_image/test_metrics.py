"""What /metrics says: vLLM's names, and numbers that add up."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from openai import InternalServerError
from prometheus_client.parser import text_string_to_metric_families

from tests.worker_image.scripted import Server, a_server
from worker_image.engine.client import EngineClient
from worker_image.engine.messages import Add, EngineLoad, Finish, TokenOut
from worker_image.server.choice import Choice
from worker_image.server.histogram import Histogram, one_two_five
from worker_image.server.metrics import EngineCollector, Metrics
from worker_image.server.plans import Job
from worker_image.text.detokenizer import TokenBytes

CHAT: Any = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
VLLM_V1 = {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:num_preemptions",
    "vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:prompt_tokens", "vllm:generation_tokens",
    "vllm:request_success", "vllm:iteration_tokens_total", "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds",
    "vllm:request_inference_time_seconds", "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds",
    "vllm:request_prompt_tokens", "vllm:request_generation_tokens", "vllm:request_params_n",
    "vllm:request_params_max_tokens", "vllm:request_time_per_output_token_seconds",
}  # fmt: skip
"""Names as vLLM's v1 engine gives them; counters get `_total` on the wire."""


def five_tokens(add: Add, number: int) -> str | Exception:
    return "abcd" if add.sampling.seed is None else RuntimeError("no memory is left.")


async def samples(server: Server) -> dict[str, float]:
    """Name and, for a finish reason or a class, that → value."""
    async with aiohttp.ClientSession() as session, session.get(server.admin_url + "/metrics") as answer:
        text = await answer.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "process_" not in sample.name:
                assert sample.labels["model_name"] == "chat"
            if "le" not in sample.labels:
                found[sample.name + sample.labels.get("finished_reason", "") + sample.labels.get("class", "")] = (
                    sample.value
                )
    return found


async def test_every_series_of_vllm_that_applies_is_there(tmp_path: Path) -> None:
    async with (
        a_server(tmp_path, five_tokens) as server,
        aiohttp.ClientSession(server.admin_url) as session,
        session.get("/metrics") as answer,
    ):
        names = {family.name for family in text_string_to_metric_families(await answer.text())}
    assert VLLM_V1 - names == set()


def test_what_was_taken_back_is_nobodys_load_though_the_engine_still_counts_it() -> None:
    """As a measurement that has ended a moment ago, beside a client that came."""
    engine = SimpleNamespace(load=EngineLoad(running=25), n_open=1, n_measuring=0)
    running, waiting, *_ = EngineCollector(cast("EngineClient", engine), "chat").collect()
    assert [one.samples[0].value for one in (running, waiting)] == [1, 0]


async def test_the_server_and_the_engine_tell_what_they_take_of_the_machine(tmp_path: Path) -> None:
    async with a_server(tmp_path, five_tokens) as server:
        found = await samples(server)
    for process in ("process", "foretide_worker_engine_process"):
        assert found[f"{process}_resident_memory_bytes"] > 2**20
        assert found[f"{process}_cpu_seconds_total"] > 0


async def test_the_numbers_of_a_few_requests_add_up(tmp_path: Path) -> None:
    async with a_server(tmp_path, five_tokens) as server:
        answer = await server.client.chat.completions.create(n=2, **CHAT)
        await server.client.chat.completions.create(max_tokens=2, **CHAT)
        with pytest.raises(InternalServerError, match="No memory is left"):
            await server.client.chat.completions.create(seed=1, **CHAT)
        found = await samples(server)
    assert answer.usage is not None
    assert found["vllm:request_success_totalstop"] == 2
    assert found["vllm:request_success_totallength"] == 1
    assert found["vllm:request_success_totalerror"] == 1
    assert found["vllm:generation_tokens_total"] == 5 + 5 + 2
    assert found["vllm:time_to_first_token_seconds_count"] == 3
    assert found["vllm:inter_token_latency_seconds_count"] <= 12 - 3
    assert found["vllm:e2e_request_latency_seconds_count"] == 4
    assert found["vllm:request_queue_time_seconds_sum"] == pytest.approx(0.03)
    assert found["vllm:request_decode_time_seconds_count"] == 3
    assert found["vllm:request_params_n_sum"] == 2 + 1 + 1
    assert found["vllm:iteration_tokens_total_sum"] == 12 + 3 * answer.usage.prompt_tokens


async def test_waits_first_tokens_and_preemptions_are_told_by_class(tmp_path: Path) -> None:
    async with a_server(tmp_path, five_tokens) as server:
        await server.client.chat.completions.create(n=2, extra_headers={"x-foretide-class": "P0"}, **CHAT)
        await server.client.chat.completions.create(**CHAT)
        found = await samples(server)
    counts = [found[f"foretide_worker_ttft_seconds_countP{i}"] for i in range(4)]
    assert counts == [found[f"foretide_worker_queue_seconds_countP{i}"] for i in range(4)] == [2, 0, 1, 0]
    assert found["foretide_worker_queue_seconds_sumP0"] == pytest.approx(0.02)
    assert [found[f"foretide_worker_preemptions_totalP{i}"] for i in range(4)] == [10, 11, 12, 13]


def test_the_time_of_a_token_leaves_out_what_another_worker_had_said() -> None:
    """Else a long answer that goes on here for a few tokens looks as if they took no time."""
    sampling = SimpleNamespace(n=1, max_tokens=8)
    standing = SimpleNamespace(priority=2)
    job = SimpleNamespace(prompts=([1],), sampling=sampling, standing=standing, stops=(), tools=None)
    metrics = Metrics("chat")
    choice = Choice(0, cast("Job", job), TokenBytes(["a"], frozenset()), metrics)
    choice.replay([TokenOut(0, 0)] * 5, cached_tokens=0)
    now = time.monotonic()
    choice.take([TokenOut(1, 0)], now)
    choice.take([TokenOut(1, 0)], now + 1.0)
    choice.take([TokenOut(1, 0, Finish.LENGTH)], now + 2.0)
    metrics.ended(choice.ended("abort", now + 2.0))
    family = metrics.tpot_of_request.family("x", "x", "l", "v")
    assert [sample.value for sample in family.samples if sample.name == "x_sum"] == pytest.approx([1.0])


def test_a_histogram_counts_what_is_at_most_its_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 2), (1.5, 1), (9.0, 3)):
        histogram.observe(value, times)
    buckets = {s.labels["le"]: s.value for s in histogram.family("x", "x", "l", "v").samples if "le" in s.labels}
    assert buckets == {"1.0": 3, "2.0": 4, "+Inf": 7}


def test_buckets_of_counts_go_one_two_five() -> None:
    assert one_two_five(100) == (1, 2, 5, 10, 20, 50, 100)
