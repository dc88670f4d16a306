"""What the listener serves: authenticate, route, read what is wanted, resolve, admit, forward.

The first six happen before anything is sent to a worker, and the first two before a body is read. Never holds a
request's content beyond its answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from gateway.access_log import AccessLog
from gateway.admission.door import Admission, Grant
from gateway.asked import Asked, RequestLimits
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
from gateway.fleet import Fleet
from gateway.http1.limits import Problem
from gateway.http1.messages import Answer, Reply, Request
from gateway.identity import Authenticator
from gateway.journey import CLIENT_LEFT, Journeys
from gateway.metrics import Metrics
from gateway.mirror import Mirror
from gateway.proxy import Proxy
from gateway.records import record_of_unforwarded
from gateway.requests import (
    Route,
    model_in,
    request_id_of,
    route_of,
    timeout_s,
    wanted_by,
)
from gateway.service_state import ServiceState

if TYPE_CHECKING:
    from gateway.tracing import Tracing


@dataclass(slots=True)
class _Head:
    """What the head of a request says, by the view of that moment. Not frozen, since one is made for every request."""

    catalog: Catalog
    route: Route
    path: bytes
    tenant: Tenant


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
        self.journeys = Journeys(admission, access_log, limits, rng)
        self._proxy = proxy
        self._metrics = metrics
        self._access_log = access_log
        self._limits = limits
        self._mirror = Mirror(proxy, rng)
        self._loop = asyncio.get_running_loop()
        self._authenticator = Authenticator()
        self._catalog = Catalog()
        self._complete = False
        self._resolved: dict[tuple[str, str], ServiceState] = {}
        """What tenants' names for models mean in this view; as many as the view has, under two names each."""

    def update(self, catalog: Catalog) -> None:
        """Takes over a new view."""
        if catalog.tenants.keys() != self._catalog.tenants.keys():
            self._metrics.keep_tenants(catalog.tenants.keys())
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
        asked: Asked | None = None
        try:
            head = self._head_of(request)
            tenant_name = head.tenant.name
            if head.route is not Route.GENERATE:
                reply.answer(self.models(request, head.tenant, started_s))
                return
            asked, road = self._set_out(request, head, started_s)
            limits = head.tenant.terms.limits
            if self._admission.link is not None or (limits is not None and limits.bytes_per_second is not None):
                reply = await self._paced(asked, reply)
            while not await self._serve(asked, road, reply):
                pass
        except GatewayError as error:
            answer = self.refusal(error, request, tenant_name, started_s)
            if asked is not None and asked.trace is not None:
                asked.trace.end(answer.status, {})
            reply.answer(answer)

    async def _paced(self, asked: Asked, reply: Reply) -> Reply:
        """Raises what `Admission.paced` does."""
        try:
            return await self._admission.paced(asked.tenant, len(asked.request.body), asked.deadline_s, reply)
        except asyncio.CancelledError:
            if asked.trace is not None:
                asked.trace.end(CLIENT_LEFT, {})
            raise

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
            state.demand.passed_on(self._loop.time())
            state.metrics.fell_back(Degrades.NO_ENDPOINT.value)
        return asked, road

    def asked(self, request: Request, path: bytes, tenant: Tenant, started_s: float) -> Asked:
        """Raises WrongEncoding or BadRequest, with what is wrong."""
        return Asked(
            request, path, tenant, wanted_by(request), request_id_of(request), started_s,
            self._loop.time() + timeout_s(request, self._limits.deadline_s),
        )  # fmt: skip

    def trace(self, asked: Asked) -> None:
        """Begins its spans, where it is sampled; the end of its journey ends them, or whatever keeps it from one."""
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
        flight = self.journeys.open(asked, road, state)
        grant: Grant | None = None
        try:
            grant = self.journeys.enter(asked, road, state)
            if grant.pending:
                await self.journeys.wait_for_turn(flight, grant)
            self.journeys.stand(flight, grant)
            if flight.revision is not None:
                self._mirror.copy(flight)
            await self._proxy.forward(flight, reply)
        except GatewayError as error:
            if error.degrades is not None and road.leave(error.degrades):
                if error.degrades is Degrades.NO_ENDPOINT:
                    state.demand.passed_on(self._loop.time())
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
            self.journeys.close(flight, grant)
        return True

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
        self._log(request, request_id, tenant.name, 200, len(body), started_s)
        return Answer(200, body, headers=((b"x-request-id", request_id),))

    # --- afterwards ---------------------------------------------------------------------------------------------

    def refusal(self, error: GatewayError, request: Request, tenant: str, started_s: float) -> Answer:
        """An error as the answer to a request that got no further."""
        request_id = request_id_of(request)
        answer = answer_for(error, request_id)
        self._metrics.refused(tenant, answer.status)
        self._log(request, request_id, tenant, answer.status, len(answer.body), started_s)
        return answer

    def _log(self, request: Request, request_id: bytes, tenant: str, code: int, size: int, started_s: float) -> None:
        if self._access_log.wants(code):
            self._access_log.write(record_of_unforwarded(request, request_id, tenant, code, size, started_s))


def model_entry(name: str, service: Service) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.created_s, "owned_by": service.key.namespace}
