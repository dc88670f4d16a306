"""What the listener serves: authenticate, route, read what is wanted, resolve, admit, forward; then count and log.

The first six happen before anything is sent to a worker, and the first two before a body is read. Never holds a
request's content beyond its answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import orjson

from crds.contract import (
    HEADER_CLASS,
    HEADER_DEADLINE_MS,
    HEADER_TENANT,
    HEADER_TTFT_TARGET_MS,
    HEADER_WEIGHT,
)
from gateway.access_log import AccessLog
from gateway.admission.door import Admission, Grant
from gateway.admission.terms import Priority
from gateway.catalog import Catalog, Service, ServiceKey, Tenant, resolve, visible
from gateway.degradation import Road
from gateway.errors import (
    Degrades,
    GatewayError,
    Overloaded,
    Unauthenticated,
    UnknownModel,
    answer_for,
    answer_for_problem,
)
from gateway.fleet import Fleet, ServiceState
from gateway.http1.limits import Problem
from gateway.http1.messages import Answer, Reply, Request
from gateway.identity import Authenticator
from gateway.metrics import Metrics
from gateway.mirror import Mirror
from gateway.proxy import Proxy, elapsed_s
from gateway.relay import Flight
from gateway.requests import (
    Route,
    Wanted,
    forwarded_headers,
    model_in,
    request_id_of,
    route_of,
    timeout_s,
    wanted_by,
    wants_explanation,
)
from gateway.routing.keys import keys_of
from gateway.routing.terms import KEYED
from gateway.usage import BYTES_PER_TOKEN, Usage

_STANDING = "".join(
    f"{name}: {form}\r\n"
    for name, form in (
        (HEADER_CLASS, "%b"),
        (HEADER_TENANT, "%b"),
        (HEADER_WEIGHT, "%g"),
        (HEADER_DEADLINE_MS, "%d"),
        (HEADER_TTFT_TARGET_MS, "%d"),
    )
).encode()
CLIENT_LEFT = 499
"""The code by which a request is counted whose client did not wait for the answer."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    in_flight: int = 10_000
    deadline_s: float = 600.0
    wait_s: float = 10.0
    """For an endpoint of a service that has none ready."""
    cold_wait_s: float = 300.0
    """The same for a service that may sleep at no worker at all: a new one takes minutes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a client, whoever will answer it."""

    request: Request
    path: bytes
    tenant: Tenant
    wanted: Wanted
    request_id: bytes
    started_s: float
    deadline_s: float


class Frontend:
    """The `Application` of the client-facing listener."""

    def __init__(
        self,
        fleet: Fleet,
        proxy: Proxy,
        admission: Admission,
        metrics: Metrics,
        access_log: AccessLog,
        limits: RequestLimits,
        rng: random.Random,
    ) -> None:
        self._fleet = fleet
        self._admission = admission
        self._proxy = proxy
        self._metrics = metrics
        self._access_log = access_log
        self._limits = limits
        self._rng = rng
        self._mirror = Mirror(proxy, rng)
        self._loop = asyncio.get_running_loop()
        self._authenticator = Authenticator()
        self._catalog = Catalog()

    def update(self, catalog: Catalog) -> None:
        """Takes over a new view."""
        self._catalog = catalog
        self._authenticator.replace(catalog.keyring)
        self._fleet.update(catalog)
        self._admission.update(catalog)

    def close(self) -> None:
        """Ends what nobody waits for."""
        self._mirror.close()

    # --- Application --------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> Answer | None:
        try:
            route_of(request)
            self._tenant(request)
            if self._proxy.in_flight >= self._limits.in_flight:
                raise Overloaded("The gateway holds as many requests as it may. Try again soon.", retry_after_s=1)
        except GatewayError as error:
            return self._refusal(error, request, "", time.perf_counter())
        return None

    async def handle(self, request: Request, reply: Reply) -> None:
        started_s = time.perf_counter()
        tenant_name = ""
        try:
            route, path = route_of(request)
            tenant = self._tenant(request)
            tenant_name = tenant.name
            if route is Route.GENERATE:
                await self._generate(request, path, tenant, started_s, reply)
            elif route is Route.MODELS:
                self._answer_models(visible(self._catalog, tenant), request, tenant, started_s, reply)
            else:
                model = model_in(path)
                found = [(model, resolve(self._catalog, tenant, model))]
                self._answer_models(found, request, tenant, started_s, reply, single=True)
        except GatewayError as error:
            reply.answer(self._refusal(error, request, tenant_name, started_s))

    def refuse(self, problem: Problem) -> Answer:
        answer = answer_for_problem(problem)
        self._metrics.refused("", answer.status)
        return answer

    # --- routes -------------------------------------------------------------------------------------------------

    def _tenant(self, request: Request) -> Tenant:
        name = self._authenticator.tenant(request.headers.get(b"authorization"))
        tenant = self._catalog.tenants.get(name)
        if tenant is None:
            raise Unauthenticated("The API key belongs to a Tenant that no longer exists.")
        return tenant

    async def _generate(self, request: Request, path: bytes, tenant: Tenant, started_s: float, reply: Reply) -> None:
        wanted = wanted_by(request)
        asked = Asked(
            request, path, tenant, wanted, request_id_of(request), started_s,
            self._loop.time() + timeout_s(request, self._limits.deadline_s),
        )  # fmt: skip
        service = resolve(self._catalog, tenant, wanted.model)
        state = self._fleet.get(service.key)
        if state is None:
            raise UnknownModel(f"The model '{wanted.model}' was just deleted.", param="model")
        road = Road(service, self._is_healthy)
        if service.fallbacks and not state.is_healthy(self._loop.time()) and road.leave(Degrades.NO_ENDPOINT):
            state.metrics.arrivals.inc()
            state.metrics.fell_back(Degrades.NO_ENDPOINT.value)
        while not await self._serve(asked, road, reply):
            pass

    def _is_healthy(self, key: ServiceKey) -> bool:
        state = self._fleet.get(key)
        return state is not None and state.is_healthy(self._loop.time())

    async def _serve(self, asked: Asked, road: Road, reply: Reply) -> bool:
        """False when the service did not take the request, and the next on the road shall."""
        state = self._fleet.get(road.key)
        if state is None:
            raise UnknownModel(f"The model '{road.key.name}' was just deleted.", param="model")
        state.opened()
        flight = self._flight(asked, road, state)
        grant: Grant | None = None
        try:
            arrived = state.metrics.arrivals.inc if road.fallback is None else None
            grant = self._admission.enter(asked.tenant, state, asked.wanted, asked.request, arrived)
            if grant.pending:
                await self._admission.ready(grant)
            flight.told = grant.told()
            flight.is_urgent = grant.priority is Priority.P0
            flight.extra += self._standing(grant, flight)
            if flight.revision is not None:
                self._mirror.copy(flight)
            await self._proxy.forward(flight, reply)
        except GatewayError as error:
            if error.degrades is not None and road.leave(error.degrades):
                state.metrics.fell_back(error.degrades.value)
                flight.is_left = True
                return False
            answer = answer_for(error, flight.request_id)
            flight.status, flight.bytes_out = answer.status, len(answer.body)
            reply.answer(answer)
        except asyncio.CancelledError:
            flight.status = CLIENT_LEFT
            raise
        finally:
            state.closed(self._loop.time())
            if grant is not None:
                self._admission.leave(grant, None if flight.is_left else _taken_by(flight))
            if not flight.is_left:
                self._account(flight)
        return True

    def _flight(self, asked: Asked, road: Road, state: ServiceState) -> Flight:
        flight = Flight(
            state,
            asked.path,
            road.body(asked.request.body, asked.wanted.body),
            stream=asked.wanted.stream,
            tenant=asked.tenant.name,
            request_id=asked.request_id,
            started_s=asked.started_s,
            deadline_s=asked.deadline_s,
            wait_s=self._limits.cold_wait_s if state.service.may_sleep else self._limits.wait_s,
            extra=forwarded_headers(asked.request),
        )
        flight.notes = road.told
        self._place(flight, asked.request, asked.wanted)
        return flight

    def _place(self, flight: Flight, request: Request, wanted: Wanted) -> None:
        """What decides on its worker beside the workers themselves."""
        service = flight.state.service
        flight.explain = wants_explanation(request)
        flight.is_traced = self._access_log.explains()
        if service.traffic or service.routing.policy in KEYED:
            flight.keys = keys_of(request, wanted.body, flight.tenant)
        if service.traffic:
            flight.revision = flight.state.revision_for(flight.keys, self._rng.random())

    def _standing(self, grant: Grant, flight: Flight) -> bytes:
        """What a worker is told of how the request stands among others."""
        due_s = grant.due_s - (time.perf_counter() - flight.started_s)
        left_s = flight.deadline_s - self._loop.time()
        return _STANDING % (
            grant.priority.name.encode(),
            grant.tenant.name.encode(),
            grant.tenant.terms.weight,
            max(1, int(left_s * 1000)),
            max(1, int(due_s * 1000)),
        )

    def _answer_models(
        self,
        found: list[tuple[str, Service]],
        request: Request,
        tenant: Tenant,
        started_s: float,
        reply: Reply,
        *,
        single: bool = False,
    ) -> None:
        entries = [model_entry(name, service) for name, service in found]
        body = orjson.dumps(entries[0] if single else {"object": "list", "data": entries})
        request_id = request_id_of(request)
        reply.answer(Answer(200, body, headers=((b"x-request-id", request_id),)))
        self._metrics.refused(tenant.name, 200)
        self._log_unforwarded(request, request_id, tenant.name, 200, len(body), started_s)

    # --- afterwards ---------------------------------------------------------------------------------------------

    def _refusal(self, error: GatewayError, request: Request, tenant: str, started_s: float) -> Answer:
        request_id = request_id_of(request)
        answer = answer_for(error, request_id)
        self._metrics.refused(tenant, answer.status)
        self._log_unforwarded(request, request_id, tenant, answer.status, len(answer.body), started_s)
        return answer

    def _account(self, flight: Flight) -> None:
        duration_s = elapsed_s(flight)
        state = flight.state
        if not state.gone:
            state.metrics.answered(flight.tenant, flight.status, duration_s)
            if flight.usage is not None:
                state.metrics.completed(flight.usage)
        if self._access_log.wants(flight.status):
            self._access_log.write(_record_of(flight, duration_s))

    def _log_unforwarded(
        self, request: Request, request_id: bytes, tenant: str, code: int, size: int, started_s: float
    ) -> None:
        if self._access_log.wants(code):
            self._access_log.write(
                {
                    "time": time.time(),
                    "request_id": request_id.decode(),
                    "tenant": tenant,
                    "path": request.target.partition(b"?")[0][:200].decode("latin-1"),
                    "code": code,
                    "bytes": size,
                    "duration_s": round(time.perf_counter() - started_s, 6),
                }
            )


def _taken_by(flight: Flight) -> Usage:
    """Tokens: of a whole answer as it says, of a broken one what the client has seen, of none nothing."""
    if flight.usage is not None:
        return flight.usage
    if flight.ttft_s is not None or (flight.status == CLIENT_LEFT and flight.backend is not None):
        return Usage(len(flight.body) // BYTES_PER_TOKEN, flight.events)
    return Usage(0, 0)


def model_entry(name: str, service: Service) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.created_s, "owned_by": service.key.namespace}


def _record_of(flight: Flight, duration_s: float) -> dict[str, Any]:
    backend = flight.backend
    return {
        "time": time.time(),
        "request_id": flight.request_id.decode(),
        "tenant": flight.tenant,
        "service": str(flight.state.service.key),
        "path": flight.path.decode(),
        "endpoint": backend.endpoint.where if backend else None,
        "revision": backend.endpoint.revision if backend else None,
        "code": flight.status,
        "bytes": flight.bytes_out,
        "stream": flight.stream,
        "ttft_s": flight.ttft_s,
        "duration_s": round(duration_s, 6),
        "retries": flight.retries,
        "decision": flight.decision,
        "fallback": flight.notes != b"",
        "moves": flight.moving.moves if flight.moving else 0,
        "gap_s": round(flight.moving.gap_s, 6) if flight.moving else 0.0,
        "failure": flight.failure.value if flight.failure else None,
    }
