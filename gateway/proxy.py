"""One request's life after it is known what it wants: pick, forward, retry, and stream.

Everything that may be repeated is repeated before the client has seen a byte. After that a stream with a journal goes
on elsewhere (`gateway.streams`), and nothing else does. Knows neither keys nor model names. The prompt passes through
and is never looked at here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time

from gateway.backend import Backend
from gateway.errors import DeadlineExceeded, GatewayError, UnknownModel, UpstreamFailed, stream_event
from gateway.fleet import ServiceState
from gateway.health.load import Loss
from gateway.hedging import Attempt, hedged
from gateway.http1.client import UpstreamConnection
from gateway.http1.messages import Reply
from gateway.http1.pool import ConnectError
from gateway.relay import Flight, Relay
from gateway.retries import Failure, RetryPolicy, delay_s
from gateway.streams.moving import GiveUp
from gateway.streams.streams import Streams

log = logging.getLogger(__name__)

BUDGET_POLL_S = 0.2
_FREE = frozenset({Failure.DRAINING, Failure.LOST})
_JUDGED_ELSEWHERE = frozenset({Failure.LOST, Failure.OUTRUN})
"""By better evidence, or by the one that was quicker."""
_NOT_THE_REVISION_S = frozenset({Failure.DRAINING, Failure.TIMEOUT, Failure.OUTRUN})
TRIED_MOST = 15
"""Of the workers that lost a stream, remembered beside the last."""
_UNANSWERED = (Failure.CLOSED, Failure.RESET)
WORKER_FAULTS = frozenset({500, 502, 504})
"""Answers that count against a worker. 503 does not: a worker with a full queue is healthy."""


class _Outrun(Exception):
    """Another attempt of the same request was quicker."""


class Proxy:
    def __init__(self, retry_policy: RetryPolicy, rng: random.Random, streams: Streams) -> None:
        self.in_flight = 0
        self._policy = retry_policy
        self._rng = rng
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._relays: set[Relay] = set()

    async def forward(self, flight: Flight, reply: Reply) -> None:
        """Answers `flight` through `reply`. Cancelling it ends the work upstream.

        Raises:
            GatewayError: there is no answer, and the client has not seen a byte.
        """
        state = flight.state
        state.budget.request(self._loop.time())
        state.in_flight += 1
        self.in_flight += 1
        if flight.stream and not flight.is_copy:
            flight.moving = self._streams.moving()
        try:
            while not await self._try_once(flight, reply):
                pass
        except GatewayError as error:
            if not flight.begun:
                raise
            self._break_off(flight, reply, error)
        finally:
            if flight.moving is not None and flight.moving.journal is not None:
                flight.events = flight.moving.journal.n_tokens
                flight.moving.journal.close()
            state.in_flight -= 1
            self.in_flight -= 1
            if flight.ttft_s is not None:
                state.open_streams -= 1

    async def try_copy(self, flight: Flight, reply: Reply) -> None:
        """Sends a copy of a request to its revision, once. Raises nothing: whatever comes of it is in the figures."""
        assert flight.revision is not None, "a copy is made for a revision"
        backend = flight.state.pick_of(flight.revision, (), self._loop.time())
        if backend is not None:
            await self._attempt(flight, backend, reply)

    async def ask(self, flight: Flight, backend: Backend, reply: Reply) -> None:
        """Sends a request to this worker and no other, once. Raises nothing."""
        flight.is_pinned = True
        flight.failure = await self._attempt(flight, backend, reply)

    def tick(self) -> None:
        """Ends the attempts whose deadline has passed, and those on a lost worker as soon as another can take them."""
        now_s = self._loop.time()
        for relay in list(self._relays):
            relay.expire_if_due(now_s)
            if relay.backend.loss is not None and relay.state.has_other(relay.backend):
                relay.lose()

    def on_lost(self, state: ServiceState, backend: Backend, loss: Loss) -> None:
        """What is open on a worker that does nothing goes elsewhere at once, where there is an elsewhere."""
        if state.has_other(backend):
            for relay in [one for one in self._relays if one.backend is backend]:
                relay.lose()

    def on_stalled(self, state: ServiceState, backend: Backend) -> None:
        """Streams need not wait until a worker is given up; but one that has just come here stays for a while, so
        that they do not wander about in a fleet that is slow as a whole."""
        now_s = self._loop.time()
        for relay in [one for one in self._relays if one.backend is backend and one.may_leave(now_s)]:
            relay.lose()

    async def _try_once(self, flight: Flight, reply: Reply) -> bool:
        """True when the request needs nothing more."""
        backend = self._pick(flight)
        if backend is None:
            await self._wait_for_endpoint(flight)
            return False
        failure = flight.failure = await self._attempt_in_time(flight, backend, reply)
        if failure is None:
            return True
        if flight.begun:
            await self._prepare_move(flight, flight.backend or backend, failure)
            return False
        await self._prepare_retry(flight, backend, failure)
        return False

    def _pick(self, flight: Flight) -> Backend | None:
        state, now_s = flight.state, self._loop.time()
        if flight.begun and flight.moving is not None:
            revision = flight.moving.revision
            backend = state.pick_of(revision, flight.tried, now_s)
            # All have lost it once: at least not the last of them again.
            return state.pick_of(revision, flight.tried[-1:], now_s) if backend in flight.tried else backend
        backend = state.pick(flight.tried, now_s, flight.keys, flight.revision)
        if (flight.explain or flight.is_traced) and backend is not None:
            flight.decision = state.picker.explain(backend, now_s)
        return backend

    # --- waiting ------------------------------------------------------------------------------------------------

    async def _wait_for_endpoint(self, flight: Flight) -> None:
        state = flight.state
        started_s = self._loop.time()
        await state.wait(min(flight.wait_s, flight.deadline_s - started_s))
        flight.wait_s -= self._loop.time() - started_s
        if state.gone:
            raise UnknownModel(f"The model '{state.service.key}' was deleted while the request waited.", param="model")

    async def _prepare_retry(self, flight: Flight, backend: Backend, failure: Failure) -> None:
        if failure is Failure.TIMEOUT:
            raise DeadlineExceeded("The request was not answered before its deadline.")
        flight.retries += 1
        if flight.retries >= self._policy.attempts:
            raise UpstreamFailed(f"{flight.retries} attempts failed, the last by '{failure.value}'.", retry_after_s=5)
        flight.tried.append(backend)
        await self._sleep(flight, delay_s(flight.retries, self._policy, self._rng))
        # A draining worker refused without starting and a lost one does nothing, so repeating adds no load to anybody.
        if failure not in _FREE:
            while not flight.state.budget.spend(self._loop.time()):
                await self._sleep(flight, BUDGET_POLL_S)
        flight.state.metrics.retried(failure)

    async def _prepare_move(self, flight: Flight, backend: Backend, failure: Failure) -> None:
        """The worker was lost after the client saw part of the answer. Raises GatewayError where that is the end."""
        moving = flight.moving
        if failure is Failure.TIMEOUT:
            raise DeadlineExceeded("The stream was not complete before its deadline.")
        if moving is None or not moving.possible or flight.state.gone:
            raise UpstreamFailed("The worker was lost in the middle of the stream.")
        moving.lost(flight.heard_s, failure)
        decision = moving.after(failure)
        if isinstance(decision, GiveUp):
            key = flight.state.service.key
            about = key.log_fields(request_id=flight.request_id.decode())
            log.warning("%s: a stream is given up: %s.", key, decision.message, extra=about)
            raise UpstreamFailed("The worker was lost in the middle of the stream, and no other could go on with it.")
        flight.tried = [*flight.tried[-TRIED_MOST:], backend]
        flight.state.budget.count(self._loop.time())
        if decision.delay_s:
            await self._sleep(flight, decision.delay_s)
            flight.wait_s -= decision.delay_s
            if flight.wait_s <= 0:
                raise UpstreamFailed("The worker was lost in the middle of the stream, and no other came in time.")

    async def _sleep(self, flight: Flight, wait_s: float) -> None:
        if self._loop.time() + wait_s >= flight.deadline_s:
            raise DeadlineExceeded("The request failed, and its deadline leaves no time to try again.")
        await asyncio.sleep(wait_s)

    # --- one attempt, or two ------------------------------------------------------------------------------------

    async def _attempt_in_time(self, flight: Flight, backend: Backend, reply: Reply) -> Failure | None:
        state = flight.state
        late_s = state.first_tokens.late_s if flight.is_urgent and flight.stream and not flight.begun else None
        first = self._attempt(flight, backend, reply)
        if late_s is None:
            return await first

        def second() -> Attempt | None:
            now_s = self._loop.time()
            other = None if flight.begun else state.pick((*flight.tried, backend), now_s, flight.keys, flight.revision)
            if other is None or other is backend or other in flight.tried or not state.budget.spend(now_s):
                return None
            state.metrics.hedges.inc()
            return self._attempt_beside(flight, other, reply)

        return await hedged(first, second, late_s)

    async def _attempt_beside(self, flight: Flight, backend: Backend, reply: Reply) -> Failure | None:
        return Failure.OUTRUN if flight.begun else await self._attempt(flight, backend, reply)

    async def _attempt(self, flight: Flight, backend: Backend, reply: Reply) -> Failure | None:
        if flight.trace is None:
            return (await self._attempt_on(flight, backend, reply))[0]
        span = flight.trace.attempt(_about(backend))
        ended: str | None = "cancelled"
        timing = ""
        try:
            failure, relay = await self._attempt_on(flight, backend, reply, span.headers)
            ended, timing = _ended(failure, relay), relay.timing if relay is not None else ""
            return failure
        finally:
            span.end(ended, timing)

    async def _attempt_on(
        self, flight: Flight, backend: Backend, reply: Reply, traced: bytes = b""
    ) -> tuple[Failure | None, Relay | None]:
        """`traced`: rendered headers that make the worker's part belong to the attempt's span."""
        flight.backend = backend
        state = flight.state
        backend.begin()
        try:
            relay, failure = await self._exchange_on_some_connection(flight, backend, reply, traced)
        except _Outrun:
            return Failure.OUTRUN, None
        except ConnectError:
            state.metrics.connect_errors.inc()
            backend.met(False, None, self._loop.time())
            self._count(flight, backend, None, Failure.CONNECT)
            state.failed(backend, self._loop.time())
            return Failure.CONNECT, None
        finally:
            backend.end()
        self._judge(state, backend, relay, failure)
        self._count(flight, backend, relay, failure)
        return failure, relay

    async def _exchange_on_some_connection(
        self, flight: Flight, backend: Backend, reply: Reply, traced: bytes
    ) -> tuple[Relay, Failure | None]:
        fresh = not flight.begun
        connection = backend.pool.take()
        while connection is not None:
            reused = connection.reused
            relay, failure = await self._exchange(flight, backend, connection, reply, traced)
            if failure not in _UNANSWERED or relay.heard or not reused:
                return relay, failure
            if fresh and flight.begun:
                raise _Outrun
            # An idle connection was closed as we wrote to it. That says nothing about the worker.
            connection = backend.pool.take()
        connection = await backend.pool.connect()
        if fresh and flight.begun:
            connection.abort()  # the other of two attempts has begun to answer meanwhile
            raise _Outrun
        return await self._exchange(flight, backend, connection, reply, traced)

    async def _exchange(
        self, flight: Flight, backend: Backend, connection: UpstreamConnection, reply: Reply, traced: bytes
    ) -> tuple[Relay, Failure | None]:
        relay = Relay(flight, reply, backend, connection, self._loop, self._streams)
        self._relays.add(relay)
        flight.relays.append(relay)
        if len(flight.relays) == 1:
            reply.govern(connection)
        try:
            relay.send(traced)
            return relay, await relay.done
        finally:
            flight.relays.remove(relay)
            if not flight.relays:
                reply.govern(None)
            self._relays.discard(relay)
            relay.close()
            if not relay.done.done() or relay.done.cancelled():
                connection.abort()  # the client left

    def _count(self, flight: Flight, backend: Backend, relay: Relay | None, failure: Failure | None) -> None:
        """What the attempt says of its revision, while revisions are compared."""
        state = flight.state
        # Probes have no tenant; a drain is nobody's fault, and a deadline may have been any.
        if not state.is_split or not flight.tenant or failure in _NOT_THE_REVISION_S:
            return
        status = relay.status if relay is not None else 0
        state.revisions.ended(backend.revision, good=failure is None and status < 500)
        if relay is None or failure is not None or flight.usage is None:
            return
        ttft_s = relay.first_s - relay.sent_s if relay.streamed else None
        rest_s = time.perf_counter() - relay.first_s if relay.streamed else None
        state.revisions.completed(backend.revision, flight.usage.completion, ttft_s, rest_s)

    def _judge(self, state: ServiceState, backend: Backend, relay: Relay, failure: Failure | None) -> None:
        now_s = self._loop.time()
        if failure is Failure.DRAINING or relay.says_it_drains:
            state.said_draining(backend, now_s)
        elif failure in _JUDGED_ELSEWHERE:
            return
        elif failure is not None or relay.status in WORKER_FAULTS:
            backend.met(False, None, now_s)
            state.failed(backend, now_s)
        else:
            backend.met(True, relay.first_s - relay.sent_s if relay.status == 200 else None, now_s)
            state.succeeded(backend, now_s)
            if relay.streamed:
                state.first_tokens.add(relay.first_s - relay.sent_s)

    def _break_off(self, flight: Flight, reply: Reply, error: GatewayError) -> None:
        """The client has seen part of an answer whose rest does not come."""
        if flight.ttft_s is None:
            reply.abort()
            return
        flight.state.metrics.broken_streams.inc()
        parting = b"" if flight.moving is None or flight.moving.journal is None else flight.moving.journal.parting
        reply.write(parting or stream_event(error))
        reply.end()


def _about(backend: Backend) -> dict[str, str | int]:
    endpoint = backend.endpoint
    return {
        "server.address": endpoint.address,
        "server.port": endpoint.port,
        "k8s.pod.name": endpoint.pod,
        "foretide.revision": endpoint.revision,
    }


def _ended(failure: Failure | None, relay: Relay | None) -> str | None:
    """What became of an attempt, for its span; None for the best."""
    if failure is not None:
        return failure.value
    return str(relay.status) if relay is not None and relay.status >= 400 else None


def elapsed_s(flight: Flight) -> float:
    return time.perf_counter() - flight.started_s
