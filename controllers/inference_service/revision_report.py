"""What a gateway's metrics page says of each revision, as counts since that gateway began. Pure.

Only histograms over the contract's own bounds are read: those of another release would be compared bucket by bucket
with others than they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, NamedTuple

from controllers.history.interface import ServiceId
from controllers.plans.canary.samples import BOUNDS, Sample
from crds import contract
from crds.rollout import RolloutMetric

_HISTOGRAMS: Final = {
    f"{contract.METRIC_REVISION_TTFT}_bucket": RolloutMetric.TTFT,
    f"{contract.METRIC_REVISION_TPOT}_bucket": RolloutMetric.TPOT,
    f"{contract.METRIC_REVISION_OUTPUT_TOKENS}_bucket": RolloutMetric.LENGTH,
}
_COUNTERS: Final = (contract.METRIC_REVISION_REQUESTS, contract.METRIC_REVISION_ERRORS)
_PREFIX: Final = "foretide_gateway_revision_"


class RevisionId(NamedTuple):
    """One revision of one service."""

    service: ServiceId
    revision: str


class _Lines:
    """What the lines of one revision said so far."""

    def __init__(self) -> None:
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self.below: dict[RolloutMetric, dict[float, int]] = {one: {} for one in BOUNDS}

    def sample(self) -> Sample:
        requests, errors = (self.counters[one] for one in _COUNTERS)
        of = {metric: _buckets(metric, below) for metric, below in self.below.items()}
        return Sample(requests, errors, of[RolloutMetric.TTFT], of[RolloutMetric.TPOT], of[RolloutMetric.LENGTH])


def read_revisions(page: str) -> dict[RevisionId, Sample]:
    """Every revision on a page. Lines that are not understood are left out."""
    found: dict[RevisionId, _Lines] = {}
    for line in page.splitlines():
        if not line.startswith(_PREFIX):
            continue
        name, _, rest = line.partition("{")
        labels, _, value = rest.partition("} ")
        pairs = {key: text.strip('"') for key, _, text in (one.partition("=") for one in labels.split(","))}
        count = _count(value)
        if count is not None and (name in _COUNTERS or name in _HISTOGRAMS) and pairs.get("revision"):
            _take(found.setdefault(_id(pairs), _Lines()), name, pairs, count)
    return {one: lines.sample() for one, lines in found.items()}


def _take(lines: _Lines, name: str, labels: Mapping[str, str], count: int) -> None:
    if name in _COUNTERS:
        lines.counters[name] = count
        return
    try:
        lines.below[_HISTOGRAMS[name]][float(labels.get("le", ""))] = count
    except ValueError:
        return


def _id(labels: Mapping[str, str]) -> RevisionId:
    return RevisionId(ServiceId(labels.get("namespace", ""), labels.get("service", "")), labels["revision"])


def _count(text: str) -> int | None:
    words = text.split()
    try:
        value = float(words[0]) if words else -1.0
    except ValueError:
        return None
    return int(value) if 0 <= value < 1e15 else None


def _buckets(metric: RolloutMetric, below: Mapping[float, int]) -> tuple[int, ...]:
    """From counts at or below each bound to counts in each bucket; nothing when the bounds are not the contract's."""
    bounds = BOUNDS[metric]
    counts = [0] * (len(bounds) + 1)
    seen = 0
    for bound in sorted(below):
        at = len(bounds) if bound == float("inf") else bisect_left(bounds, bound * (1 - 1e-6))
        if at < len(bounds) and abs(bounds[at] - bound) > 1e-6 * bound:
            return (0,) * len(counts)
        counts[at] = max(0, below[bound] - seen)
        seen = max(seen, below[bound])
    return tuple(counts)
