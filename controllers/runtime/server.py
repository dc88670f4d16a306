"""The operator's own HTTP port: /metrics, /healthz, /readyz. In the loop of the workers on purpose: a loop that stands
still must fail its liveness probe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from controllers.runtime.health import Health
from controllers.runtime.interface import Hook, Page
from controllers.runtime.metrics import Metrics
from controllers.runtime.port import AdminPort, metrics_page, verdict

BODY_TIMEOUT_S: Final = 30.0
BODIES_AT_ONCE: Final = 2
"""Of the largest, with what is made of them, as many as the operator has memory for."""


class AdminServer(AdminPort):
    def __init__(
        self,
        host: str,
        port: int,
        health: Health,
        metrics: Metrics,
        pages: Sequence[Page] = (),
        hooks: Sequence[Hook] = (),
    ) -> None:
        super().__init__(host, port)
        self._pages, self._hooks = pages, hooks
        self._health, self._metrics = health, metrics
        self._bodies = asyncio.Semaphore(BODIES_AT_ONCE)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=max((one.most_bytes for one in self._hooks), default=0))
        app.router.add_get("/metrics", self._render)
        app.router.add_get("/healthz", self._live)
        app.router.add_get("/readyz", self._ready)
        for page in self._pages:
            app.router.add_get(page.path, _handler(page))
        for hook in self._hooks:
            app.router.add_post(hook.path, _taker(hook, self._bodies))
        return app

    async def _render(self, _: web.Request) -> web.Response:
        return metrics_page(self._metrics.render())

    async def _live(self, _: web.Request) -> web.Response:
        return verdict(self._health.problems())

    async def _ready(self, _: web.Request) -> web.Response:
        return verdict(self._health.unready())


def _handler(page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            text = await page.answer(dict(request.match_info), request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.Response(text=text, content_type=page.content_type)

    return answer


def _taker(hook: Hook, bodies: asyncio.Semaphore) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def take(request: web.Request) -> web.Response:
        refused = await hook.refuse(request.headers)
        if refused is not None:
            return web.Response(status=refused.status, text=refused.text)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                await bodies.acquire()
        except TimeoutError:
            return web.Response(status=503, text="Other bodies are being read. Send it again.\n")
        try:
            return await _taken(hook, request)
        finally:
            bodies.release()

    return take


async def _taken(hook: Hook, request: web.Request) -> web.Response:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        return web.Response(status=408, text="The body did not come in time.\n")
    if len(body) > hook.most_bytes:
        return web.Response(status=413, text=f"At most {hook.most_bytes} bytes are taken.\n")
    answer = await hook.answer(body)
    return web.Response(status=answer.status, text=answer.text)
