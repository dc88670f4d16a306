"""Prometheus metrics under the names vLLM gave them, so that existing dashboards and endpoint pickers work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from crds.contract import METRIC_KV_USAGE, METRIC_RUNNING, METRIC_WAITING
from worker_image.engine.client import EngineClient

LABEL: Final = "model_name"
TTFT_BUCKETS_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TPOT_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0,
)  # fmt: skip
E2E_BUCKETS_S: Final = (
    0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
)  # fmt: skip


class Metrics:
    """One registry per server; nothing global."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._model_name = model_name

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, [LABEL], registry=self.registry).labels(model_name)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, [LABEL], registry=self.registry, buckets=buckets).labels(model_name)

        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens of requests that got a first token.")
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated.")
        self.ttft = histogram("vllm:time_to_first_token_seconds", "Request received to first token.", TTFT_BUCKETS_S)
        self.tpot = histogram("vllm:time_per_output_token_seconds", "Between tokens of one request.", TPOT_BUCKETS_S)
        self.itl = histogram("vllm:inter_token_latency_seconds", "Between tokens of one request.", TPOT_BUCKETS_S)
        self.e2e = histogram("vllm:e2e_request_latency_seconds", "Request received to last token.", E2E_BUCKETS_S)
        success = Counter(
            "vllm:request_success", "Requests that ended well.", [LABEL, "finished_reason"], registry=self.registry
        )
        self._success = {reason: success.labels(model_name, reason) for reason in ("stop", "length", "abort")}

    def ended(self, reason: str) -> None:
        """reason: stop, length, or abort (the client left)."""
        self._success[reason].inc()

    def watch(self, engine: EngineClient) -> None:
        """Adds the gauges that are read from the engine's latest report."""
        self.registry.register(EngineCollector(engine, self._model_name))


class EngineCollector(Collector):
    def __init__(self, engine: EngineClient, model_name: str) -> None:
        self._engine, self._model_name = engine, model_name

    def collect(self) -> Iterator[Metric]:
        load = self._engine.load
        # A request counts as waiting from the moment it is submitted, before the engine's first report of it.
        waiting = max(self._engine.n_open - load.running, 0)
        yield self._gauge(METRIC_RUNNING, "Requests in the engine's batch.", load.running)
        yield self._gauge(METRIC_WAITING, "Requests that wait for a place in it.", waiting)
        yield self._gauge(METRIC_KV_USAGE, "Share of the KV cache in use, 0 to 1.", load.kv_usage)
        preemptions = CounterMetricFamily("vllm:num_preemptions", "Requests sent back to waiting.", labels=[LABEL])
        preemptions.add_metric([self._model_name], load.preemptions)
        yield preemptions

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(name, text, labels=[LABEL])
        gauge.add_metric([self._model_name], value)
        return gauge
