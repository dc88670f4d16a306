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

from gateway import settlement
from gateway.backend import Backend
from gateway.endpoints import Endpoints
from gateway.errors import DeadlineExceeded, GatewayError, UnknownModel, UpstreamFailed, stream_event
from gateway.flight import Flight
from gateway.health.load import Loss
from gateway.hedging import Attempt, hedged
from gateway.http1.client import UpstreamConnection
from gateway.http1.messages import Reply
from gateway.http1.pool import ConnectError
from gateway.relay import Relay
from gateway.retries import Failure, RetryPolicy, delay_s
from gateway.settlement import Outcome
from gateway.streams.moving import GiveUp
from gateway.streams.streams import Streams

log = logging.getLogger(__name__)

BUDGET_POLL_S = 0.2
_FREE = frozenset({Failure.DRAINING, Failure.LOST})
STALE_S = 1.0
"""A worker that closes an idle connection as we write to it is heard of within a round trip; a second is long for one,
and short for the work that a worker would have to do again."""
TRIED_MOST = 15
"""Of the workers that lost a stream, remembered beside the last."""
_UNANSWERED = (Failure.CLOSED, Failure.RESET)
_DEATHS = frozenset({Failure.CLOSED, Failure.RESET, Failure.MALFORMED})
"""Of a worker that had the request in hand, as far as can be told."""


class _Outrun(Exception):
    """Another attempt of the same request was quicker."""


class _GivenUp(Exception):
    """The worker was found to do nothing before there was a connection to it."""


class Proxy:
    def __init__(self, retry_policy: RetryPolicy, rng: random.Random, streams: Streams) -> None:
        self.in_flight = 0
        self._policy = retry_policy
        self._rng = rng
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._relays: set[Relay] = set()
        self._connecting: dict[asyncio.Future[UpstreamConnection], Backend] = {}

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
            while True:
                backend = self._pick(flight)
                if backend is None:
                    await wait_for_endpoint(flight, self._loop)
                    continue
                failure = flight.failure = await self._attempt_in_time(flight, backend, reply)
                if failure is None:
                    break
                await self._prepare_another(flight, backend, failure)
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
            backend = relay.backend
            doubted = backend.loss is not None or (backend.suspect and relay.flight.may_leave(now_s))
            if doubted and relay.flight.state.has_other(backend):
                relay.lose()

    def on_lost(self, state: Endpoints, backend: Backend, loss: Loss) -> None:
        """What is open on a worker that does nothing goes elsewhere at once, where there is an elsewhere."""
        if state.has_other(backend):
            for relay in [one for one in self._relays if one.backend is backend]:
                relay.lose()
            self._hang_up(backend)

    def on_stalled(self, state: Endpoints, backend: Backend) -> None:
        """Streams need not wait until a worker is given up; but one that has just come here stays for a while, so
        that they do not wander about in a fleet that is slow as a whole."""
        if state.has_other(backend):
            now_s = self._loop.time()
            for relay in [one for one in self._relays if one.backend is backend and one.flight.may_leave(now_s)]:
                relay.lose()
            self._hang_up(backend)

    def _hang_up(self, backend: Backend) -> None:
        for connecting in [one for one, to in self._connecting.items() if to is backend]:
            connecting.cancel()

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

    async def _prepare_another(self, flight: Flight, backend: Backend, failure: Failure) -> None:
        """Returns when the next attempt may begin. Raises GatewayError where there is none."""
        if flight.begun:
            await self._prepare_move(flight, flight.backend or backend, failure)
        else:
            await self._prepare_retry(flight, failure)

    async def _prepare_retry(self, flight: Flight, failure: Failure) -> None:
        if failure is Failure.TIMEOUT:
            raise DeadlineExceeded("The request was not answered before its deadline.")
        flight.asked_s = None
        flight.retries += 1
        if flight.retries >= self._policy.attempts:
            raise UpstreamFailed(f"{flight.retries} attempts failed, the last by '{failure.value}'.", retry_after_s=5)
        if flight.deaths >= self._policy.deaths:
            raise UpstreamFailed(
                f"{flight.deaths} workers ended while they had this request, the last by '{failure.value}', and it is"
                " given to no other one."
            )
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
        flight.tried = (*flight.tried[-TRIED_MOST:], backend)
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

    def _attempt_in_time(self, flight: Flight, backend: Backend, reply: Reply) -> Attempt:
        state = flight.state
        late_s = state.first_tokens.late_s if flight.is_urgent and flight.stream and not flight.begun else None
        first = self._attempt(flight, backend, reply)
        if late_s is None:
            return first

        def second() -> Attempt | None:
            now_s = self._loop.time()
            other = None if flight.begun else state.pick((*flight.tried, backend), now_s, flight.keys, flight.revision)
            if other is None or other is backend or other in flight.tried or not state.budget.spend(now_s):
                return None
            state.metrics.hedges.inc()
            return self._attempt_beside(flight, other, reply)

        return hedged(first, second, late_s)

    async def _attempt_beside(self, flight: Flight, backend: Backend, reply: Reply) -> Failure | None:
        return Failure.OUTRUN if flight.begun else await self._attempt(flight, backend, reply)

    async def _attempt(self, flight: Flight, backend: Backend, reply: Reply) -> Failure | None:
        span = None if flight.trace is None else flight.trace.attempt(_about(backend))
        relay: Relay | None = None
        flight.backend = backend
        backend.begin()
        try:
            relay = await self._exchange(flight, backend, reply, b"" if span is None else span.headers)
            failure = relay.done.result()
        except _Outrun:
            failure = Failure.OUTRUN
        except _GivenUp:
            failure = Failure.LOST
        except ConnectError:
            flight.state.metrics.connect_errors.inc()
            failure = Failure.CONNECT
        except BaseException:
            if span is not None:
                span.end("cancelled")
            raise
        finally:
            backend.end()
        if span is not None:
            span.end(_ended(failure, relay), "" if relay is None else relay.timing)
        self._settle(flight, backend, relay, failure)
        if failure is not None and not flight.begun:
            flight.deaths += failure in _DEATHS
            flight.tried = (*flight.tried, backend)
        return failure

    async def _exchange(self, flight: Flight, backend: Backend, reply: Reply, traced: bytes) -> Relay:
        """The attempt when it is done: on an idle connection, or on a new one where that was closed as we wrote to it,
        which says nothing about a worker that takes the new one. `traced`: rendered headers of the attempt's span.

        Raises:
            ConnectError: no connection was to be had.
            _Outrun: the client has an answer from another attempt by now.
            _GivenUp: the worker was lost meanwhile.
        """
        fresh = not flight.begun
        connection = backend.pool.take()
        relay: Relay | None = None
        while True:
            if connection is None:
                try:
                    connection = await self._connect(backend)
                except ConnectError:
                    if relay is None:
                        raise
                    return relay  # it was the worker that went
                if fresh and flight.begun:
                    connection.abort()
                    raise _Outrun
            reused = connection.reused
            relay = Relay(flight, reply, backend, connection, self._loop, self._streams)
            self._relays.add(relay)
            flight.relays.append(relay)
            if len(flight.relays) == 1:
                reply.govern(connection)
            try:
                relay.send(traced)
                failure = await relay.done
            finally:
                self._part(flight, relay, connection, reply)
            stale = reused and time.perf_counter() - relay.sent_s <= STALE_S
            if failure not in _UNANSWERED or relay.heard or not stale:
                return relay
            if fresh and flight.begun:
                raise _Outrun
            connection = None

    async def _connect(self, backend: Backend) -> UpstreamConnection:
        """A machine that is gone lets one wait for a connection, too: `on_lost` ends that."""
        connecting = asyncio.ensure_future(backend.pool.connect())
        self._connecting[connecting] = backend
        try:
            return await connecting
        except asyncio.CancelledError:
            if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                connecting.result().abort()  # it came in the moment in which nobody wanted it any more
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _GivenUp from None
        finally:
            del self._connecting[connecting]

    def _part(self, flight: Flight, relay: Relay, connection: UpstreamConnection, reply: Reply) -> None:
        """The attempt on this connection has ended, or its client has left."""
        flight.relays.remove(relay)
        if flight.relays:
            flight.relays[0].take_hold()
        else:
            reply.govern(None)
        self._relays.discard(relay)
        relay.close()
        if not relay.done.done() or relay.done.cancelled():
            connection.abort()

    def _settle(self, flight: Flight, backend: Backend, relay: Relay | None, failure: Failure | None) -> None:
        if relay is None and failure is Failure.OUTRUN:
            return  # it was never asked
        outcome = Outcome(0, failure, 0.0, False) if relay is None else relay.outcome(failure)
        settlement.judge(flight.state, backend, outcome, self._loop.time())
        if flight.state.is_split and flight.tenant:  # probes have no tenant
            rest_s = time.perf_counter() - relay.first_s if relay is not None else 0.0
            settlement.count(flight.state, backend, outcome, flight.usage, rest_s)

    def _break_off(self, flight: Flight, reply: Reply, error: GatewayError) -> None:
        """The client has seen part of an answer whose rest does not come."""
        if flight.ttft_s is None:
            reply.abort()
            return
        flight.state.metrics.broken_streams.inc()
        parting = b"" if flight.moving is None or flight.moving.journal is None else flight.moving.journal.parting
        reply.write(parting or stream_event(error))
        reply.end()


async def wait_for_endpoint(flight: Flight, loop: asyncio.AbstractEventLoop) -> None:
    """Returns when there may be one. Raises NoEndpoint in time, or UnknownModel when its service is gone."""
    state = flight.state
    if not state.gone:
        started_s = loop.time()
        await state.wait(min(flight.wait_s, flight.deadline_s - started_s))
        flight.wait_s -= loop.time() - started_s
    if state.gone:
        raise UnknownModel(f"The model '{state.service.key}' was deleted while the request waited.", param="model")


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
