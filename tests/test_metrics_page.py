"""docs/metrics.md against what the processes' own ports show: nothing undocumented, nothing of another type."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controllers.build import build
from controllers.gpu_agent.admin import Admin as GpuAdmin
from controllers.gpu_agent.agent import Agent
from controllers.gpu_agent.usage import GpuUsage, UsageMetrics
from controllers.model_cache.admin import Admin as CacheAdmin
from controllers.runtime.health import Health
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.server import AdminServer
from controllers.settings import Settings
from kube.events import Recorder
from tests import generated_metrics
from tests.fakes import FakeClient
from tests.gateway.harness import SETTINGS, FakeWorker, answers, serving
from tests.worker_image.scripted import a_server

DOCS = Path(__file__).parents[1] / "docs"
ROW = re.compile(r"^\| `([a-z0-9_:]+)` \| ([^|]+) \| (counter|gauge|histogram) \|", re.MULTILINE)
CHAT: Any = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def documented(component: str) -> dict[str, str]:
    """Name on the wire → type."""
    rows = ROW.findall((DOCS / "metrics.md").read_text())
    return {name: kind for name, components, kind in rows if component in components.split(", ")}


def shown(page: str) -> dict[str, str]:
    """The same of a page, without `_created`, which say when a series began."""
    families = [one for one in text_string_to_metric_families(page) if not one.name.endswith("_created")]
    return {one.name + ("_total" if one.type == "counter" else ""): one.type for one in families}


async def scraped(port: int) -> dict[str, str]:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.get("/metrics") as answer,
    ):
        assert answer.status == 200
        return shown(await answer.text())


def test_the_page_is_made_of_the_code() -> None:
    assert (DOCS / "metrics.md").read_text() == generated_metrics.page(), "run `make generate`"


def test_a_label_without_a_bound_is_an_error() -> None:
    family = generated_metrics.Family("gateway", "foretide_gateway_x", "counter", "X.", ("namespace", "client_id"))
    with pytest.raises(KeyError, match="client_id"):
        _ = family.series


async def test_a_gateway_shows_what_is_documented() -> None:
    settings = replace(SETTINGS, access_log_share=0.0)
    async with serving(FakeWorker(answers), settings=settings, ttft_target_s=5.0) as gateway:
        for stream in (False, True):
            assert (await gateway.post({**CHAT, "stream": stream})).status == 200
        found = shown((await gateway.get("/metrics", admin=True)).body.decode())
    assert found == documented("gateway")


async def test_a_worker_shows_what_is_documented(tmp_path: Path) -> None:
    async with (
        a_server(tmp_path, lambda add, number: "hello") as server,
        aiohttp.ClientSession() as session,
    ):
        await server.client.chat.completions.create(**CHAT)
        async with session.get(server.admin_url + "/metrics") as answer:
            found = shown(await answer.text())
    assert found == documented("worker")


async def test_an_operator_shows_what_is_documented() -> None:
    client, queue, metrics = FakeClient(), ReconcileQueue(), Metrics()
    recorder = Recorder(client, controller="test", instance="test")
    assembly = build(client, Settings(), queue, recorder)
    metrics.watch_runtime(queue, {one.name: one for one in (*assembly.owned.values(), *assembly.children)}, recorder)
    for collector in assembly.collectors:
        metrics.registry.register(collector)
    server = AdminServer("127.0.0.1", 0, Health(queue, {}), metrics)
    await server.start()
    try:
        found = await scraped(server.port)
    finally:
        await server.stop()
    assert found == documented("operator")


async def test_a_node_agent_shows_what_is_documented() -> None:
    nothing: Any = generated_metrics.idle_cache()
    admin = CacheAdmin(nothing, cast("Any", None), lambda: 0.0, "127.0.0.1", 0)
    await admin.start()
    try:
        found = await scraped(admin.port)
    finally:
        await admin.stop()
    assert found == documented("node agent")


async def test_a_gpu_agent_shows_what_is_documented() -> None:
    class Source:
        def usage(self) -> list[GpuUsage]:
            return [GpuUsage("GPU-a", 0.5, 2**36, 2**30, 40.0, 300.0)]

    source, metrics = cast("Any", Source()), UsageMetrics()
    admin = GpuAdmin(Agent(FakeClient(), "n0", source, lambda: 1.0, metrics), source, metrics, host="127.0.0.1", port=0)
    await admin.start()
    try:
        found = await scraped(admin.port)
    finally:
        await admin.stop()
    assert found == documented("GPU agent")


def test_every_query_of_the_page_asks_for_metrics_that_exist() -> None:
    known = {name for name, _, _ in ROW.findall((DOCS / "metrics.md").read_text())}
    for query in generated_metrics.QUESTIONS.values():
        assert set(re.findall(r"\bforetide_[a-z_]+", query)) <= known, query
