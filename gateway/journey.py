"""The steps of a request through a service, one by one: open, enter, wait for its turn, stand, close.

Our own proxy takes them around an answer that it carries, the endpoint picker around one that another carries. `close`
settles with the tenant, counts and logs. Never sends anything.
"""

from __future__ import annotations

import asyncio
import random
import time

from crds.contract import HEADER_DEADLINE_MS, HEADER_TTFT_TARGET_MS
from gateway.access_log import AccessLog
from gateway.admission.door import Admission, Grant
from gateway.admission.terms import Priority
from gateway.asked import Asked, RequestLimits
from gateway.degradation import Road
from gateway.flight import Flight
from gateway.goodput import in_time
from gateway.proxy import elapsed_s
from gateway.records import record_of, spoken_of
from gateway.requests import forwarded_headers, wants_explanation
from gateway.retries import Failure
from gateway.routing.keys import keys_of
from gateway.routing.terms import KEYED
from gateway.service_state import ServiceState
from gateway.usage import BYTES_PER_TOKEN, Usage

_DUE = f"{HEADER_DEADLINE_MS}: %d\r\n{HEADER_TTFT_TARGET_MS}: %d\r\n".encode()
CLIENT_LEFT = 499
"""The code by which a request is counted whose client did not wait for the answer."""


class Journeys:
    def __init__(self, admission: Admission, access_log: AccessLog, limits: RequestLimits, rng: random.Random) -> None:
        self._admission = admission
        self._access_log = access_log
        self._limits = limits
        self._rng = rng
        self._loop = asyncio.get_running_loop()

    def open(self, asked: Asked, road: Road, state: ServiceState) -> Flight:
        """A request sets out for a service; `close` follows in any case. Raises BadRequest: then not."""
        flight = Flight(
            state,
            asked.path,
            road.body(asked.request.body),
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
        self._place(flight, asked)
        state.demand.opened()
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

    def close(self, flight: Flight, grant: Grant | None) -> None:
        """It has ended, whatever became of it: settles, counts and logs."""
        flight.state.demand.closed(self._loop.time())
        if grant is not None:
            held_s = time.perf_counter() - flight.asked_s if flight.asked_s is not None else 0.0
            if flight.usage is not None and held_s:
                grant.gate.pace.saw_whole(flight.usage.completion, held_s)
            self._admission.leave(grant, None if flight.is_left else taken_by(flight, grant, held_s))
        if not flight.is_left:
            self._account(flight)
            if flight.trace is not None:
                flight.trace.end(flight.status, spoken_of(flight, grant))

    def _place(self, flight: Flight, asked: Asked) -> None:
        """What decides on its worker beside the workers themselves."""
        service = flight.state.service
        flight.explain = wants_explanation(asked.request)
        flight.is_traced = self._access_log.explains()
        if service.traffic or service.routing.policy in KEYED:
            flight.keys = keys_of(asked.request, asked.wanted.marks, asked.tenant.cache_salt)
        if service.traffic:
            flight.revision = flight.state.revision_for(flight.keys, self._rng.random())

    def _standing(self, grant: Grant, flight: Flight) -> bytes:
        """What a worker is told of how the request stands among others."""
        due_ms = int((grant.due_s - (time.perf_counter() - flight.started_s)) * 1000)
        left_ms = int((flight.deadline_s - self._loop.time()) * 1000)
        return grant.standing + _DUE % (left_ms if left_ms > 1 else 1, due_ms if due_ms > 1 else 1)

    def _account(self, flight: Flight) -> None:
        duration_s = elapsed_s(flight)
        state = flight.state
        if not state.gone:
            state.metrics.answered(flight.tenant, flight.status, duration_s)
            if flight.usage is not None:
                good = in_time(state.service, flight.ttft_s, duration_s, flight.usage.completion)
                state.metrics.completed(flight.usage, good=good)
        if self._access_log.wants(flight.status):
            self._access_log.write(record_of(flight, duration_s))


def taken_by(flight: Flight, grant: Grant, held_s: float) -> Usage:
    """Tokens: of a whole answer as it says, of a stream what the client has seen, of another answer that its client did
    not wait for what a worker makes in the time that it had it, of none nothing: nor of one whose worker hung."""
    if flight.usage is not None:
        return flight.usage
    prompt = len(flight.body) // BYTES_PER_TOKEN
    if flight.ttft_s is not None:
        return Usage(prompt, flight.events)
    hung = flight.backend is not None and flight.backend.doubted
    if held_s and not hung and (flight.status == CLIENT_LEFT or flight.failure is Failure.TIMEOUT):
        return Usage(prompt, 0 if flight.stream else grant.gate.pace.made(held_s, grant.output_tokens, grant.choices))
    return Usage(0, 0)
