"""Several gateway processes behind one port: started, watched, drained and shown as one.

This process owns the sockets and nothing else of the data plane: every child inherits a listening socket of its own (of
one port, by SO_REUSEPORT, so that the kernel spreads connections), and one that dies is started again on the same,
where what has connected meanwhile waits for it. One admin port answers for all. Never reads a request of a client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from crds.contract import (
    GATEWAY_PATH_ASK,
    GATEWAY_PATH_DEMAND,
    GATEWAY_PATH_ENDPOINTS,
    GATEWAY_PATH_LIVE,
    GATEWAY_PATH_METRICS,
    GATEWAY_PATH_PROBE,
    GATEWAY_PATH_READY,
)
from gateway.asking import QUESTION_BYTES
from gateway.health import objections
from gateway.metrics import CONTENT_TYPE
from gateway.pages import Pages, joined_demand
from gateway.settings import SECRET_VARIABLE, Settings, listening

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 2.0
QUESTION_TIMEOUT_S = 60.0
"""Of probes and questions, which have shorter ones of their own."""
RESTART_FIRST_S = 0.1
RESTART_MOST_S = 10.0
STEADY_S = 10.0
"""One that has lived for so long is started again without delay."""
EXIT_SETTINGS = 2


@dataclass(slots=True)
class Child:
    """One process, and the sockets that outlive it."""

    index: int
    http: socket.socket
    admin: socket.socket
    peer: socket.socket
    process: asyncio.subprocess.Process | None = None
    restart_s: float = RESTART_FIRST_S

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin.getsockname()[1]}"

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.returncode is None


@dataclass(slots=True)
class Processes:
    """`run` until a signal has drained them all; its result is the exit code."""

    settings: Settings
    arguments: Sequence[str]
    port: int = 0
    admin_port: int = 0
    children: list[Child] = field(default_factory=list)
    _leaving: bool = False
    _pages: Pages = field(default_factory=Pages)
    _secret: str = field(default_factory=lambda: secrets.token_hex(32))

    async def run(self) -> int:
        self._bind()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        async with aiohttp.ClientSession() as session:
            runner = await self._serve_admin(session)
            log.info("%d processes share port %d, admin on %d.", len(self.children), self.port, self.admin_port)
            try:
                codes = await asyncio.gather(*(self._keep_alive(one) for one in self.children))
            finally:
                await runner.cleanup()
        return max(codes)

    # --- children -----------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        settings = self.settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self.port = settings.port
        for index in range(settings.processes):
            with listening("--port", settings.host, self.port):
                http = _bound(family, settings.host, self.port, shared=True)
            self.port = int(http.getsockname()[1])
            admin = _bound(socket.AF_INET, "127.0.0.1", 0)
            peer_port = settings.peer_port and settings.peer_port + index
            with listening("--peer-port", settings.host, peer_port):
                peer = _bound(family, settings.host, peer_port, kind=socket.SOCK_DGRAM)
            self.children.append(Child(index, http, admin, peer))

    async def _keep_alive(self, child: Child) -> int:
        """Its exit code once all are leaving; a death before is followed by a new process."""
        loop = asyncio.get_running_loop()
        while not self._leaving:
            started_s = loop.time()
            child.process = await self._start(child)
            if self._leaving:
                child.process.send_signal(signal.SIGTERM)  # the others were told while this one was being started
            code = await child.process.wait()
            self._pages.bury(child.index)
            if self._leaving or code == EXIT_SETTINGS:
                self._on_end(code)
                return code
            log.error("Process %d of the gateway ended with code %d and is started again.", child.index, code)
            steady = loop.time() - started_s > STEADY_S
            child.restart_s = RESTART_FIRST_S if steady else min(RESTART_MOST_S, 2 * child.restart_s)
            await asyncio.sleep(child.restart_s)
        return 0

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        host = self.settings.address or _reachable(self.settings.host)
        told = {
            "http": child.http.fileno(),
            "admin": child.admin.fileno(),
            "peer": child.peer.fileno(),
            "siblings": [[host, one.peer.getsockname()[1]] for one in self.children if one is not child],
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            *self.arguments,
            "--inherited",
            json.dumps(told),
            pass_fds=(child.http.fileno(), child.admin.fileno(), child.peer.fileno()),
            env={**os.environ, SECRET_VARIABLE: self._secret},
        )

    def _on_signal(self) -> None:
        """All drain; asked twice, they do not wait."""
        self._leaving = True
        for child in self.children:
            # A socket that stays open here would take connections that nobody accepts any more.
            child.http.close()
            if child.process is not None and child.process.returncode is None:
                child.process.send_signal(signal.SIGTERM)

    def _on_end(self, code: int) -> None:
        """What one refuses to start with all refuse."""
        if code == EXIT_SETTINGS and not self._leaving:
            self._on_signal()

    # --- one admin port for all ---------------------------------------------------------------------------------

    async def _serve_admin(self, session: aiohttp.ClientSession) -> web.AppRunner:
        app = web.Application(client_max_size=QUESTION_BYTES)
        admin = SharedAdmin(self.children, self._pages, session)
        app.router.add_get(GATEWAY_PATH_LIVE, admin.live)
        app.router.add_get(GATEWAY_PATH_READY, admin.ready)
        app.router.add_get(GATEWAY_PATH_METRICS, admin.page)
        app.router.add_get(GATEWAY_PATH_DEMAND, admin.demand)
        app.router.add_get(GATEWAY_PATH_ENDPOINTS, admin.endpoints)
        app.router.add_post(GATEWAY_PATH_PROBE, admin.any_one)
        app.router.add_post(GATEWAY_PATH_ASK, admin.any_one)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        with listening("--admin-port", self.settings.host, self.settings.admin_port):
            await web.TCPSite(runner, self.settings.host, self.settings.admin_port).start()
        self.admin_port = int(runner.addresses[0][1])
        return runner


class SharedAdmin:
    """Asks the children, and answers as one of them would."""

    def __init__(self, children: Sequence[Child], pages: Pages, session: aiohttp.ClientSession) -> None:
        self._children = children
        self._pages = pages
        self._session = session

    async def live(self, request: web.Request) -> web.Response:
        answers = await self._all(GATEWAY_PATH_LIVE)
        alive = any(answer is not None and answer[0] == 200 for answer in answers)
        return web.Response(text="alive\n" if alive else "no process answers\n", status=200 if alive else 503)

    async def ready(self, request: web.Request) -> web.Response:
        answers = [one for one in await self._all(GATEWAY_PATH_READY) if one is not None]
        ready = any(status == 200 for status, _ in answers)
        reason = answers[0][1] if answers else "no process answers\n"
        return web.Response(text="ready\n" if ready else reason, status=200 if ready else 503)

    async def page(self, request: web.Request) -> web.Response:
        for child, answer in zip(self._children, await self._all(GATEWAY_PATH_METRICS), strict=True):
            if answer is not None and answer[0] == 200:
                self._pages.put(child.index, answer[1])
        return web.Response(body=self._pages.joined().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def demand(self, request: web.Request) -> web.Response:
        answers = await self._all(GATEWAY_PATH_DEMAND)
        told = [json.loads(one[1]) for one in answers if one and one[0] == 200]
        return web.json_response(joined_demand(told), status=200 if told else 503)

    async def endpoints(self, request: web.Request) -> web.Response:
        answers = await self._all(GATEWAY_PATH_ENDPOINTS)
        told = [json.loads(one[1]) for one in answers if one and one[0] == 200]
        return web.json_response(objections.joined(told), status=200 if told else 503)

    async def any_one(self, request: web.Request) -> web.Response:
        """What the first process that answers says: a probe, or a question."""
        body = await request.read()
        for child in self._children:
            answer = await self._ask(child, request.path, "POST", QUESTION_TIMEOUT_S, body)
            if answer is not None:
                return web.Response(text=answer[1], status=answer[0], content_type="application/json")
        return web.json_response({"reason": "NoProcess", "message": "No gateway process answers."}, status=503)

    async def _all(self, path: str) -> list[tuple[int, str] | None]:
        return await asyncio.gather(*(self._ask(one, path, "GET", ASK_TIMEOUT_S) for one in self._children))

    async def _ask(
        self, child: Child, path: str, method: str, timeout_s: float, body: bytes = b""
    ) -> tuple[int, str] | None:
        if not child.lives:
            return None
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with self._session.request(method, child.url + path, data=body, timeout=timeout) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return None


def _bound(
    family: socket.AddressFamily,
    host: str,
    port: int,
    *,
    shared: bool = False,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> socket.socket:
    sock = socket.socket(family, kind)
    if kind is socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.setblocking(False)
    return sock


def _reachable(host: str) -> str:
    """Where a process of this machine reaches what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
