"""What the listener serves: authenticate, route, read what is wanted, resolve, admit, forward; then count and log.

The first six happen before anything is sent to a worker, and the first two before a body is read. Never holds a
request's content beyond its answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from crds.contract import (
    HEADER_DEADLINE_MS,
    HEADER_TTFT_TARGET_MS,
)
from crds.log_lines import moment
from gateway.access_log import AccessLog
from gateway.admission.door import Admission, Grant
from gateway.admission.terms import Priority
from gateway.catalog import Catalog, Service, ServiceKey, Tenant, resolve, visible
from gateway.degradation import Road
from gateway.errors import (
    Degrades,
    GatewayError,
    Overloaded,
    Starting,
    Unauthenticated,
    UnknownModel,
    answer_for,
    answer_for_problem,
)
from gateway.fleet import Fleet, ServiceState
from gateway.flight import Flight
from gateway.goodput import in_time
from gateway.http1.limits import Problem
from gateway.http1.messages import Answer, Reply, Request
from gateway.identity import Authenticator
from gateway.metrics import Metrics
from gateway.mirror import Mirror
from gateway.proxy import Proxy, elapsed_s
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

if TYPE_CHECKING:
    from gateway.tracing import Trace, Tracing

_DUE = f"{HEADER_DEADLINE_MS}: %d\r\n{HEADER_TTFT_TARGET_MS}: %d\r\n".encode()
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


class _Head(NamedTuple):
    """What the head of a request says, by the view of that moment."""

    catalog: Catalog
    route: Route
    path: bytes
    tenant: Tenant


@dataclass(slots=True)
class Asked:
    """One request of a client, whoever will answer it. Not frozen, since one is made for every request."""

    request: Request
    path: bytes
    tenant: Tenant
    wanted: Wanted
    request_id: bytes
    started_s: float
    deadline_s: float
    trace: Trace | None = None
    """Its spans, where it is sampled."""


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
        tracing: Tracing | None = None,
    ) -> None:
        self._fleet = fleet
        self._tracing = tracing
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
        self._complete = False
        self._resolved: dict[tuple[str, str], ServiceState] = {}
        """What tenants' names for models mean in this view; as many as the view has, under two names each."""

    def update(self, catalog: Catalog) -> None:
        """Takes over a new view."""
        self._catalog = catalog
        self._complete = True
        self._resolved = {}
        self._authenticator.replace(catalog.keyring)
        self._fleet.update(catalog)
        self._admission.update(catalog)

    def close(self) -> None:
        """Ends what nobody waits for."""
        self._mirror.close()

    # --- Application --------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> Answer | None:
        try:
            request.head = self._head_of(request)
            if self._proxy.in_flight >= self._limits.in_flight:
                raise Overloaded("The gateway holds as many requests as it may. Try again soon.", retry_after_s=1)
        except GatewayError as error:
            return self.refusal(error, request, "", time.perf_counter())
        return None

    async def handle(self, request: Request, reply: Reply) -> None:
        started_s = time.perf_counter()
        tenant_name = ""
        try:
            head = self._head_of(request)
            tenant_name = head.tenant.name
            if head.route is not Route.GENERATE:
                reply.answer(self.models(request, head.tenant, started_s))
                return
            asked, road = self._set_out(request, head, started_s)
            while not await self._serve(asked, road, reply):
                pass
        except GatewayError as error:
            reply.answer(self.refusal(error, request, tenant_name, started_s))

    def refuse(self, problem: Problem) -> Answer:
        answer = answer_for_problem(problem)
        self._metrics.refused("", answer.status)
        return answer

    # --- routes -------------------------------------------------------------------------------------------------

    def tenant_of(self, request: Request) -> Tenant:
        """By its key. Raises Unauthenticated, or Starting while no key is known."""
        if not self._complete:
            raise Starting("The gateway is starting and knows no tenants yet. Try again soon.", retry_after_s=1)
        name = self._authenticator.tenant(request.headers.get(b"authorization"))
        tenant = self._catalog.tenants.get(name)
        if tenant is None:
            raise Unauthenticated("The API key belongs to a Tenant that no longer exists.")
        return tenant

    def _head_of(self, request: Request) -> _Head:
        """Read again only where the view has changed since: a key may have been revoked while the body came."""
        known = request.head
        if isinstance(known, _Head) and known.catalog is self._catalog:
            return known
        return _Head(self._catalog, *route_of(request), self.tenant_of(request))

    def _set_out(self, request: Request, head: _Head, started_s: float) -> tuple[Asked, Road]:
        asked = self.asked(request, head.path, head.tenant, started_s)
        state = self.service_of(asked)
        self.trace(asked)
        service = state.service
        road = Road(service, self._is_healthy)
        if service.fallbacks and not state.is_healthy(self._loop.time()) and road.leave(Degrades.NO_ENDPOINT):
            state.metrics.arrivals.inc()
            state.passed_on(self._loop.time())
            state.metrics.fell_back(Degrades.NO_ENDPOINT.value)
        return asked, road

    def asked(self, request: Request, path: bytes, tenant: Tenant, started_s: float) -> Asked:
        """Raises WrongEncoding or BadRequest, with what is wrong."""
        return Asked(
            request, path, tenant, wanted_by(request), request_id_of(request), started_s,
            self._loop.time() + timeout_s(request, self._limits.deadline_s),
        )  # fmt: skip

    def trace(self, asked: Asked) -> None:
        """Begins its spans, where it is sampled; `close_flight` ends them."""
        if self._tracing is not None:
            headers, name = asked.request.headers, f"POST {asked.path.decode('latin-1')}"
            asked.trace = self._tracing.begin(name, headers.get(b"traceparent"), headers.get(b"tracestate"))

    def service_of(self, asked: Asked) -> ServiceState:
        """Raises UnknownModel or AmbiguousModel."""
        model = asked.wanted.model
        known = self._resolved.get((asked.tenant.name, model))
        if known is not None:
            return known
        state = self._fleet.get(resolve(self._catalog, asked.tenant, model).key)
        if state is None:
            raise UnknownModel(f"The model '{model}' was just deleted.", param="model")
        self._resolved[asked.tenant.name, model] = state
        return state

    def _is_healthy(self, key: ServiceKey) -> bool:
        state = self._fleet.get(key)
        return state is not None and state.is_healthy(self._loop.time())

    async def _serve(self, asked: Asked, road: Road, reply: Reply) -> bool:
        """False when the service did not take the request, and the next on the road shall."""
        state = self._fleet.get(road.key)
        if state is None:
            raise UnknownModel(f"The model '{road.key.name}' was just deleted.", param="model")
        flight = self.open(asked, road, state)
        grant: Grant | None = None
        try:
            grant = self.enter(asked, road, state)
            if grant.pending:
                await self.wait_for_turn(flight, grant)
            self.stand(flight, grant)
            if flight.revision is not None:
                self._mirror.copy(flight)
            await self._proxy.forward(flight, reply)
        except GatewayError as error:
            if error.degrades is not None and road.leave(error.degrades):
                if error.degrades is Degrades.NO_ENDPOINT:
                    state.passed_on(self._loop.time())
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
            self.close_flight(flight, grant)
        return True

    # --- the parts of serving, which the endpoint picker takes one by one ---------------------------------------

    def open(self, asked: Asked, road: Road, state: ServiceState) -> Flight:
        """A request sets out for a service; `close_flight` follows in any case."""
        state.opened()
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
            extra=forwarded_headers(asked.request) if asked.trace is None else b"",
        )
        flight.trace = asked.trace
        flight.notes = road.told
        self._place(flight, asked.request, asked.wanted)
        return flight

    def enter(self, asked: Asked, road: Road, state: ServiceState) -> Grant:
        """Through admission, or `pending`. Raises what `Admission.enter` does."""
        arrived = state.metrics.arrivals.inc if road.fallback is None else None
        return self._admission.enter(asked.tenant, state, asked.wanted, asked.request, asked.deadline_s, arrived)

    async def wait_for_turn(self, flight: Flight, grant: Grant) -> None:
        """Raises what `Admission.ready` does."""
        began_s = self._loop.time()
        try:
            await self._admission.ready(grant)
        finally:
            if flight.trace is not None:
                flight.trace.waited("queue", self._loop.time() - began_s)

    def stand(self, flight: Flight, grant: Grant) -> None:
        """It is through: the client is told its limits, the worker how it stands among others."""
        flight.told = grant.told()
        flight.is_urgent = grant.priority is Priority.P0
        flight.extra += self._standing(grant, flight)

    def close_flight(self, flight: Flight, grant: Grant | None) -> None:
        """It has ended, whatever became of it: settles, counts and logs."""
        flight.state.closed(self._loop.time())
        if grant is not None:
            self._admission.leave(grant, None if flight.is_left else _taken_by(flight))
        if not flight.is_left:
            self._account(flight)
            if flight.trace is not None:
                flight.trace.end(flight.status, _spoken_of(flight, grant))

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
        return grant.standing + _DUE % (max(1, int(left_s * 1000)), max(1, int(due_s * 1000)))

    def models(self, request: Request, tenant: Tenant, started_s: float) -> Answer:
        """What the tenant may ask for, or one of it. Raises UnknownModel or AmbiguousModel."""
        route, path = route_of(request)
        if route is Route.MODEL:
            model = model_in(path)
            body = orjson.dumps(model_entry(model, resolve(self._catalog, tenant, model)))
        else:
            entries = [model_entry(name, service) for name, service in visible(self._catalog, tenant)]
            body = orjson.dumps({"object": "list", "data": entries})
        request_id = request_id_of(request)
        self._metrics.refused(tenant.name, 200)
        self._log_unforwarded(request, request_id, tenant.name, 200, len(body), started_s)
        return Answer(200, body, headers=((b"x-request-id", request_id),))

    # --- afterwards ---------------------------------------------------------------------------------------------

    def refusal(self, error: GatewayError, request: Request, tenant: str, started_s: float) -> Answer:
        """An error as the answer to a request that got no further."""
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
                good = in_time(state.service, flight.ttft_s, duration_s, flight.usage.completion)
                state.metrics.completed(flight.usage, good=good)
        if self._access_log.wants(flight.status):
            self._access_log.write(_record_of(flight, duration_s))

    def _log_unforwarded(
        self, request: Request, request_id: bytes, tenant: str, code: int, size: int, started_s: float
    ) -> None:
        if self._access_log.wants(code):
            self._access_log.write(
                {
                    "time": moment(time.time()),
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


def _spoken_of(flight: Flight, grant: Grant | None) -> dict[str, str | int | float]:
    """What the span of a request says beside its times."""
    key = flight.state.service.key
    said: dict[str, str | int | float] = {
        "foretide.request_id": flight.request_id.decode(),
        "foretide.tenant": flight.tenant,
        "foretide.service": str(key),
        "gen_ai.request.model": key.name,
        "foretide.retries": flight.retries,
        "http.request.method": "POST",
        "url.path": flight.path.decode("latin-1"),
    }
    if grant is not None:
        said["foretide.class"] = grant.priority.name
    if flight.ttft_s is not None:
        said["foretide.ttft_s"] = flight.ttft_s
    if flight.usage is not None:
        said["gen_ai.usage.input_tokens"] = flight.usage.prompt
        said["gen_ai.usage.output_tokens"] = flight.usage.completion
    return said


def model_entry(name: str, service: Service) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.created_s, "owned_by": service.key.namespace}


def _record_of(flight: Flight, duration_s: float) -> dict[str, Any]:
    backend = flight.backend
    return {
        "time": moment(time.time()),
        "request_id": flight.request_id.decode(),
        "trace_id": flight.trace.trace_id if flight.trace else None,
        "tenant": flight.tenant,
        "namespace": flight.state.service.key.namespace,
        "service": flight.state.service.key.name,
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
