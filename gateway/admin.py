"""The admin server on its own port: health, metrics, and the probe that proves a service answers.

For kubelet, operator and Prometheus; clients never reach it. Never on the hot path, so aiohttp is good enough here.
"""

from __future__ import annotations

import asyncio
import socket
import time

import orjson
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
from gateway.asking import QUESTION_BYTES, NotAnswered, ask
from gateway.catalog import ServiceKey
from gateway.errors import GatewayError
from gateway.fleet import Fleet
from gateway.flight import Flight
from gateway.http1.messages import Answer, Flow
from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.proxy import Proxy
from gateway.service_state import ServiceState

PROBE_DEADLINE_S = 10.0
_PROBE_PATH = b"/v1/completions"


class Readiness:
    """Ready when a complete catalog was seen, the others count us in, and it has not been asked to leave."""

    def __init__(self) -> None:
        self.synced = False
        self.agreed = False
        self.draining = False

    @property
    def reason(self) -> str | None:
        """Why not, or None."""
        if self.draining:
            return "draining"
        if not self.synced:
            return "the catalog is not complete yet"
        return None if self.agreed else "the other gateways do not count this one in yet"


class Admin:
    def __init__(self, readiness: Readiness, metrics: Metrics, fleet: Fleet, proxy: Proxy) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._fleet = fleet
        self._proxy = proxy
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, sock: socket.socket | None = None) -> int:
        """Listens, on `sock` where it is given, and returns the port."""
        app = web.Application(client_max_size=QUESTION_BYTES)
        app.router.add_get(GATEWAY_PATH_LIVE, self._live)
        app.router.add_get(GATEWAY_PATH_READY, self._ready)
        app.router.add_get(GATEWAY_PATH_METRICS, self._page)
        app.router.add_get(GATEWAY_PATH_DEMAND, self._demand)
        app.router.add_get(GATEWAY_PATH_ENDPOINTS, self._endpoints)
        app.router.add_post(GATEWAY_PATH_PROBE, self._probe)
        app.router.add_post(GATEWAY_PATH_ASK, self._ask)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port) if sock is None else web.SockSite(self._runner, sock)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        # That this answers at all says that the loop turns, which is all there is to be alive.
        return web.Response(text="alive\n")

    async def _ready(self, request: web.Request) -> web.Response:
        reason = self._readiness.reason
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    async def _demand(self, request: web.Request) -> web.Response:
        now_s = self._fleet.now_s()
        asked = {str(one.service.key): one.demand.told(now_s) for one in self._fleet if one.service.may_sleep}
        return web.json_response(asked)

    async def _endpoints(self, request: web.Request) -> web.Response:
        now_s = self._fleet.now_s()
        told = ((str(one.service.key), one.objections(now_s)) for one in self._fleet)
        return web.json_response({key: said for key, said in told if said})

    async def _ask(self, request: web.Request) -> web.Response:
        key = ServiceKey(request.match_info["namespace"], request.match_info["service"])
        state = self._fleet.get(key)
        if state is None:
            return _failed("UnknownService", f"The gateway's catalog has no InferenceService '{key}'.")
        try:
            status, body = await ask(state.service, request.match_info["revision"], await request.read())
        except NotAnswered as error:
            return _failed("NotAnswered", str(error))
        return web.Response(status=status, body=body, content_type="application/json")

    async def _probe(self, request: web.Request) -> web.Response:
        key = ServiceKey(request.match_info["namespace"], request.match_info["service"])
        state = self._fleet.get(key)
        if state is None:
            return _failed("UnknownService", f"The gateway's catalog has no InferenceService '{key}'.")
        started_s = time.perf_counter()
        reply = CollectedReply()
        flight = probe_flight(state, started_s)
        try:
            await self._proxy.forward(flight, reply)
        except GatewayError as error:
            return _failed(type(error).__name__, error.message)
        if reply.status != 200 or flight.backend is None:
            return _failed("BadAnswer", f"A worker of '{key}' answered the probe with status {reply.status}.")
        endpoint = flight.backend.endpoint
        latency_s = round(time.perf_counter() - started_s, 6)
        return web.json_response({"revision": endpoint.revision, "endpoint": endpoint.where, "latency_s": latency_s})


def probe_flight(state: ServiceState, started_s: float, within_s: float = PROBE_DEADLINE_S) -> Flight:
    """The cheapest request that goes through everything: one token for one word."""
    key = state.service.key
    body = orjson.dumps({"model": str(key), "prompt": "probe", "max_tokens": 1, "temperature": 0})
    return Flight(
        state,
        _PROBE_PATH,
        body,
        stream=False,
        tenant="",
        request_id=b"probe-%d" % time.monotonic_ns(),
        started_s=started_s,
        deadline_s=asyncio.get_running_loop().time() + within_s,
        wait_s=0.0,
    )


class CollectedReply:
    """A `Reply` that keeps the status of what it is told; a probe has no client."""

    closed = False

    def __init__(self) -> None:
        self.status = 0

    def answer(self, answer: Answer) -> None:
        self.status = answer.status

    def respond(self, status: int, block: bytes, body: bytes) -> None:
        self.status = status

    def begin(self, status: int, block: bytes, length: int | None, first: bytes) -> None:
        self.status = status

    def write(self, data: bytes) -> None:
        """The body of a probe's answer is of no interest."""

    def end(self) -> None:
        """Nothing to end."""

    def abort(self) -> None:
        self.status = 0

    def govern(self, flow: Flow | None) -> None:
        """Nobody reads slowly here."""


def _failed(reason: str, message: str) -> web.Response:
    return web.json_response({"reason": reason, "message": message}, status=503)
