"""What gateways counted of one revision in some time: requests, errors, and histograms over the contract's buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from crds import contract
from crds.rollout import RolloutMetric

BOUNDS: Final = {
    RolloutMetric.TTFT: contract.REVISION_TTFT_BOUNDS_S,
    RolloutMetric.TPOT: contract.REVISION_TPOT_BOUNDS_S,
    RolloutMetric.LENGTH: contract.REVISION_OUTPUT_TOKENS_BOUNDS,
}
"""A histogram has one bucket more than it has bounds: the last is beyond all of them."""


def _no_counts(metric: RolloutMetric) -> tuple[int, ...]:
    return (0,) * (len(BOUNDS[metric]) + 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts of one revision."""

    requests: int = 0
    errors: int = 0
    ttft: tuple[int, ...] = _no_counts(RolloutMetric.TTFT)
    tpot: tuple[int, ...] = _no_counts(RolloutMetric.TPOT)
    length: tuple[int, ...] = _no_counts(RolloutMetric.LENGTH)

    def histogram(self, metric: RolloutMetric) -> tuple[int, ...]:
        """Counts in each bucket; there is none of errors."""
        return {RolloutMetric.TTFT: self.ttft, RolloutMetric.TPOT: self.tpot, RolloutMetric.LENGTH: self.length}[metric]

    def __add__(self, other: Sample) -> Sample:
        return Sample(
            self.requests + other.requests,
            self.errors + other.errors,
            _sum(self.ttft, other.ttft),
            _sum(self.tpot, other.tpot),
            _sum(self.length, other.length),
        )

    def since(self, before: Sample) -> Sample:
        """What came after `before`. A counter that fell was reset, and counts from zero."""
        if self.requests < before.requests:
            return self
        return Sample(
            self.requests - before.requests,
            max(0, self.errors - before.errors),
            _increase(before.ttft, self.ttft),
            _increase(before.tpot, self.tpot),
            _increase(before.length, self.length),
        )


def _sum(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _increase(before: Sequence[int], now: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(0, b - a) for a, b in zip(before, now, strict=True))


def median(counts: Sequence[int], bounds: Sequence[float]) -> float | None:
    """The upper bound of the bucket in which it lies; the last bound for those beyond it, None without any."""
    half, seen = sum(counts) / 2, 0
    if not half:
        return None
    for count, bound in zip(counts, bounds, strict=False):
        seen += count
        if seen >= half:
            return bound
    return bounds[-1]


def total(counts: Sequence[int], bounds: Sequence[float]) -> float:
    """About the sum of the observations: each counts as the geometric middle of its bucket."""
    middles = [bounds[0], *(bound / contract.REVISION_BOUND_STEP**0.5 for bound in bounds[1:]), bounds[-1]]
    return float(sum(count * middle for count, middle in zip(counts, middles, strict=True)))
