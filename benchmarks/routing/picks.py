"""CPU time of one pick through the gateway's live objects, with the request's coming and going counted there."""

from __future__ import annotations

import time
from collections import deque

from gateway.catalog import Endpoint, Service, ServiceKey
from gateway.fleet import Fleet
from gateway.health.load import Load, ProgressPolicy
from gateway.health.passive import HealthPolicy
from gateway.http1.pool import PoolLimits
from gateway.metrics import Metrics
from gateway.retries import RetryPolicy
from gateway.routing.keys import Keys
from gateway.routing.terms import Policy, RoutingTerms
from gateway.service_state import ServiceState

PICKS = 20_000
ROUNDS = 5


def state_of(policy: Policy, endpoints: int) -> ServiceState:
    """A service whose endpoints have told their load and are asked no more."""
    fleet = Fleet(Metrics(), HealthPolicy(), RetryPolicy(), PoolLimits(), ProgressPolicy(), None)
    placed = tuple(Endpoint("127.0.0.1", 1, f"chat-a-{number}", "a") for number in range(endpoints))
    service = Service(ServiceKey("demo", "chat"), endpoints=placed, routing=RoutingTerms(policy))
    state = ServiceState(service, fleet)
    state.update(service)
    for backend in state.backends:
        backend.watch.stop()
        backend.load = Load(max_num_seqs=64)
    return state


def pick_us(policy: Policy, endpoints: int) -> float:
    """The best round: the machine has other things to do in the others."""
    state = state_of(policy, endpoints)
    keys = [Keys(n * 0x9E3779B97F4A7C15 % (1 << 64), n * 0x9E3779B97F4A7C15 % (1 << 64)) for n in range(1000)]
    return min(_round(state, keys, endpoints * 20) for _ in range(ROUNDS))


def _round(state: ServiceState, keys: list[Keys], open_most: int) -> float:
    now_s, open_ = time.monotonic(), deque(state.backends[:0])
    started_s = time.process_time()
    for number in range(PICKS):
        # A hundred picks between two prices, as at 1,000 requests a second.
        backend = state.pick((), now_s + number * 0.001, keys[number % len(keys)])
        assert backend is not None, "all are healthy"
        backend.begin()
        open_.append(backend)
        if len(open_) > open_most:
            open_.popleft().end()
    took_s = time.process_time() - started_s
    for backend in open_:
        backend.end()
    return took_s / PICKS * 1e6
