"""Several processes behind one port: one limit, one page, one drain; and one that dies comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from e2e.ports import free_ports
from gateway.pages import Pages, joined_demand
from gateway.processes import Child, Processes, SharedAdmin
from gateway.settings import parse
from tests.gateway.harness import FakeWorker, answers, workers
from tests.waiting import eventually, eventually_told

KEY = "sk-many"


@dataclass
class Many:
    """A gateway of several processes, and clients that connect anew for each request."""

    process: asyncio.subprocess.Process
    port: int
    admin_port: int

    async def ask(self) -> int:
        headers = {"Authorization": f"Bearer {KEY}", "Connection": "close"}
        body = {"model": "chat", "messages": [], "max_tokens": 10}
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
            async with session.post(url, json=body, headers=headers) as response:
                await response.read()
                return response.status

    async def admin(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.admin_port}{path}") as response,
        ):
            return response.status, await response.text()

    async def metric(self, name: str, **labels: str) -> float:
        _, page = await self.admin("/metrics")
        samples = (one for family in text_string_to_metric_families(page) for one in family.samples)
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(one) for one in path.read_text().split()]

    async def agreed(self, count: int) -> None:
        async def is_so() -> bool:
            return await self.metric("foretide_gateway_members") == count

        await eventually_told(is_so, f"{count} processes agree")

    async def is_ready(self) -> bool:
        try:
            return (await self.admin("/health/ready"))[0] == 200
        except aiohttp.ClientError:
            return False


@contextlib.asynccontextmanager
async def many(tmp_path: Path, worker: FakeWorker, limits: str = "") -> AsyncIterator[Many]:
    port, admin_port = free_ports(2)
    file = tmp_path / "static.yaml"
    file.write_text(
        f"tenants: [{{name: acme, namespaces: [demo], keys: [{KEY}]{limits}}}]\n"
        f'services: [{{namespace: demo, name: chat, endpoints: ["127.0.0.1:{worker.port}"]}}]\n'
    )
    flags = ["--processes", "2", "--host", "127.0.0.1", "--peer-port", "0", "--access-log", "0", "--drain-grace", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "--static", str(file), "--port", str(port), "--admin-port", str(admin_port),
        *flags, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    one = Many(process, port, admin_port)
    try:
        await eventually_told(one.is_ready, "a process is ready")
        await one.agreed(2)
        yield one
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_processes_keep_one_limit_and_show_one_page(tmp_path: Path) -> None:
    worker = FakeWorker(answers)
    async with workers(worker), many(tmp_path, worker, ", limits: {requestsPerMinute: 60, burst: 30s}") as gateway:
        got = [status for _ in range(4) for status in await asyncio.gather(*(gateway.ask() for _ in range(15)))]
        admitted = got.count(200)
        assert set(got) == {200, 429}
        assert 29 <= admitted <= 45
        assert await gateway.metric("foretide_gateway_requests_total", code="200", service="chat") == admitted
        assert await gateway.metric("foretide_gateway_requests_total", code="429") == 60 - admitted
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{gateway.admin_port}/probe/demo/chat"
            async with session.post(url) as response:
                assert (await response.json())["revision"] == "static"


async def test_a_process_that_dies_comes_back_and_its_count_stays(tmp_path: Path) -> None:
    worker = FakeWorker(answers)
    async with workers(worker), many(tmp_path, worker) as gateway:
        assert [await gateway.ask() for _ in range(20)] == [200] * 20
        before = gateway.children()
        assert await gateway.metric("foretide_gateway_requests_total", code="200", service="chat") == 20
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: len(set(gateway.children()) | set(before)) == 3, "another one was started")
        assert [await gateway.ask() for _ in range(20)] == [200] * 20
        assert await gateway.metric("foretide_gateway_requests_total", code="200", service="chat") == 40
        await gateway.agreed(2)


def test_pages_are_added_up_and_a_dead_process_leaves_its_counts() -> None:
    page = (
        '# HELP a_total Things.\n# TYPE a_total counter\na_total{{x="1 2"}} {0}\n'
        "# HELP foretide_gateway_in_flight Now.\n# TYPE foretide_gateway_in_flight gauge\n"
        "foretide_gateway_in_flight {0}\n"
        "# HELP age Old.\n# TYPE age gauge\nage {0}\n"
    )
    pages = Pages()
    pages.put(0, page.format(3.0))
    pages.put(1, page.format(4.0))
    assert 'a_total{x="1 2"} 7.0' in pages.joined()
    assert "foretide_gateway_in_flight 7.0" in pages.joined()
    assert "age 4.0" in pages.joined()
    pages.bury(1)
    assert 'a_total{x="1 2"} 7.0' in pages.joined()
    assert "foretide_gateway_in_flight 3.0" in pages.joined()
    pages.put(1, page.format(1.0))
    assert 'a_total{x="1 2"} 8.0' in pages.joined()


@pytest.mark.parametrize(
    "name", ["connections", "buffered_bytes", "journal_bytes", "in_flight", "open_streams", "queued", "waiting"]
)
def test_what_each_process_holds_of_its_own_is_added_up(name: str) -> None:
    pages = Pages()
    for process in range(3):
        pages.put(process, f"# TYPE foretide_gateway_{name} gauge\nforetide_gateway_{name} 5.0\n")
    assert f"foretide_gateway_{name} 15.0" in pages.joined()


def test_a_service_is_idle_as_long_as_in_the_process_that_was_busy_last() -> None:
    one = {"demo/chat": {"open": 1, "waiting": 0, "idle_s": 0.0}}
    other = {"demo/chat": {"open": 2, "waiting": 1, "idle_s": 9.0}, "demo/b": {"open": 0, "waiting": 0, "idle_s": 5.0}}
    assert joined_demand([one, other]) == {
        "demo/chat": {"open": 3, "waiting": 1, "idle_s": 0.0},
        "demo/b": {"open": 0, "waiting": 0, "idle_s": 5.0},
    }


class _ToldWhileStarting(Processes):
    """Its only process is being started when the signal comes."""

    async def _start(self, child: Child) -> Any:
        self._on_signal()
        told = asyncio.Event()

        async def ended() -> int:
            await told.wait()
            return 0

        return SimpleNamespace(returncode=None, send_signal=lambda number: told.set(), wait=ended)


async def test_a_process_that_is_being_started_while_all_are_told_to_leave_is_told_too() -> None:
    many = _ToldWhileStarting(parse(["--port", "0", "--admin-port", "0", "--static", __file__]), [])
    with socket.socket() as http, socket.socket() as admin, socket.socket() as peer:
        many.children = [Child(0, http, admin, peer)]
        assert await asyncio.wait_for(many._keep_alive(many.children[0]), 30) == 0


async def test_a_demand_that_no_process_tells_is_no_demand_of_nothing() -> None:
    async with aiohttp.ClientSession() as session:
        answer = await SharedAdmin([], Pages(), session).demand(cast(web.Request, None))
    assert answer.status == 503


@pytest.mark.parametrize("flag", ["--port", "--admin-port", "--peer-port"])
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_port_that_is_taken_is_one_line_and_code_2(tmp_path: Path, flag: str, processes: str) -> None:
    file = tmp_path / "static.yaml"
    file.write_text("tenants: []\nservices: []\n")
    kind = socket.SOCK_DGRAM if flag == "--peer-port" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = str(taken.getsockname()[1])
        ports = {"--port": "0", "--admin-port": "0", "--peer-port": "0"} | {flag: port}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "--static", str(file), "--host", "127.0.0.1", "--processes", processes,
            *(word for pair in ports.items() for word in pair), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await asyncio.wait_for(process.communicate(), 30)
    assert said.decode() == f"gateway: {flag} {port}, --host 127.0.0.1: cannot listen: Address already in use.\n"
    assert process.returncode == 2
