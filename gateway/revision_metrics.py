"""What each revision's requests met while traffic is split: what canaries are judged by (`crds.contract`).

Counts attempts, copies included and probes left out. Present for a service only while more than one revision is in its
traffic, so that old revisions leave no series behind.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from crds.contract import (
    METRIC_REVISION_ERRORS,
    METRIC_REVISION_OUTPUT_TOKENS,
    METRIC_REVISION_REQUESTS,
    METRIC_REVISION_TPOT,
    METRIC_REVISION_TTFT,
    REVISION_OUTPUT_TOKENS_BOUNDS,
    REVISION_TPOT_BOUNDS_S,
    REVISION_TTFT_BOUNDS_S,
)
from gateway.catalog import ServiceKey
from gateway.figures import Counter, Histogram

_LABELS = ("namespace", "service", "revision")


class RevisionFamilies:
    """The series of all services in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, help_: str, bounds: Sequence[float]) -> Histogram:
            return Histogram(name, help_, _LABELS, bounds, registry)

        def counter(name: str, help_: str) -> Counter:
            return Counter(name.removesuffix("_total"), help_, _LABELS, registry)

        self.requests = counter(METRIC_REVISION_REQUESTS, "Requests that a revision ended.")
        self.errors = counter(METRIC_REVISION_ERRORS, "Those of them that were its fault.")
        self.ttft = histogram(METRIC_REVISION_TTFT, "From asking a worker to its first token.", REVISION_TTFT_BOUNDS_S)
        self.tpot = histogram(METRIC_REVISION_TPOT, "Of an output token after the first.", REVISION_TPOT_BOUNDS_S)
        self.output_tokens = histogram(
            METRIC_REVISION_OUTPUT_TOKENS, "Generated tokens of a request.", REVISION_OUTPUT_TOKENS_BOUNDS
        )

    @property
    def all(self) -> tuple[Counter | Histogram, ...]:
        return (self.requests, self.errors, self.ttft, self.tpot, self.output_tokens)


class Revisions:
    """Those of one service."""

    def __init__(self, families: RevisionFamilies, key: ServiceKey) -> None:
        self._families = families
        self._key = key
        self._known: set[bytes] = set()

    def ended(self, revision: bytes, *, good: bool) -> None:
        labels = self._labels(revision)
        self._families.requests.labels(*labels).inc()
        errors = self._families.errors.labels(*labels)  # 0 is worth telling too
        if not good:
            errors.inc()

    def completed(self, revision: bytes, output_tokens: int, ttft_s: float | None, rest_s: float | None) -> None:
        """A whole answer; `rest_s`: from a stream's first event to its end."""
        labels = self._labels(revision)
        self._families.output_tokens.labels(*labels).observe(output_tokens)
        if ttft_s is not None:
            self._families.ttft.labels(*labels).observe(ttft_s)
        if rest_s is not None and output_tokens > 1:
            self._families.tpot.labels(*labels).observe(rest_s / (output_tokens - 1))

    def keep(self, revisions: set[bytes]) -> None:
        """Forgets all others."""
        for revision in self._known - revisions:
            for family in self._families.all:
                family.remove(*self._key, revision.decode())
        self._known &= revisions

    def _labels(self, revision: bytes) -> tuple[str, str, str]:
        self._known.add(revision)
        return (*self._key, revision.decode())
