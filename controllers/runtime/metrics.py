"""What the operator tells Prometheus about itself. One object, made in `main`, handed to whoever counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from controllers.runtime.queue import ReconcileQueue
from kube.client import Answered
from kube.events import Recorder
from kube.informer import Informer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_WRITING = frozenset({"apply", "create", "patch", "delete"})


class Metrics:
    """All counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        made: dict[str, Any] = {"registry": self.registry}
        self.reconciles = Counter(
            "foretide_reconciles", "Reconciles by kind and result (ok, error).", ("kind", "result"), **made
        )
        self.reconcile_s = Histogram(
            "foretide_reconcile_duration_seconds", "Wall time of a reconcile.", ("kind",), buckets=_SECONDS, **made
        )
        self.queue_wait_s = Histogram(
            "foretide_queue_wait_seconds", "From due to taken by a worker.", ("kind",), buckets=_SECONDS, **made
        )
        self.api_requests = Counter(
            "foretide_api_requests",
            "Requests to the API server; code is 0 when no answer came.",
            ("verb", "resource", "code"),
            **made,
        )
        self.api_request_s = Histogram(
            "foretide_api_request_duration_seconds", "Requests, watches left out.", ("verb",), buckets=_SECONDS, **made
        )
        self.api_writes = Counter("foretide_api_writes", "Writing requests that were answered.", ("resource",), **made)
        self.kopf_events = Counter(
            "foretide_kopf_events",
            "Events that Kopf reported, by whether the cache had them (known, new).",
            ("cache",),
            **made,
        )
        self.leader = Gauge("foretide_leader", "1 while this process leads.", ("lease",), **made)
        self.loop_lag_s = Gauge("foretide_loop_lag_seconds", "How late the event loop ran its last tick.", **made)

    def observe_request(self, answered: Answered) -> None:
        """Hook for `kube.client.Client`."""
        resource = answered.resource.collection
        self.api_requests.labels(answered.verb, resource, str(answered.code or 0)).inc()
        if answered.verb != "watch":
            self.api_request_s.labels(answered.verb).observe(answered.duration_s)
        if answered.verb in _WRITING and answered.code is not None:
            self.api_writes.labels(resource).inc()

    def watch_runtime(self, queue: ReconcileQueue, informers: Mapping[str, Informer[Any]], recorder: Recorder) -> None:
        """Report the queue, the caches and lost Events at every scrape."""
        self.registry.register(_RuntimeCollector(queue, informers, recorder))

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class _RuntimeCollector(Collector):
    def __init__(self, queue: ReconcileQueue, informers: Mapping[str, Informer[Any]], recorder: Recorder) -> None:
        self._queue, self._informers, self._recorder = queue, informers, recorder

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("foretide_queue_depth", "Keys that wait for a worker.", value=self._queue.depth)
        yield GaugeMetricFamily("foretide_queue_delayed", "Keys to look at later.", value=self._queue.delayed)
        yield CounterMetricFamily(
            "foretide_api_events_dropped",
            "Kubernetes Events that were not written: too many at once, or refused.",
            value=self._recorder.dropped,
        )
        yield self._of_each("foretide_informer_objects", "Objects held.", {k: len(v) for k, v in self._each()})
        yield self._of_each(
            "foretide_informer_age_seconds", "Since the server last spoke.", {k: v.age_s for k, v in self._each()}
        )
        yield self._of_each(
            "foretide_informer_synced", "1 once complete.", {k: v.synced.is_set() for k, v in self._each()}
        )
        yield self._of_each("foretide_informer_lists", "Full lists since start.", {k: v.lists for k, v in self._each()})
        yield self._of_each(
            "foretide_informer_failures", "Failures since start.", {k: v.failures for k, v in self._each()}
        )

    def _each(self) -> Iterable[tuple[str, Informer[Any]]]:
        return self._informers.items()

    @staticmethod
    def _of_each(name: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=("resource",))
        for resource, value in values.items():
            family.add_metric((resource,), float(value))
        return family
