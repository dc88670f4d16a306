"""What has been learned of two revisions since the candidate got its first request, small enough for a status.

Each batch of requests adds log evidence to every alternative of every test (`forecasting.comparison`), so nothing but
these sums is kept, and a restart of the operator loses the requests that it did not see and no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from controllers.plans.canary.samples import BOUNDS, Sample, total
from crds.contract import REVISION_BOUND_STEP
from crds.rollout import Analysis, MetricVerdict, RolloutMetric
from forecasting.comparison import errors, ranks
from forecasting.comparison.tilt import Array

FEWEST: Final = 10
"""Requests of each revision that make a batch; fewer wait for the next ones."""
_RANK_TESTS: Final = {
    RolloutMetric.TTFT: (ranks.above, ranks.below),
    RolloutMetric.TPOT: (ranks.above, ranks.below),
    RolloutMetric.LENGTH: (ranks.apart, ranks.within),
}
"""Of each metric the test that it is worse and the one that it is not. Length is worse when it changes at all."""
_SCALE: Final = {RolloutMetric.TTFT: 1e6, RolloutMetric.TPOT: 1e6, RolloutMetric.LENGTH: 1.0}
"""Sums are kept as integers: microseconds and tokens."""


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """One metric: counts and sums of both, and the log evidence of each alternative, in nats."""

    stable: tuple[int, int] = (0, 0)
    """Requests and errors; else observations and their sum."""
    candidate: tuple[int, int] = (0, 0)
    worse: tuple[float, ...] = ()
    no_worse: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All metrics."""

    metrics: Mapping[RolloutMetric, MetricEvidence] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """That the candidate has ended."""
        known = self.metrics.get(RolloutMetric.ERRORS)
        return known.candidate[0] if known else 0


def is_batch(stable: Sample, candidate: Sample) -> bool:
    """Whether there is enough of both to compare; says nothing about what they are, so no test is bent by it."""
    return min(stable.requests, candidate.requests) >= FEWEST


def learned(before: Evidence, stable: Sample, candidate: Sample, analysis: Analysis) -> Evidence:
    """After one more batch. Errors are always counted, even where they are not judged."""
    found = {RolloutMetric.ERRORS: _errors(_of(before, RolloutMetric.ERRORS), stable, candidate, analysis)}
    for metric in _RANK_TESTS:
        found[metric] = _ranks(metric, _of(before, metric), stable, candidate, analysis)
    return Evidence(found)


def _of(evidence: Evidence, metric: RolloutMetric) -> MetricEvidence:
    return evidence.metrics.get(metric, MetricEvidence())


def _errors(before: MetricEvidence, stable: Sample, candidate: Sample, analysis: Analysis) -> MetricEvidence:
    old, new = (np.array([one.requests - one.errors, one.errors], dtype=float) for one in (stable, candidate))
    seen = [a + b for a, b in zip(before.stable, before.candidate, strict=True)]
    past = np.array([seen[0] - seen[1], seen[1]], dtype=float)
    return MetricEvidence(
        _added(before.stable, stable.requests, stable.errors),
        _added(before.candidate, candidate.requests, candidate.errors),
        _summed(before.worse, errors.more(old, new, analysis.tolerance / 100)),
        _summed(before.no_worse, errors.no_more(old, new, share(analysis.error_margin), past)),
    )


def _ranks(
    metric: RolloutMetric, before: MetricEvidence, stable: Sample, candidate: Sample, analysis: Analysis
) -> MetricEvidence:
    is_worse, is_not = _RANK_TESTS[metric]
    counts = [one.histogram(metric) for one in (stable, candidate)]
    old, new = (np.array(one, dtype=float) for one in counts)
    sums = [round(total(one, BOUNDS[metric]) * _SCALE[metric]) for one in counts]
    return MetricEvidence(
        _added(before.stable, sum(counts[0]), sums[0]),
        _added(before.candidate, sum(counts[1]), sums[1]),
        _summed(before.worse, is_worse(old, new, buckets(analysis.tolerance))),
        _summed(before.no_worse, is_not(old, new, buckets(analysis.margin))),
    )


def mean(metric: RolloutMetric, counts: tuple[int, int]) -> float | None:
    """About the mean of what was observed, in seconds or tokens."""
    return counts[1] / counts[0] / _SCALE[metric] if counts[0] else None


def buckets(percent: int) -> int:
    """By how many buckets a value moves that grows by `percent`, rounded down."""
    return int(math.log1p(percent / 100) / math.log(REVISION_BOUND_STEP) + 1e-9)


def share(percent: str) -> float:
    """`0.5%` → 0.005"""
    return float(percent.removesuffix("%")) / 100


def _added(before: tuple[int, int], count: int, amount: int) -> tuple[int, int]:
    return before[0] + count, before[1] + amount


def _summed(before: Sequence[float], increments: Array) -> tuple[float, ...]:
    """Evidence of another shape is of another release, or of none: the sums begin anew."""
    old = before if len(before) == len(increments) else (0.0,) * len(increments)
    return tuple(a + float(b) for a, b in zip(old, increments, strict=True))


# --- in the status -----------------------------------------------------------------------------------------------


def remembered(verdicts: Sequence[MetricVerdict] | None) -> Evidence:
    """As the status has it."""
    return Evidence({one.metric: _read(one) for one in verdicts or ()})


def _read(verdict: MetricVerdict) -> MetricEvidence:
    stable, candidate = (tuple([*one, 0, 0][:2]) for one in (verdict.stable, verdict.candidate))
    return MetricEvidence(
        (stable[0], stable[1]),
        (candidate[0], candidate[1]),
        tuple(one / 1000 for one in verdict.worse),
        tuple(one / 1000 for one in verdict.no_worse),
    )
