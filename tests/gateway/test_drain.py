"""The way out: a drain that no client notices, and the process that does it on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.gateway.harness import SETTINGS, Exchange, FakeWorker, answers, raw, request_bytes, running, serving, workers
from tests.waiting import eventually

ASK = {"model": "chat", "messages": []}


async def test_a_drain_turns_readiness_off_and_asks_clients_to_go_elsewhere() -> None:
    async with serving(FakeWorker(answers)) as gateway, raw(gateway.port) as client:
        assert (await gateway.get("/health/ready", admin=True)).status == 200
        gateway.gateway.begin_drain()
        got = await gateway.get("/health/ready", admin=True)
        assert (got.status, got.body) == (503, b"draining\n")
        assert (await gateway.get("/health/live", admin=True)).status == 200
        await client.send(request_bytes(ASK))
        answer = await client.response()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.at_end()


async def test_an_open_stream_ends_in_full_and_idle_connections_go_at_once() -> None:
    go_on = asyncio.Event()

    async def slow_stream(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.event(0)
        await go_on.wait()
        await exchange.end_events()

    async with serving(FakeWorker(slow_stream)) as gateway, raw(gateway.port) as idle, raw(gateway.port) as busy:
        await busy.send(request_bytes({**ASK, "stream": True}))
        await busy.reader.readuntil(b"t0 ")
        draining = asyncio.create_task(gateway.gateway.drain())
        assert await idle.at_end()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", gateway.port)
        assert not draining.done()
        go_on.set()
        assert b"[DONE]" in await asyncio.wait_for(busy.reader.read(), 5)
    await asyncio.wait_for(draining, 5)


async def test_what_does_not_end_in_time_is_cut() -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.hang()

    worker = FakeWorker(hangs)
    hasty = replace(SETTINGS, drain_timeout_s=0.2)
    async with serving(worker, settings=hasty) as gateway, raw(gateway.port) as client:
        await client.send(request_bytes(ASK))
        await eventually(lambda: worker.asked, "the worker was asked")
        await gateway.gateway.drain()
        await gateway.gateway.stop()
        assert await client.at_end()
        await eventually(lambda: worker.left == 1, "the worker was released")


async def test_a_gateway_is_not_ready_before_its_first_catalog() -> None:
    async with running(None) as gateway:
        got = await gateway.get("/health/ready", admin=True)
        assert (got.status, got.body) == (503, b"the catalog is not complete yet\n")
        early = await gateway.get("/v1/models")
        assert (early.status, early.error["code"], early.headers["retry-after"]) == (503, "starting", "1")


async def test_the_process_serves_a_static_file_and_ends_with_0_on_sigterm(tmp_path: Path) -> None:
    worker = FakeWorker(answers)
    async with workers(worker):
        file = tmp_path / "static.yaml"
        file.write_text(
            textwrap.dedent(f"""
                tenants: [{{name: acme, namespaces: [demo], keys: [sk-local-1]}}]
                services: [{{namespace: demo, name: chat, ttft: 1s, endpoints: ["127.0.0.1:{worker.port}"]}}]
            """)
        )
        flags = ["--host", "127.0.0.1", "--port", "0", "--admin-port", "0", "--peer-port", "0"]
        flags += ["--static", str(file), "--drain-grace", "0"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            line = json.loads(await asyncio.wait_for(process.stderr.readline(), 20))
            port = int(line["message"].split(":")[1].split(",")[0])
            async with raw(port) as client:
                await client.send(request_bytes(ASK, key="sk-local-1"))
                assert (await client.response()).status == 200
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 0
            log = (await process.stdout.read()).decode()
            record = json.loads(log)
            assert (record["code"], record["tenant"], record["namespace"], record["service"]) == (
                200,
                "acme",
                "demo",
                "chat",
            )
            assert datetime.fromisoformat(record["time"]).tzinfo is UTC
            assert "sk-local-1" not in log + (await process.stderr.read()).decode()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
