"""The worker's own benchmark: what it measures, and that clients go first."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controllers.inference_service.worker_profile import profile_in
from crds.contract import METRIC_RUNNING, METRIC_WAITING, WORKER_PATH_PROFILE
from forecasting.profile import profile_from_json
from tests.waiting import eventually
from tests.worker_image.scripted import Server, a_server
from tests.worker_image.servers import a_worker
from tests.worker_image.test_load import load_of
from tests.worker_image.tiny_gguf import Shape, tiny_llama, write_gguf
from worker_image.__main__ import main
from worker_image.engine.messages import Add


def endless(add: Add, number: int) -> str:
    return "abcd" * 1000


async def asked(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession(url) as session, session.post(WORKER_PATH_PROFILE) as answer:
        return answer.status, await answer.json()


async def open_requests(server: Server) -> tuple[int, int]:
    """As the metrics say: running and waiting."""
    async with aiohttp.ClientSession(server.admin_url) as session, session.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    running, waiting = (
        next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))
        for name in (METRIC_RUNNING, METRIC_WAITING)
    )
    return int(running), int(waiting)


async def test_an_idle_worker_measures_a_profile_that_the_operator_understands(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(Shape(context=2000)))
    with a_worker(path, tmp_path, "--kv-cache-bytes", str(8 << 20)) as worker:
        worker.wait_ready()
        status, said = await asked(f"http://127.0.0.1:{worker.admin_port}")
        assert status == 200, said
        profile = profile_in(json.dumps(said).encode())
        assert profile is not None
        assert (profile.max_sequences, profile.chunk_tokens) == (32, 256)
        assert 0 < profile.alpha_s < 1
        assert worker.health()["open_requests"] == 0


async def test_a_client_that_comes_meanwhile_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_image.profile.PATIENCE_S", 0.1)
    async with a_server(tmp_path, endless) as server:
        server.engine.held.clear()
        measuring = asyncio.create_task(asked(server.admin_url))
        await eventually(lambda: len(server.engine.adds) == 1, "the measurement has begun")
        assert await open_requests(server) == (0, 0), "its requests are nobody's load"
        facts = await load_of(server.url)
        assert (facts["running"], facts["waiting"]) == (0, 0), "nor do gateways hear of them"
        assert (await asked(server.admin_url))[0] == 409, "one at a time"
        chat = server.client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello"}])
        client = asyncio.create_task(chat)
        await eventually(lambda: len(server.engine.adds) == 2, "the client's request is there")
        server.engine.held.set()
        status, said = await measuring
        assert (status, said["message"][:14]) == (409, "clients ask fo")
        await eventually(lambda: len(server.engine.cancelled) == 1, "the measurement's request is cancelled")
        client.cancel()


async def test_a_probe_in_between_only_delays_the_measurement(tmp_path: Path) -> None:
    async with a_server(tmp_path, endless) as server:
        server.engine.held.clear()
        measuring = asyncio.create_task(asked(server.admin_url))
        await eventually(lambda: len(server.engine.adds) == 1, "the measurement has begun")
        probe = server.client.chat.completions.create(
            model="chat", max_tokens=1, messages=[{"role": "user", "content": "hello"}]
        )
        answered = asyncio.create_task(probe)
        await eventually(lambda: len(server.engine.adds) == 2, "the probe is there")
        server.engine.held.set()
        await answered
        status, said = await measuring
        assert status == 200, said
        assert profile_in(json.dumps(said).encode()) is not None


@pytest.mark.parametrize(("n_untimed", "status"), [(3, 200), (4, 503)])
async def test_what_could_not_be_timed_is_measured_again(tmp_path: Path, n_untimed: int, status: int) -> None:
    asks = count()

    def over_at_once(add: Add, number: int) -> str:
        return "a" if next(asks) < n_untimed else endless(add, number)

    async with a_server(tmp_path, over_at_once) as server:
        assert (await asked(server.admin_url))[0] == status


async def test_a_worker_that_loads_or_leaves_does_not_measure_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker_image.profile.PATIENCE_S", 0.1)
    async with a_server(tmp_path, endless, loaded=False) as server:
        assert (await asked(server.admin_url))[0] == 503
    async with a_server(tmp_path, endless) as server:
        server.state.drain()
        assert (await asked(server.admin_url))[0] == 409


@pytest.mark.parametrize(
    "change", [{"alpha_s": 0}, {"beta_s": -1.0}, {"kv_tokens": 1.5}, {"delta_s": None}, {"alpha_s": 1e9}]
)
def test_an_answer_that_is_no_profile_is_none(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "alpha_s": 0.01, "beta_s": 1e-3, "gamma_s": 0, "delta_s": 1e-3, "request_s": 0.0,
        "kv_tokens": 1000, "max_sequences": 8, "chunk_tokens": 256,
    }  # fmt: skip
    assert profile_in(json.dumps(good).encode()) is not None
    assert profile_in(json.dumps(good | change).encode()) is None
    assert profile_in(b"[1]") is profile_in(b"{") is None


def test_bench_writes_a_profile_that_simulate_reads(tmp_path: Path) -> None:
    path, profile = write_gguf(tmp_path / "tiny.gguf", tiny_llama(Shape(context=2000))), tmp_path / "profile.json"
    flags = ["--threads", "1", "--kv-cache-bytes", str(8 << 20), "--requests", "1", "--prompt-tokens", "8"]
    assert main(["bench", str(path), *flags, "--output-tokens", "4", "--profile", str(profile)]) == 0
    read = profile_from_json(profile.read_text(), profile.name)
    assert (read.model, read.accelerator, read.gpus) == ("tiny", "cpu 1", 1)
