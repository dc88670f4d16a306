"""The admin port: health by progress, metrics, drain, the worker's own benchmark.

Reached by kubelet, operator and Prometheus, never by clients.
"""

from __future__ import annotations

import time

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from crds.contract import (
    WORKER_PATH_DRAIN,
    WORKER_PATH_LIVE,
    WORKER_PATH_METRICS,
    WORKER_PATH_PROFILE,
    WORKER_PATH_READY,
)
from worker_image.errors import EngineError
from worker_image.profile import NotAlone
from worker_image.server.errors import LoadingError
from worker_image.server.state import ServerState


def admin_app(state: ServerState) -> web.Application:
    admin = Admin(state)
    app = web.Application()
    app.router.add_get(WORKER_PATH_LIVE, admin.live)
    app.router.add_get(WORKER_PATH_READY, admin.ready)
    app.router.add_get(WORKER_PATH_METRICS, admin.metrics)
    app.router.add_get(WORKER_PATH_DRAIN, admin.drain)
    app.router.add_post(WORKER_PATH_PROFILE, admin.profile)
    return app


class Admin:
    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def live(self, _: web.Request) -> web.Response:
        return _verdict(self._state.why_not_live(time.monotonic()), self._state)

    async def ready(self, _: web.Request) -> web.Response:
        return _verdict(self._state.why_not_ready(time.monotonic()), self._state)

    async def drain(self, _: web.Request) -> web.Response:
        self._state.drain()
        return _verdict(None, self._state)

    async def profile(self, _: web.Request) -> web.Response:
        try:
            body, status = (await self._state.profile()).plain(), 200
        except NotAlone as error:
            body, status = {"message": str(error)}, 409
        except (EngineError, LoadingError) as error:
            body, status = {"message": str(error)}, 503
        return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")

    async def metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._state.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _verdict(problem: str | None, state: ServerState) -> web.Response:
    facts = {
        "ok": problem is None,
        "message": problem or "ok",
        "draining": state.draining,
        "open_requests": state.n_open,
        "engine_steps": state.engine.load.steps,
    }
    status = 200 if problem is None else 503
    return web.Response(body=orjson.dumps(facts), status=status, content_type="application/json")
