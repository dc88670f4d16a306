"""Prometheus metrics under the names vLLM gave them, so that existing dashboards and endpoint pickers work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from crds.contract import METRIC_KV_USAGE, METRIC_RUNNING, METRIC_WAITING
from worker_image.engine.client import EngineClient, running_and_waiting
from worker_image.engine.messages import EngineLoad, StepDone
from worker_image.engine.standing import CLASSES
from worker_image.server.histogram import Histogram, Tally, counter_family, gauge_family, one_two_five
from worker_image.server.quality import QualityMetrics

LABEL: Final = "model_name"
LABEL_CLASS: Final = "class"
"""P0 to P3: four series of each, whatever clients send."""
ENDINGS: Final = ("stop", "length", "abort", "error")
"""vLLM's reasons. abort: the client left; error: the engine failed."""
TTFT_BUCKETS_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TPOT_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
REQUEST_BUCKETS_S: Final = (
    0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
STEP_TOKENS: Final = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
N_BUCKETS: Final = (1, 2, 5, 10, 20)
LONGEST_CONTEXT: Final = 200_000


@dataclass(frozen=True)
class Ended:
    """What one choice of a request took. Times in seconds; None where it did not come so far."""

    reason: str
    priority: int
    e2e_s: float
    queue_s: float | None
    prefill_s: float | None
    decode_s: float | None
    prompt_tokens: int
    generation_tokens: int
    tokens_before: int = 0
    """Of those generated, what another worker did before this one went on."""


class Metrics(Collector):
    """One registry per server; nothing global. One thread writes."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._model_name = model_name
        self.prompt_tokens, self.generation_tokens = Tally(), Tally()
        self.ttft, self.itl = Histogram(TTFT_BUCKETS_S), Histogram(TPOT_BUCKETS_S)
        self.tpot_of_request = Histogram(TPOT_BUCKETS_S)
        self.e2e, self.queue, self.inference, self.prefill, self.decode = (
            Histogram(REQUEST_BUCKETS_S) for _ in range(5)
        )
        self._ttft_by_class = [Histogram(TTFT_BUCKETS_S) for _ in CLASSES]
        self._queue_by_class = [Histogram(REQUEST_BUCKETS_S) for _ in CLASSES]
        lengths = one_two_five(LONGEST_CONTEXT)
        self.request_prompt_tokens, self.request_generation_tokens = Histogram(lengths), Histogram(lengths)
        self.max_tokens, self.n = Histogram(lengths), Histogram(N_BUCKETS)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.quality = QualityMetrics()
        self._success = {reason: Tally() for reason in ENDINGS}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def first_token(self, priority: int, ttft_s: float) -> None:
        self.ttft.observe(ttft_s)
        self._ttft_by_class[priority].observe(ttft_s)

    def ended(self, ended: Ended) -> None:
        self._success[ended.reason].value += 1
        self.e2e.observe(ended.e2e_s)
        self.request_prompt_tokens.observe(ended.prompt_tokens)
        self.request_generation_tokens.observe(ended.generation_tokens)
        if ended.queue_s is not None:
            self.queue.observe(ended.queue_s)
            self._queue_by_class[ended.priority].observe(ended.queue_s)
        if ended.prefill_s is not None and ended.decode_s is not None:
            self.prefill.observe(ended.prefill_s)
            self.decode.observe(ended.decode_s)
            self.inference.observe(ended.prefill_s + ended.decode_s)
            if (n_own := ended.generation_tokens - ended.tokens_before) > 1:
                self.tpot_of_request.observe(ended.decode_s / (n_own - 1))

    def watch(self, engine: EngineClient) -> None:
        """Adds the series that come from the engine's own reports."""
        engine.on_step(self._step)
        self.registry.register(EngineCollector(engine, self._model_name))
        ProcessCollector("foretide_worker_engine", lambda: engine.pid, registry=self.registry)

    def _step(self, before: EngineLoad, step: StepDone) -> None:
        n_prefilled = step.load.prefill_tokens - before.prefill_tokens
        if n_tokens := n_prefilled + len(step.ids):
            self.step_tokens.observe(n_tokens)

    def collect(self) -> Iterator[Metric]:
        counters = (
            ("vllm:prompt_tokens", "Prompt tokens of requests that got a first token.", self.prompt_tokens),
            ("vllm:generation_tokens", "Tokens generated.", self.generation_tokens),
        )
        for name, text, tally in counters:
            yield counter_family(name, text, {LABEL: self._model_name}, tally.value)
        for name, text, histogram in self._histograms():
            yield histogram.family(name, text, LABEL, self._model_name)
        yield from self.quality.families(LABEL, self._model_name)
        yield self._of_classes("foretide_worker_ttft_seconds", "First token, by class.", self._ttft_by_class)
        yield self._of_classes("foretide_worker_queue_seconds", "Until taken up, by class.", self._queue_by_class)
        success = CounterMetricFamily("vllm:request_success", "Requests ended.", labels=[LABEL, "finished_reason"])
        for reason, tally in self._success.items():
            success.add_metric([self._model_name, reason], tally.value)
        yield success

    def _of_classes(self, name: str, text: str, histograms: list[Histogram]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=[LABEL, LABEL_CLASS])
        for class_name, histogram in zip(CLASSES, histograms, strict=True):
            histogram.add_to(family, [self._model_name, class_name])
        return family

    def _histograms(self) -> Iterator[tuple[str, str, Histogram]]:
        yield "vllm:time_to_first_token_seconds", "Request received to first token.", self.ttft
        yield "vllm:inter_token_latency_seconds", "Between tokens of one request.", self.itl
        # The older name of the same thing, which dashboards of before vLLM 0.11 ask for.
        yield "vllm:time_per_output_token_seconds", "Between tokens of one request.", self.itl
        yield "vllm:request_time_per_output_token_seconds", "Mean between tokens, per request.", self.tpot_of_request
        yield "vllm:e2e_request_latency_seconds", "Request received to last token.", self.e2e
        yield "vllm:request_queue_time_seconds", "Until the engine took the request up.", self.queue
        yield "vllm:request_inference_time_seconds", "Taken up to last token.", self.inference
        yield "vllm:request_prefill_time_seconds", "Taken up to first token.", self.prefill
        yield "vllm:request_decode_time_seconds", "First token to last.", self.decode
        yield "vllm:request_prompt_tokens", "Prompt tokens of a request.", self.request_prompt_tokens
        yield "vllm:request_generation_tokens", "Tokens generated for a request.", self.request_generation_tokens
        yield "vllm:request_params_max_tokens", "Most tokens a request may generate.", self.max_tokens
        yield "vllm:request_params_n", "Choices asked for.", self.n
        yield "vllm:iteration_tokens_total", "Tokens of a step of the engine.", self.step_tokens


class EngineCollector(Collector):
    def __init__(self, engine: EngineClient, model_name: str) -> None:
        self._engine, self._model_name = engine, model_name

    def collect(self) -> Iterator[Metric]:
        load, labels = self._engine.load, {LABEL: self._model_name}
        running, waiting = running_and_waiting(self._engine)
        yield gauge_family(METRIC_RUNNING, "Requests in the engine's batch.", labels, running)
        yield gauge_family(METRIC_WAITING, "Requests that wait for a place in it.", labels, waiting)
        yield gauge_family(METRIC_KV_USAGE, "Share of the KV cache in use, 0 to 1.", labels, load.kv_usage)
        counters = (
            ("vllm:num_preemptions", "Requests sent back to waiting.", load.preemptions),
            ("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", load.prefix_queried_tokens),
            ("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", load.prefix_hit_tokens),
            ("foretide_worker_kv_restored_tokens", "Read back instead of computed again.", load.restored_tokens),
            ("foretide_worker_engine_steps", "Steps of the engine.", load.steps),
            ("foretide_worker_failed_steps", "Steps of the engine that failed.", load.failed_steps),
        )
        for name, text, count in counters:
            yield counter_family(name, text, labels, count)
        preemptions = CounterMetricFamily(
            "foretide_worker_preemptions", "Requests sent back to waiting, by class.", labels=[LABEL, LABEL_CLASS]
        )
        for class_name, count in zip(CLASSES, load.preemptions_by_class, strict=True):
            preemptions.add_metric([self._model_name, class_name], count)
        yield preemptions
        gauges = (
            ("foretide_worker_kv_waste", "Share of the held KV slots that no token uses, 0 to 1.", load.kv_waste),
            (
                "foretide_worker_oldest_waiting_seconds",
                "How long the oldest request has waited.",
                load.oldest_waiting_s,
            ),
            ("foretide_worker_step_seconds", "The last step of the engine.", load.step_s),
            ("foretide_worker_step_host_seconds", "Of that, what scheduling and booking took.", load.host_s),
        )
        for name, text, value in gauges:
            yield gauge_family(name, text, labels, value)
