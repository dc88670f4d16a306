"""A real Envoy before scripted workers, which asks a real gateway where each request goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.admission.terms import Limits as TenantLimits
from gateway.catalog import Catalog
from gateway.http1.limits import Limits
from gateway.settings import PickerSettings
from tests.gateway.endpoint_picker.envoy import BUFFERED, FULL_DUPLEX, envoy
from tests.gateway.harness import (
    KEY,
    SETTINGS,
    Exchange,
    FakeWorker,
    Got,
    Running,
    answers,
    catalog,
    completion,
    raw,
    running,
    service,
    workers,
)
from tests.waiting import eventually

ASKED = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
MODES = pytest.mark.parametrize("modes", [BUFFERED, FULL_DUPLEX], ids=["buffered", "full-duplex"])


@dataclass
class Edge:
    url: str
    gateway: Running

    async def post(
        self, body: Any, *, key: str | None = KEY, path: str = "/v1/chat/completions", **headers: str
    ) -> Got:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {**({"Authorization": f"Bearer {key}"} if key else {}), "content-type": "application/json", **headers}
        async with self.gateway.session.post(self.url + path, data=data, headers=sent) as response:
            return Got(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())


@contextlib.asynccontextmanager
async def edge(folder: Path, modes: dict[str, str], known: Catalog, **limits: int) -> AsyncIterator[Edge]:
    settings = replace(SETTINGS, picker=PickerSettings(0), limits=Limits(**limits))
    async with running(known, settings) as gateway, envoy(folder, gateway.gateway.picker_port, modes) as url:
        yield Edge(url, gateway)


@MODES
async def test_an_answer_and_a_stream_come_from_a_worker_that_we_chose(tmp_path: Path, modes: dict[str, str]) -> None:
    one, two = FakeWorker(answers, name="chat-abc12-7f-x1"), FakeWorker(answers, name="chat-abc12-7f-x2")
    async with workers(one, two), edge(tmp_path, modes, catalog(service(one, two))) as front:
        for _ in range(4):
            got = await front.post(ASKED)
            assert got.status == 200
            assert got.headers["x-foretide-revision"] == "abc12"
        assert one.asked
        assert two.asked
        stream = await front.post(ASKED | {"stream": True})
        assert stream.body.count(b"data:") == 4
        asked = [*one.asked, *two.asked][0]
        assert "authorization" not in asked.headers
        assert asked.headers["x-foretide-tenant"] == "acme"
        assert asked.headers["x-foretide-class"] == "P2"
        assert orjson.loads(asked.body) == ASKED
        await eventually(lambda: not any(b.in_flight for b in _backends(front)), "nothing is in flight any more")
        assert await front.gateway.metric("completed_total", service="chat") == 5


@MODES
async def test_a_body_that_ends_with_trailers_reaches_its_worker(tmp_path: Path, modes: dict[str, str]) -> None:
    worker = FakeWorker(answers)
    body = orjson.dumps(ASKED)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    chunked = b"Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n%x\r\n%b\r\n0\r\nx-checksum: 1\r\n\r\n" % (
        len(body),
        body,
    )
    async with (
        workers(worker),
        edge(tmp_path, modes, catalog(service(worker))) as front,
        raw(int(front.url.rpartition(":")[2])) as client,
    ):
        await client.send(head + chunked)
        assert (await client.response()).status == 200
    assert worker.asked[0].body == body


@MODES
async def test_no_header_of_a_client_reaches_a_worker_as_an_instruction(tmp_path: Path, modes: dict[str, str]) -> None:
    said = {
        "x-foretide-stream": "1 00 1", "x-foretide-continue": "00 5", "X-Foretide-Tenant": "globex",
        "x-foretide-weight": "1000", "x-foretide-ttft-target-ms": "1", "x-foretide-anything": "1",
        "x-foretide-cache-salt": "globex's",
    }  # fmt: skip
    worker = FakeWorker(answers)
    async with workers(worker), edge(tmp_path, modes, catalog(service(worker))) as front:
        assert (await front.post(ASKED, **said)).status == 200
        got = {name: value for name, value in worker.asked[0].headers.items() if name.startswith("x-foretide-")}
        assert got.keys() == {
            "x-foretide-class", "x-foretide-tenant", "x-foretide-weight", "x-foretide-deadline-ms",
            "x-foretide-ttft-target-ms", "x-foretide-cache-salt",
        }  # fmt: skip
        assert got["x-foretide-tenant"] == "acme"
        assert got["x-foretide-weight"] == "1"
        assert got["x-foretide-cache-salt"] != "globex's"
        assert got["x-foretide-ttft-target-ms"] != "1"


@MODES
async def test_refusals_are_answered_in_openais_shape_and_no_worker_sees_them(
    tmp_path: Path, modes: dict[str, str]
) -> None:
    worker = FakeWorker(answers)
    async with workers(worker), edge(tmp_path, modes, catalog(service(worker)), body_bytes=200_000) as front:
        assert (await front.post(ASKED, key=None)).status == 401
        assert (await front.post(ASKED, key="sk-wrong")).error["code"] == "invalid_api_key"
        assert (await front.post(ASKED | {"model": "other"})).error["code"] == "model_not_found"
        assert (await front.post(b"{nonsense")).status == 400
        assert (await front.post(ASKED, path="/v1/embeddings")).status == 404
        assert (await front.post(ASKED | {"pad": "x" * 300_000})).status == 413
        assert worker.asked == []
        async with front.gateway.session.get(
            f"{front.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}
        ) as response:
            assert [one["id"] for one in (await response.json())["data"]] == ["chat"]


@MODES
async def test_a_tenants_limits_hold_for_what_another_proxy_carries(tmp_path: Path, modes: dict[str, str]) -> None:
    worker = FakeWorker(answers)
    async with workers(worker), edge(tmp_path, modes, limited(catalog(service(worker)))) as front:
        statuses = [(await front.post(ASKED)).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        refused = await front.post(ASKED)
        assert int(refused.headers["retry-after"]) > 0
        assert "requestsPerMinute" in refused.error["message"]


def limited(known: Catalog) -> Catalog:
    """The tenant acme may ask twice at once, and then every five seconds."""
    acme = known.tenants["acme"]
    terms = replace(acme.terms, limits=TenantLimits(requests_per_minute=12, burst_s=10.0))
    return replace(known, tenants={**known.tenants, "acme": replace(acme, terms=terms)})


@MODES
async def test_a_long_body_comes_whole_to_the_worker(tmp_path: Path, modes: dict[str, str]) -> None:
    worker = FakeWorker(answers)
    async with workers(worker), edge(tmp_path, modes, catalog(service(worker))) as front:
        long = ASKED | {"messages": [{"role": "user", "content": "word " * 60_000}]}
        assert (await front.post(long)).status == 200
        assert orjson.loads(worker.asked[0].body) == long


@MODES
async def test_a_client_that_leaves_gives_its_place_back(tmp_path: Path, modes: dict[str, str]) -> None:
    async def begins(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.event(0)
        await exchange.hang()

    worker = FakeWorker(begins)
    async with workers(worker), edge(tmp_path, modes, catalog(service(worker))) as front:
        headers = {"Authorization": f"Bearer {KEY}", "content-type": "application/json"}
        body = orjson.dumps(ASKED | {"stream": True})
        async with front.gateway.session.post(f"{front.url}/v1/chat/completions", data=body, headers=headers) as reply:
            assert await reply.content.readany()
            assert sum(one.in_flight for one in _backends(front)) == 1
        await eventually(lambda: sum(one.in_flight for one in _backends(front)) == 0, "the place is free again")


@MODES
async def test_a_worker_that_fails_is_spared_by_both_ways_in(tmp_path: Path, modes: dict[str, str]) -> None:
    async def fails(exchange: Exchange) -> None:
        await exchange.json(500, {"error": {"message": "no"}})

    async def good(exchange: Exchange) -> None:
        await exchange.json(200, completion("fine"))

    bad, fine = FakeWorker(fails, name="chat-abc12-7f-bad"), FakeWorker(good, name="chat-abc12-7f-good")
    async with workers(bad, fine), edge(tmp_path, modes, catalog(service(bad, fine))) as front:
        statuses = [(await front.post(ASKED)).status for _ in range(12)]
        assert statuses.count(500) >= 1
        assert statuses[-4:] == [200] * 4
        assert (await front.gateway.post(ASKED)).status == 200


async def test_without_a_picker_that_answers_nobody_gets_in(tmp_path: Path) -> None:
    worker = FakeWorker(answers)
    async with workers(worker), edge(tmp_path, BUFFERED, catalog(service(worker))) as front:
        await front.gateway.gateway._stop_picker(0.0)
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
            assert (await front.post(ASKED)).status >= 500
        assert worker.asked == []


def _backends(front: Edge) -> list[Any]:
    return [backend for state in front.gateway.gateway._fleet for backend in state.backends]
