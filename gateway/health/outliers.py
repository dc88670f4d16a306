"""Endpoints that are worse than their equals without failing outright: found on a sweep, by comparison. Pure.

Each is compared with all the others together and never with itself, since among three one can hardly be three standard
deviations away from a mean that holds it. Says who stands out and by how much; ejecting is for `passive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, pstdev

from gateway.health.passive import Why


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    least_requests: int = 10
    """Lately, of an endpoint and of the others together; fewer say nothing."""
    deviations: float = 3.0
    slower: float = 3.0
    """Times the others' mean latency, at least."""
    slower_by_s: float = 0.1
    """At the least: what nobody feels is no reason to lose a worker."""
    error_points: float = 0.1
    """Above the others' share of errors, at least."""


@dataclass(frozen=True, slots=True)
class Record:
    """What requests met at one endpoint lately."""

    requests: float = 0.0
    errors: float = 0.0
    latency_s: float | None = None


def outliers(records: Sequence[Record], policy: OutlierPolicy) -> dict[int, Why]:
    """The indices of those that stand out, with the reason; errors before latency."""
    found = {}
    for index, record in enumerate(records):
        others = [*records[:index], *records[index + 1 :]]
        why = _by_errors(record, others, policy) or _by_latency(record, others, policy)
        if why is not None:
            found[index] = why
    return found


def _by_errors(one: Record, others: Sequence[Record], policy: OutlierPolicy) -> Why | None:
    """Two shares, compared by their pooled standard error."""
    requests = sum(other.requests for other in others)
    if one.requests < policy.least_requests or requests < policy.least_requests:
        return None
    mine, theirs = one.errors / one.requests, sum(other.errors for other in others) / requests
    pooled = (one.errors + theirs * requests) / (one.requests + requests)
    error = sqrt(pooled * (1 - pooled) * (1 / one.requests + 1 / requests))
    if mine - theirs < policy.error_points or mine - theirs <= policy.deviations * error:
        return None
    found = f"{mine:.0%} errors of {one.requests:.0f} requests"
    return Why("ErrorOutlier", found, f" against {theirs:.0%} elsewhere, {(mine - theirs) / error:.1f} standard errors")


def _by_latency(one: Record, others: Sequence[Record], policy: OutlierPolicy) -> Why | None:
    known = [o.latency_s for o in others if o.latency_s is not None and o.requests >= policy.least_requests]
    if one.latency_s is None or one.requests < policy.least_requests or not known:
        return None
    mean_s = fmean(known)
    # Two that happen to be equal would make anything an outlier.
    deviation_s = max(pstdev(known), 0.1 * mean_s)
    bounds = (policy.slower * mean_s, mean_s + policy.deviations * deviation_s, mean_s + policy.slower_by_s)
    if one.latency_s < max(bounds):
        return None
    times = one.latency_s / mean_s
    return Why("LatencyOutlier", f"latency {one.latency_s:.3f} s", f", {times:.1f} × the {mean_s:.3f} s elsewhere")
