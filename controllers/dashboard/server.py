"""The dashboard's HTTP port: the page's files and the JSON API. Read-only, whoever asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from controllers.dashboard import budget, charts, health, rows
from controllers.dashboard.access import Access, Refused, Viewer
from controllers.dashboard.caches import Caches
from controllers.dashboard.past import Past
from controllers.dashboard.pools import pool_rows
from controllers.history.interface import Counts, HistoryError, ServiceId
from kube.errors import KubeError
from kube.resources import Object

log = logging.getLogger(__name__)

MOST_DECISIONS: Final = 2000
MOST_WINDOWS: Final = 100
HOURS: Final = range(1, 24 * 35 + 1)
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_VIEWER: Final = web.RequestKey("viewer", Viewer)


class DashboardServer:
    """Serves until cancelled. `static` is the built page (`make dashboard`)."""

    def __init__(
        self,
        caches: Caches,
        past: Past,
        access: Access,
        static: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._caches, self._past, self._access, self._static, self._clock = caches, past, access, static, clock
        self._windows: dict[ServiceId, tuple[tuple[float, float], Counts]] = {}
        """Counts of whole windows, which change every ten minutes; every open page asks every five seconds."""

    async def run(self, host: str, port: int) -> None:
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            log.info("The dashboard listens on port %d.", port)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=0)
        app.router.add_get("/api/v1/session", self._session)
        app.router.add_get("/api/v1/services", self._services)
        app.router.add_get("/api/v1/services/{namespace}/{name}", self._service)
        app.router.add_get("/api/v1/services/{namespace}/{name}/chart", self._chart)
        app.router.add_get("/api/v1/tenants", self._tenants)
        app.router.add_get("/api/v1/pools", self._pools)
        app.router.add_get("/", self._index)
        if (self._static / "assets").is_dir():
            app.router.add_static("/assets", self._static / "assets")
        return app

    # --- what every answer has ---------------------------------------------------------------------------------------
    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if request.path.startswith("/api/"):
                request[_VIEWER] = await self._access.viewer(request.headers.get("Authorization"))
            response = await handler(request)
        except Refused as refused:
            response = _told(refused.status, refused.message)
        except KubeError as error:
            log.warning("The dashboard could not check a token: %s", error)
            response = _told(503, "The API server does not answer, so nobody can be let in. Try again soon.")
        except web.HTTPException as error:
            response = _told(error.status, f"{error.reason}: {request.path}")
        response.headers.update(_HEADERS)
        return response

    # --- answers -----------------------------------------------------------------------------------------------------
    async def _session(self, request: web.Request) -> web.Response:
        user = request[_VIEWER].user
        return _json({"user": user, "readOnly": user is None})

    async def _services(self, request: web.Request) -> web.Response:
        words = request.query
        query = rows.Query(
            words.get("search", "")[:200],
            words.get("sort", "name"),
            words.get("descending") == "true",
            _whole(words.get("page", "1")) or 1,
        )
        if not rows.is_order(query.sort):
            return _told(400, f"sort is '{query.sort}': name, servable, replicas, load, planned, policy or tenant.")
        return _json(rows.fleet_page(self._caches.services.items(), self._caches.forecast_by_service(), query))

    async def _service(self, request: web.Request) -> web.Response:
        found = self._found(request)
        if found is None:
            return _unknown(request)
        service, key = found
        sla = self._caches.sla_of(service)
        spent = await self._budget(sla, key)
        alerts = health.alerts(self._caches.policies.items(), *key)
        return _json(rows.service_detail(service, self._caches.forecast_of(key), sla, spent, alerts))

    async def _chart(self, request: web.Request) -> web.Response:
        found = self._found(request)
        if found is None:
            return _unknown(request)
        asked = request.query.get("hours", "24")
        hours = _whole(asked)
        if hours not in HOURS:
            return _told(400, f"hours is '{asked}': a whole number from {HOURS.start} to {HOURS.stop - 1}.")
        now_s = self._clock()
        span = charts.span_of(hours, now_s)
        try:
            counts = await self._past.counts(found[1], span.start_s, span.end_s, span.step_s)
            lines = await self._past.decisions(found[1], span.start_s, MOST_DECISIONS)
        except HistoryError as error:
            return _told(503, f"The history cannot be read now: {error}")
        # Two thousand records take tenths of a second to read; the loop has workers to look after.
        return _json(await asyncio.to_thread(charts.chart, counts, lines, span, now_s))

    async def _tenants(self, _: web.Request) -> web.Response:
        return _json(rows.tenant_rows(self._caches.tenants.items(), self._caches.services.items()))

    async def _pools(self, _: web.Request) -> web.Response:
        return _json(pool_rows(self._caches.pools.items()))

    async def _index(self, _: web.Request) -> web.Response:
        page = self._static / "index.html"
        if not page.is_file():
            return web.Response(status=503, text="The page is not built. In a checkout: make dashboard\n")
        return web.Response(body=page.read_bytes(), content_type="text/html", headers={"Cache-Control": "no-cache"})

    # --- helpers -----------------------------------------------------------------------------------------------------
    def _found(self, request: web.Request) -> tuple[Object, ServiceId] | None:
        key = ServiceId(request.match_info["namespace"], request.match_info["name"])
        service = self._caches.services.get(*key)
        return None if service is None else (service, key)

    async def _budget(self, sla: Object | None, key: ServiceId) -> dict[str, Any] | None:
        window_s = budget.window_s(sla)
        if sla is None or window_s is None:
            return None
        end_s = self._clock() // 600 * 600
        asked, counts = self._windows.get(key, (None, None))
        if counts is None or asked != (end_s, window_s):
            try:
                counts = await self._past.counts(key, end_s - window_s // 600 * 600, end_s, 600.0)
            except HistoryError:
                return None
            self._remember(key, (end_s, window_s), counts)
        return budget.error_budget(sla, counts)

    def _remember(self, key: ServiceId, asked: tuple[float, float], counts: Counts) -> None:
        if len(self._windows) >= MOST_WINDOWS:
            self._windows.clear()
        self._windows[key] = (asked, counts)


def _whole(text: str) -> int:
    """0 of what is no number, or one that nobody means."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def _json(value: object) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=orjson.dumps(value), content_type="application/json", headers=headers)


def _told(status: int, message: str) -> web.Response:
    return web.Response(status=status, body=orjson.dumps({"message": message}), content_type="application/json")


def _unknown(request: web.Request) -> web.Response:
    names = request.match_info
    return _told(404, f"There is no InferenceService '{names['namespace']}/{names['name']}'.")
