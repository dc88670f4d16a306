"""What one more request costs on each endpoint: the lower, the better. Pure, and all the arithmetic there is.

A cost is a line, `fixed + per_request × our requests in flight there`. The line is made anew when a report came, some
times a second; between reports a request only moves along it, so that picking costs a comparison per endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.routing.terms import Policy

SLOTS = 32
"""Of an endpoint that does not say how many requests it runs at once."""
ZONE_REQUESTS = 4.0
"""Being in another zone costs as much as so many requests in flight."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One endpoint between two reports."""

    share: float = 1.0
    """Of an equal part of the load, in (0, 1]: its health."""
    slots: int = SLOTS
    others: int = 0
    """Requests there that are not ours."""
    utilisation: float = 0.0
    kv_usage: float = 0.0
    latency_s: float | None = None
    """What our requests met there lately."""
    near: bool = True
    """In our own zone, or zones do not matter."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the adaptive score; they add up to 1."""

    utilisation: float
    kv: float
    queue: float
    latency: float


IDLE = Weights(utilisation=0.25, kv=0.1, queue=0.35, latency=0.3)
"""With room everywhere, being quick counts nearly as much as having none before it."""
BUSY = Weights(utilisation=0.1, kv=0.3, queue=0.5, latency=0.1)
"""Near the limit, a full cache (which means preemption) and a queue hurt more than anything."""
EQUALLY_QUICK = 1.5
"""Latencies within this factor of the best are noise, since prompts differ in length by more."""
MARGIN = 0.1
"""Keeps the cost of a perfect endpoint above 0, so that its share still counts."""


@dataclass(frozen=True, slots=True)
class Line:
    fixed: float
    per_request: float

    def at(self, in_flight: int) -> float:
        return self.fixed + self.per_request * in_flight


def weights_at(load: float) -> Weights:
    """Between idle and busy by the fleet's load, from 0 to 1."""
    busy = min(max(load, 0.0), 1.0)
    return Weights(*(a + (b - a) * busy for a, b in zip(_values(IDLE), _values(BUSY), strict=True)))


def _values(weights: Weights) -> tuple[float, float, float, float]:
    return (weights.utilisation, weights.kv, weights.queue, weights.latency)


def lines(policy: Policy, facts: Sequence[Facts], load: float) -> list[Line]:
    """The cost of each endpoint under a policy. `load`: of the fleet, requests over slots. Policies that do not go by
    cost have that of adaptive, for requests without a key."""
    if policy is Policy.LEAST_CONNECTIONS:
        return [_connections(one) for one in facts]
    if policy is Policy.RESPONSE_TIME:
        usual_s = _usual_s(facts)
        return [_response_time(one, usual_s) for one in facts]
    weights, best_s = weights_at(load), best_latency_s(facts)
    return [_adaptive(one, weights, best_s) for one in facts]


def _connections(one: Facts) -> Line:
    far = 0.0 if one.near else ZONE_REQUESTS
    return Line((1.0 + far) / one.share, 1.0 / one.share)


def _response_time(one: Facts, usual_s: float) -> Line:
    """Latency × requests: the time until one more would be answered. One not yet known counts as usual."""
    latency_s = usual_s if one.latency_s is None else one.latency_s
    far = 0.0 if one.near else ZONE_REQUESTS
    return Line(latency_s * (1.0 + far) / one.share, latency_s / one.share)


def _adaptive(one: Facts, weights: Weights, best_s: float | None) -> Line:
    """`1 − score`, with score = w1(1−gpu) + w2(1−kv) + w3(1−queue/max) + w4·best/latency."""
    bad = (
        weights.utilisation * one.utilisation
        + weights.kv * one.kv_usage
        + weights.queue * one.others / one.slots
        + weights.latency * (1.0 - _quickness(one, best_s))
    )
    slope = weights.queue / one.slots
    far = 0.0 if one.near else ZONE_REQUESTS * slope
    return Line((MARGIN + bad + far) / one.share, slope / one.share)


def _quickness(one: Facts, best_s: float | None) -> float:
    """The best latency over its own, from 0 to 1; one that is not known may be the best."""
    if best_s is None or one.latency_s is None:
        return 1.0
    return min(EQUALLY_QUICK * best_s / max(one.latency_s, 1e-6), 1.0)


def _usual_s(facts: Sequence[Facts]) -> float:
    known = sorted(one.latency_s for one in facts if one.latency_s is not None)
    return max(known[len(known) // 2], 1e-6) if known else 1.0


def best_latency_s(facts: Sequence[Facts]) -> float | None:
    known = [one.latency_s for one in facts if one.latency_s is not None]
    return max(min(known), 1e-6) if known else None


def explained(policy: Policy, one: Facts, in_flight: int, load: float, best_s: float | None) -> str:
    """The numbers behind an endpoint's cost, for whoever asks why."""
    if policy is Policy.LEAST_CONNECTIONS:
        return f"{in_flight} in flight, share {one.share:.2g}"
    latency = "unknown" if one.latency_s is None else f"{one.latency_s:.3f} s"
    if policy is Policy.RESPONSE_TIME:
        return f"latency {latency} x ({in_flight} in flight + 1), share {one.share:.2g}"
    weights = weights_at(load)
    quick = _quickness(one, best_s)
    queue = (one.others + in_flight) / one.slots
    score = (
        weights.utilisation * (1 - one.utilisation)
        + weights.kv * (1 - one.kv_usage)
        + weights.queue * (1 - queue)
        + weights.latency * quick
    )
    return (
        f"score {score:.3f} = {weights.utilisation:.2f}(1-{one.utilisation:.2f}) "
        f"+ {weights.kv:.2f}(1-{one.kv_usage:.2f}) + {weights.queue:.2f}(1-{one.others + in_flight}/{one.slots}) "
        f"+ {weights.latency:.2f}*{quick:.2f} (latency {latency}), share {one.share:.2g}"
    )


def fleet_load(facts: Sequence[Facts], in_flight: Sequence[int]) -> float:
    """Requests, ours and others', over slots; above 1 where some wait."""
    slots = sum(one.slots for one in facts)
    return (sum(one.others for one in facts) + sum(in_flight)) / slots if slots else 0.0
