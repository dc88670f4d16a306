"""The processes of a run: workers that come and go, a gateway before them, and nginx before the same workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import orjson

from e2e.ports import free_port, free_ports

KEY = "sk-failover"
STEP_MS = 20
_START_LIMIT_S = 60.0


class Workers:
    """On fixed ports, as if each pod came back under its own address."""

    def __init__(self, zygote: asyncio.subprocess.Process, ports: list[int]) -> None:
        self.ports = ports
        self._zygote = zygote
        self._pids: dict[int, int] = {}
        self._starting = asyncio.Lock()

    async def start(self, port: int) -> None:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        async with self._starting:
            self._zygote.stdin.write(b"%d\n" % port)
            self._pids[port] = int(await self._zygote.stdout.readline())

    def signal(self, port: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pids[port], number)

    async def restart(self, port: int) -> None:
        self.signal(port, signal.SIGKILL)
        await self.start(port)

    def kill_all(self) -> None:
        for port in self._pids:
            self.signal(port, signal.SIGKILL)


@asynccontextmanager
async def workers(count: int) -> AsyncIterator[Workers]:
    zygote = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.failover.worker", str(STEP_MS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    fleet = Workers(zygote, free_ports(count))
    try:
        for port in fleet.ports:
            await fleet.start(port)
        for port in fleet.ports:
            await answers(f"http://127.0.0.1:{port}/health")
        yield fleet
    finally:
        fleet.kill_all()
        zygote.kill()
        assert zygote.stdout is not None
        await zygote.stdout.read()  # its forks have it open until they end
        await zygote.wait()


class Gateway:
    """A process of its own. `moved`: of each request that was moved, how often and for how long its client waited."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.url = url
        self.pid = process.pid
        self.moved: list[tuple[int, float]] = []
        self._process = process
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            record = orjson.loads(line)
            if record.get("moves"):
                self.moved.append((record["moves"], record["gap_s"]))

    async def stop(self) -> None:
        self._process.terminate()
        await self._process.wait()
        await self._reading


@asynccontextmanager
async def gateway(ports: list[int], folder: Path, *flags: str) -> AsyncIterator[Gateway]:
    config = folder / "gateway.json"
    service = {"namespace": "demo", "name": "bench", "endpoints": [f"127.0.0.1:{port}" for port in ports]}
    tenant = {"name": "acme", "namespaces": ["demo"], "keys": [KEY]}
    config.write_bytes(orjson.dumps({"tenants": [tenant], "services": [service]}))
    port, admin_port = free_ports(2)
    with (folder / "gateway.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "--static", str(config), "--host", "127.0.0.1", "--port", str(port),
            "--admin-port", str(admin_port), "--peer-port", "0", "--drain-grace", "0", "--drain-timeout", "5", *flags,
            stdout=asyncio.subprocess.PIPE, stderr=log, limit=1 << 20,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    running = Gateway(process, url)
    try:
        await answers(url + "/v1/models")
        yield running
    finally:
        await running.stop()


@asynccontextmanager
async def nginx(ports: list[int], folder: Path) -> AsyncIterator[str | None]:
    """Its URL; None where the machine has none."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield None
        return
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{one};" for one in ports)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; upstream workers {{ least_conn; {servers} }}\n"
        f"  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://workers; proxy_buffering off;\n"
        f"    proxy_next_upstream error timeout http_503 non_idempotent; proxy_http_version 1.1; }} }} }}\n"
    )
    process = await asyncio.create_subprocess_exec(
        program, "-e", str(folder / "nginx.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")
    )
    try:
        await answers(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def answers(url: str) -> None:
    """Returns when somebody answers there, whatever it is."""
    deadline_s = time.monotonic() + _START_LIMIT_S
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientError:
                if time.monotonic() > deadline_s:
                    raise
            await asyncio.sleep(0.02)
