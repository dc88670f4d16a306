"""The choices of our own gateway for requests that another proxy carries: the same keys, limits, queue and routing.

What only a proxy can do is left out: nothing is retried here, no stream is moved and no fallback taken. A request
counts as load on its worker until the proxy says that the answer has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from crds.contract import HEADER_DRAINING, HEADER_PROMPT_TOKENS, HEADER_TIMING
from gateway import settlement
from gateway.admission.door import Grant
from gateway.asked import Asked
from gateway.backend import Backend
from gateway.catalog import Tenant
from gateway.degradation import Road
from gateway.endpoint_picker.choices import Course, Destination
from gateway.errors import GatewayError, answer_for
from gateway.flight import Flight
from gateway.frontend import Frontend
from gateway.http1.messages import Answer, Request
from gateway.journey import CLIENT_LEFT
from gateway.proxy import wait_for_endpoint
from gateway.requests import Route, route_of
from gateway.retries import Failure
from gateway.service_state import ServiceState
from gateway.settlement import Outcome
from gateway.usage import estimated, events_in, told_tokens, usage_in

_DRAINING = HEADER_DRAINING.encode()
_PROMPT_TOKENS = HEADER_PROMPT_TOKENS.encode()
_TIMING = HEADER_TIMING.encode()
_TAIL_BYTES = 4096
"""`usage` stands at the end of an answer."""


class OwnChoices:
    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._loop = asyncio.get_running_loop()

    def admit(self, request: Request) -> Tenant | Answer:
        started_s = time.perf_counter()
        tenant_name = ""
        try:
            route, _ = route_of(request)
            tenant = self._frontend.tenant_of(request)
            tenant_name = tenant.name
            if route is Route.GENERATE:
                return tenant
            return self._frontend.models(request, tenant, started_s)
        except GatewayError as error:
            return self._frontend.refusal(error, request, tenant_name, started_s)

    async def choose(self, request: Request, tenant: Tenant) -> Course | Answer:
        started_s = time.perf_counter()
        try:
            asked = self._frontend.asked(request, route_of(request)[1], tenant, started_s)
            state = self._frontend.service_of(asked)
        except GatewayError as error:
            return self._frontend.refusal(error, request, tenant.name, started_s)
        self._frontend.trace(asked)
        return await self._set_out(asked, state)

    async def _set_out(self, asked: Asked, state: ServiceState) -> Course | Answer:
        road = Road(state.service, lambda key: False)
        flight = self._frontend.journeys.open(asked, road, state)
        grant: Grant | None = None
        try:
            grant = self._frontend.journeys.enter(asked, road, state)
            if grant.pending:
                await self._frontend.journeys.wait_for_turn(flight, grant)
            self._frontend.journeys.stand(flight, grant)
            backend = await self._pick(flight)
        except GatewayError as error:
            answer = answer_for(error, flight.request_id)
            flight.status, flight.bytes_out = answer.status, len(answer.body)
            self._frontend.journeys.close(flight, grant)
            return answer
        except asyncio.CancelledError:
            flight.status = CLIENT_LEFT
            self._frontend.journeys.close(flight, grant)
            raise
        return OwnCourse(self._frontend, flight, grant, backend, self._loop)

    async def _pick(self, flight: Flight) -> Backend:
        while True:
            backend = flight.state.pick((), self._loop.time(), flight.keys, flight.revision)
            if backend is not None:
                return backend
            await wait_for_endpoint(flight, self._loop)


class OwnCourse:
    """Follows one answer that passes by, and settles at its end."""

    def __init__(
        self, frontend: Frontend, flight: Flight, grant: Grant, backend: Backend, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._frontend = frontend
        self._flight = flight
        self._grant = grant
        self._backend = backend
        self._loop = loop
        self._sent_s = time.perf_counter()
        self._prompt_tokens: int | None = None
        self._timing = ""
        self._outcome = Outcome(0, Failure.CLOSED, 0.0, False)
        """As far as it is known."""
        trace = flight.trace
        self._span = trace.attempt({"server.address": backend.endpoint.address}) if trace is not None else None
        self._tail = b""
        flight.backend = backend
        flight.asked_s = self._sent_s
        backend.begin()
        flight.state.in_flight += 1

    @property
    def destination(self) -> Destination:
        traced = self._span.headers if self._span is not None else b""
        lines = (self._flight.extra + traced + b"x-request-id: %b\r\n" % self._flight.request_id).split(b"\r\n")
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines if line)]
        endpoint = self._backend.endpoint
        return Destination(endpoint.where, endpoint.revision, headers)

    def answered(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        flight = self._flight
        flight.status, flight.begun = status, True
        self._timing = headers.get(_TIMING, b"").decode("latin-1")
        self._prompt_tokens = told_tokens(headers.get(_PROMPT_TOKENS, b""))
        streamed, drains = flight.stream and status == 200, status == 503 and _DRAINING in headers
        failure = Failure.DRAINING if drains else None
        self._outcome = Outcome(status, failure, time.perf_counter() - self._sent_s, streamed, drains)
        if streamed:
            flight.ttft_s = time.perf_counter() - flight.started_s
            flight.state.metrics.first_token(flight.ttft_s, flight.state.service.ttft_target_s)
        settlement.judge(flight.state, self._backend, self._outcome, self._loop.time())

    def data(self, piece: bytes) -> None:
        flight = self._flight
        flight.bytes_out += len(piece)
        flight.events += events_in(piece)
        self._tail = (self._tail + piece)[-_TAIL_BYTES:]

    def end(self, *, whole: bool) -> None:
        flight = self._flight
        self._backend.end()
        flight.state.in_flight -= 1
        if not flight.begun or not whole:
            flight.status = CLIENT_LEFT
        elif flight.status == 200:
            flight.usage = usage_in(self._tail) or estimated(self._prompt_tokens, len(flight.body), flight.events)
        if self._span is not None:
            self._span.end("cancelled" if flight.status == CLIENT_LEFT else None, self._timing)
        if flight.status != CLIENT_LEFT:
            rest_s = time.perf_counter() - self._sent_s - self._outcome.latency_s
            settlement.count(flight.state, self._backend, self._outcome, flight.usage, rest_s)
        self._frontend.journeys.close(flight, self._grant)
