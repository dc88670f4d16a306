"""Everything the gateway counts. Label children are bound once per service, so that a request pays for additions only.

Label values come from the catalog and from our own enums, never from a client, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.catalog import ServiceKey
from gateway.figures import Count, Counter, Histogram
from gateway.health.load import Evidence
from gateway.retries import Failure
from gateway.revision_metrics import RevisionFamilies
from gateway.usage import Usage

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 60.0)
_GAP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
_BY_SERVICE = ("namespace", "service")
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """One registry. `service(key)` gives the bound children of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self.registry)
        self.requests = self._counter("requests", "Requests answered.", ("tenant", *_BY_SERVICE, "code"))
        self.arrivals = self._counter("arrivals", "Requests that named this service, as they come.", _BY_SERVICE)
        self.completed = self._counter("completed", "Requests that a worker answered in full.", _BY_SERVICE)
        self.input_tokens = self._counter("input_tokens", "Prompt tokens of completed requests.", _BY_SERVICE)
        self.output_tokens = self._counter("output_tokens", "Generated tokens of completed requests.", _BY_SERVICE)
        self.good_requests = self._counter(
            "good_requests", "Completed requests that met every target of their SLA.", _BY_SERVICE
        )
        self.good_output_tokens = self._counter("good_output_tokens", "Generated tokens of these.", _BY_SERVICE)
        self.retries = self._counter("retries", "Attempts that were repeated.", (*_BY_SERVICE, "reason"))
        self.ejections = self._counter("ejections", "Endpoints ejected for failing.", _BY_SERVICE)
        self.hedges = self._counter("hedges", "Second attempts beside late ones.", _BY_SERVICE)
        self.losses = self._counter("losses", "Workers found stopped, hung or gone.", (*_BY_SERVICE, "evidence"))
        self.connect_errors = self._counter("upstream_connect_errors", "Connections refused or late.", _BY_SERVICE)
        self.broken_streams = self._counter("broken_streams", "Streams whose worker died midway.", _BY_SERVICE)
        self.moved_streams = self._counter(
            "moved_streams", "Streams that another worker took over.", (*_BY_SERVICE, "reason")
        )
        self.sla_requests = self._counter(
            "sla_requests", "Requests measured against their SLA.", (*_BY_SERVICE, "target", "met")
        )
        self.latency = self._histogram("request_seconds", "From request to the last byte.", _LATENCY_BUCKETS)
        self.ttft = self._histogram("ttft_seconds", "From request to the first token of a stream.", _TTFT_BUCKETS)
        self.mirrored = self._counter("mirrored", "Copies of requests for another revision.", (*_BY_SERVICE, "state"))
        self.fallbacks = self._counter("fallbacks", "Requests that went to a fallback.", (*_BY_SERVICE, "reason"))
        self.revisions = RevisionFamilies(self.registry)
        self.stream_gap = self._histogram("stream_gap_seconds", "From a lost worker to the next one.", _GAP_BUCKETS)
        self._answered: dict[tuple[str, str, str, int], Count] = {}
        self._tenants: frozenset[str] | None = None
        """Those there are, where that is known."""

    def service(self, key: ServiceKey) -> ServiceMetrics:
        return ServiceMetrics(self, key)

    def refused(self, tenant: str, code: int) -> None:
        """A request that never got as far as a service; `tenant` is one of the catalog's, or empty."""
        self.answered(tenant, "", "", code)

    def answered(self, tenant: str, namespace: str, service: str, code: int) -> None:
        labels = (tenant, namespace, service, code)
        child = self._answered.get(labels)
        if child is None:
            if tenant and self._tenants is not None and tenant not in self._tenants:
                return
            child = self._answered[labels] = self.requests.labels(tenant, namespace, service, str(code))
        child.inc()

    def keep_tenants(self, tenants: Collection[str]) -> None:
        """Forgets all others, and counts no more of what they still have under way."""
        self._tenants = frozenset(tenants)
        self.forget_requests(lambda tenant, namespace, service: bool(tenant) and tenant not in tenants)

    def forget_requests(self, are_gone: Callable[[str, str, str], bool]) -> None:
        """By tenant, namespace and service."""
        self._answered.clear()
        for labels in self.requests:
            if are_gone(*labels[:3]):
                self.requests.remove(*labels)

    def observe(self, gauges: Callable[[], Iterable[Metric]]) -> None:
        """`gauges` is asked at every scrape for what has a present value."""
        self.registry.register(_Gauges(gauges))

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, help_: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"foretide_gateway_{name}", help_, labels, self.registry)

    def _histogram(self, name: str, help_: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"foretide_gateway_{name}", help_, _BY_SERVICE, buckets, self.registry)


class ServiceMetrics:
    """The children of one service. `forget` takes them out of the registry when the service is gone."""

    def __init__(self, metrics: Metrics, key: ServiceKey) -> None:
        self._metrics = metrics
        self._labels = (key.namespace, key.name)
        self._latency = metrics.latency.labels(*self._labels)
        self._ttft = metrics.ttft.labels(*self._labels)
        self.arrivals = metrics.arrivals.labels(*self._labels)
        self._completed = metrics.completed.labels(*self._labels)
        self._input_tokens = metrics.input_tokens.labels(*self._labels)
        self._output_tokens = metrics.output_tokens.labels(*self._labels)
        self._good_requests = metrics.good_requests.labels(*self._labels)
        self._good_output_tokens = metrics.good_output_tokens.labels(*self._labels)
        self._retries: dict[Failure, Count] = {}
        self._sla: dict[bool, Count] = {}
        self._losses: dict[Evidence, Count] = {}
        self._mirrored: dict[str, Count] = {}
        self._fallbacks: dict[str, Count] = {}
        self._moved: dict[Failure, Count] = {}
        self._gap = metrics.stream_gap.labels(*self._labels)
        self.ejections = metrics.ejections.labels(*self._labels)
        self.hedges = metrics.hedges.labels(*self._labels)
        self.connect_errors = metrics.connect_errors.labels(*self._labels)
        self.broken_streams = metrics.broken_streams.labels(*self._labels)

    def answered(self, tenant: str, code: int, duration_s: float) -> None:
        self._metrics.answered(tenant, *self._labels, code)
        self._latency.observe(duration_s)

    def completed(self, usage: Usage, *, good: bool) -> None:
        """A worker's whole answer, the tokens it took, and whether it came as the SLA wants it."""
        self._completed.inc()
        self._input_tokens.inc(usage.prompt)
        self._output_tokens.inc(usage.completion)
        if good:
            self._good_requests.inc()
            self._good_output_tokens.inc(usage.completion)

    def first_token(self, ttft_s: float, target_s: float | None) -> None:
        """The first token of a stream, and whether it came within the SLA's target, if there is one."""
        self._ttft.observe(ttft_s)
        if target_s is None:
            return
        met = ttft_s <= target_s
        child = self._sla.get(met)
        if child is None:
            labels = (*self._labels, "ttft", "true" if met else "false")
            child = self._sla[met] = self._metrics.sla_requests.labels(*labels)
        child.inc()

    def retried(self, failure: Failure) -> None:
        child = self._retries.get(failure)
        if child is None:
            child = self._retries[failure] = self._metrics.retries.labels(*self._labels, failure.value)
        child.inc()

    def lost(self, evidence: Evidence) -> None:
        child = self._losses.get(evidence)
        if child is None:
            child = self._losses[evidence] = self._metrics.losses.labels(*self._labels, evidence.value)
        child.inc()

    def mirrored(self, state: str) -> None:
        """A copy of a request was sent or dropped."""
        child = self._mirrored.get(state)
        if child is None:
            child = self._mirrored[state] = self._metrics.mirrored.labels(*self._labels, state)
        child.inc()

    def fell_back(self, reason: str) -> None:
        """A request of this service goes to its fallback."""
        child = self._fallbacks.get(reason)
        if child is None:
            child = self._fallbacks[reason] = self._metrics.fallbacks.labels(*self._labels, reason)
        child.inc()

    def moved(self, failure: Failure, gap_s: float) -> None:
        """A stream goes on elsewhere after a worker failed; its client has waited for so long."""
        child = self._moved.get(failure)
        if child is None:
            child = self._moved[failure] = self._metrics.moved_streams.labels(*self._labels, failure.value)
        child.inc()
        self._gap.observe(gap_s)

    def forget(self) -> None:
        metrics = self._metrics
        plain = (
            metrics.hedges,
            metrics.latency,
            metrics.ttft,
            metrics.ejections,
            metrics.connect_errors,
            metrics.broken_streams,
        )
        work = (metrics.stream_gap, metrics.arrivals, metrics.completed, metrics.input_tokens, metrics.output_tokens)
        goodput = (metrics.good_requests, metrics.good_output_tokens)
        for metric in (*plain, *work, *goodput):
            metric.remove(*self._labels)
        metrics.forget_requests(lambda tenant, *service: (*service,) == self._labels)
        for failure in self._retries:
            metrics.retries.remove(*self._labels, failure.value)
        for state in self._mirrored:
            metrics.mirrored.remove(*self._labels, state)
        for reason in self._fallbacks:
            metrics.fallbacks.remove(*self._labels, reason)
        for evidence in self._losses:
            metrics.losses.remove(*self._labels, evidence.value)
        for failure in self._moved:
            metrics.moved_streams.remove(*self._labels, failure.value)
        for met in self._sla:
            metrics.sla_requests.remove(*self._labels, "ttft", "true" if met else "false")


class _Gauges(Collector):
    def __init__(self, gauges: Callable[[], Iterable[Metric]]) -> None:
        self._ask = gauges

    def collect(self) -> Iterable[Metric]:
        return self._ask()

    def describe(self) -> Iterable[Metric]:
        return ()


def gauge(name: str, help_: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"foretide_gateway_{name}", help_, labels=labels)
