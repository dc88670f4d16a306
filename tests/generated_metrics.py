"""docs/metrics.md, made of the metric objects that the processes export (`python -m tests.generated_metrics FILE`).

A family whose layer or unit cannot be told, and a label without a bound, are errors: whoever adds one says it here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry

from controllers.build import build
from controllers.gpu_agent.admin import Admin as GpuAdmin
from controllers.gpu_agent.usage import UsageMetrics
from controllers.model_cache.admin import Admin as CacheAdmin
from controllers.runtime.metrics import Metrics as OperatorMetrics
from controllers.runtime.queue import ReconcileQueue
from controllers.settings import Settings
from gateway.catalog import Catalog
from gateway.service import Gateway
from gateway.static import StaticSource
from kube.events import Recorder
from tests.fakes import FakeClient
from tests.gateway.harness import SETTINGS
from worker_image.engine.client import EngineClient
from worker_image.engine.messages import EngineLoad
from worker_image.server.metrics import Metrics as WorkerMetrics

FILE: Final = Path("docs/metrics.md")

LAYERS: Final = {
    "hardware": "What the machine has and gives: processors, memory, GPUs.",
    "engine": "What a worker's engine does with requests. The `vllm:` names are vLLM's, so its dashboards work.",
    "service": "What clients of a service meet, and how its workers are.",
    "business": "What it costs, whether promises are kept, and whose it is.",
    "Foretide itself": "Whether operator and gateways are well.",
}
_BUSINESS: Final = ("tenant_", "good_", "sla_requests", "limited", "error_budget", "service_info", "alerts", "alert_")
_OWN: Final = (
    "reconcile", "queue_depth", "queue_delayed", "queue_wait", "api_", "kopf_", "leader", "loop_lag", "informer_",
    "model_cache_", "gateway_catalog", "gateway_connections", "gateway_buffered", "gateway_journal",
    "gateway_access_log", "gateway_members",
)  # fmt: skip

LABELS: Final = {
    "namespace": ("", "Namespace of the service; counted with it."),
    "service": (
        "services",
        "An InferenceService of the cluster; never what a client sent.",
    ),
    "tenant": ("tenants", "A Tenant; empty for a request without a valid key."),
    "revision": ("≤ 3 revisions", "Those that are compared, or were last."),
    "pod": ("workers", "A worker's pod."),
    "model": ("", "The service's Model: one for each service."),
    "sla": ("", "The service's SLA: one for each service."),
    "model_name": ("", "The first name that the worker serves: one for each worker."),
    "class": ("4", "`P0` to `P3`."),
    "code": ("≈ 20", "HTTP statuses that we give or workers gave."),
    "state": ("≤ 6", "Words of ours."),
    "reason": ("≤ 12", "Words of ours."),
    "evidence": ("≤ 6", "How a loss was found; words of ours."),
    "cause": ("≤ 19", "Causes of the diagnosis tree; words of ours."),
    "remedy": ("≤ 3", "Remedies that the operator applies itself; words of ours."),
    "outcome": ("4", "`Applied`, `Helped`, `NotHelped` or `Undone`."),
    "target": ("1", "`ttft`."),
    "met": ("2", "`true` or `false`."),
    "limit": ("≤ 4", "Which of the Tenant's limits."),
    "direction": ("2", "`input` and `output`, or `above` and `below`."),
    "why": ("≤ 12", "Why a worker was picked; words of ours."),
    "finished_reason": ("4", "`stop`, `length`, `abort`, `error`."),
    "kind": ("≤ 8", "Kinds that are reconciled."),
    "result": ("2", "`ok` or `error`."),
    "verb": ("≤ 8", "Verbs of the Kubernetes API."),
    "resource": ("≤ 30", "Collections that are read or written."),
    "cache": ("2", "`known` or `new`."),
    "lease": ("1", "What the process wants to lead: `foretide-operator` or `foretide-gpu-pools`."),
    "policy": ("policies", "An AlertPolicy; its namespace is counted with it."),
    "severity": ("3", "`P0` to `P2`."),
    "receiver": ("receivers", "A receiver of an AlertPolicy."),
    "metric": ("≤ 8", "What an AlertPolicy can look at."),
    "measure": ("4", "`length`, `refusals`, `repetition`, `surprise`."),
    "gpu": ("GPUs", "UUID of a GPU of the node."),
    "action": ("6", "What a GPU fault calls for; words of ours."),
    "generation": ("3", "Of Python's garbage collector."),
    "version": ("", "Of Python."),
    "implementation": ("", "Of Python."),
    "major": ("", "Of Python."),
    "minor": ("", "Of Python."),
    "patchlevel": ("", "Of Python."),
}
"""Label → how many values, as a factor of the number of series, and what it is."""

_UNITS: Final = (
    ("_seconds", "seconds"), ("_bytes", "bytes"), ("_celsius", "°C"), ("_watts", "watts"),
    ("_perc", "share, 0 to 1"), ("_cost", "the Tenant's currency"), ("_utilization", "share, 0 to 1"),
    ("_tokens_total", "tokens"), ("_tokens", "tokens"), ("error_budget_left", "share"), ("kv_waste", "share, 0 to 1"),
    ("endpoint_score", "0 to 1"), ("load_skew", "ratio"), ("anomaly_surprise", "−log10 p"),
    ("prefix_cache_queries", "tokens"), ("prefix_cache_hits", "tokens"), ("_info", "1"),
    ("repetition", "share, 0 to 1"), ("_nats", "nats"), ("quality_score", "score"),
    ("quality_mean", "tokens, share, nats"), ("quality_baseline", "tokens, share, nats"),
    ("quality_drift", "0 or 1"), ("_leader", "0 or 1"), ("_synced", "0 or 1"), ("_unservable", "0 or 1"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the page."""

    component: str
    name: str
    kind: str
    text: str
    labels: tuple[str, ...]

    @property
    def on_the_wire(self) -> str:
        return self.name + "_total" if self.kind == "counter" else self.name

    @property
    def layer(self) -> str:
        name = self.name
        if name.startswith(("process_", "python_", "foretide_gpu_")) or "_process_" in name:
            return "hardware"
        if name.startswith(("vllm:", "foretide_worker_")):
            return "engine"
        bare = name.removeprefix("foretide_")
        if bare.startswith(_OWN):
            return "Foretide itself"
        short = bare.removeprefix("gateway_").removeprefix("service_")
        return "business" if bare.startswith(_BUSINESS) or short.startswith(_BUSINESS) else "service"

    @property
    def unit(self) -> str:
        """Counters and gauges whose name names no unit count things."""
        return next((unit for ending, unit in _UNITS if self.name.endswith(ending)), "number")

    @property
    def series(self) -> str:
        """How many there can be, of one process."""
        factors = [factor for factor, _ in (LABELS[label] for label in self.labels) if factor]
        return " × ".join(factors) or "1"


def families(component: str, registry: CollectorRegistry) -> Iterator[Family]:
    """What the registry would show, whether there are samples or not."""
    for collector in registry._collector_to_names:
        for metric in cast("Any", collector).collect():
            labels = getattr(collector, "_labelnames", getattr(metric, "_labelnames", ()))
            yield Family(component, metric.name, metric.type, metric.documentation, tuple(labels))


class _Engine:
    """As much of an `EngineClient` as its metrics ask for."""

    load, n_open, n_measuring, pid = EngineLoad(), 0, 0, os.getpid()

    def on_step(self, hook: object) -> None:
        """Nothing steps."""


def worker() -> CollectorRegistry:
    metrics = WorkerMetrics("model")
    metrics.watch(cast("EngineClient", _Engine()))
    return metrics.registry


async def gateway() -> CollectorRegistry:
    return Gateway(SETTINGS, StaticSource(Catalog()))._metrics.registry


def operator() -> CollectorRegistry:
    client, queue = FakeClient(), ReconcileQueue()
    recorder = Recorder(client, controller="docs", instance="docs")
    assembly = build(client, Settings(), queue, recorder)
    metrics = OperatorMetrics()
    metrics.watch_runtime(queue, {}, recorder)
    for collector in assembly.collectors:
        metrics.registry.register(collector)
    return metrics.registry


def idle_cache() -> Any:
    """As much of a node agent as its metrics ask for."""
    counts = SimpleNamespace(finished=0, failed=0, evicted=0, downloaded_bytes=0)
    return SimpleNamespace(counts=counts, held=dict, cache_bytes=0, fetching=lambda: 0)


def node_agent() -> CollectorRegistry:
    return CacheAdmin(idle_cache(), cast("Any", None), lambda: 0.0, "", 0)._registry


def gpu_agent() -> CollectorRegistry:
    return GpuAdmin(cast("Any", None), cast("Any", None), UsageMetrics()).registry


def all_families() -> list[Family]:
    """Of every process, in the order of the page."""
    return [
        *families("gateway", asyncio.run(gateway())),
        *families("worker", worker()),
        *families("operator", operator()),
        *families("node agent", node_agent()),
        *families("GPU agent", gpu_agent()),
    ]


HEAD: Final = """\
# Metrics

<!-- Made by `make generate` from the processes' own metric objects; tests/generated_metrics.py says how. -->

Every process shows Prometheus its metrics at `/metrics`; the chart makes a PodMonitor for each
(`podMonitor.enabled`), rules, alerts and a Grafana dashboard ([values](../charts/foretide/values.yaml)). They are in
four layers, and a fifth for Foretide's own processes:

| layer | says |
|---|---|
{layers}
**How many series there can be** is in the last column: a label's value is always one of our own words or an object
of the cluster, never what a client sent. Each gateway, operator, worker or agent has so many; a histogram has as many
again for each of its buckets.

## Questions

{questions}
A request is *good* when it was answered in full and met every target of its SLA that the gateway can see: of a stream
`ttft`, `tpot` and `e2e`, of an answer in one piece `e2e`.
"""


QUESTIONS: Final = {
    "What did a tenant's use of a model cost today?": (
        "sum by (tenant, model) (increase(foretide_gateway_tenant_cost_total[1d])"
        " * on (namespace, service) group_left (model) max by (namespace, service, model) (foretide_service_info))"
    ),
    "How much of the error budget is left?": "max by (namespace, service) (foretide_service_error_budget_left)",
    "How many answers a second are as good as promised (goodput)?": (
        "sum by (namespace, service) (rate(foretide_gateway_good_requests_total[5m]))"
    ),
    "Which share of the answers is that?": (
        "sum by (namespace, service) (rate(foretide_gateway_good_requests_total[5m]))"
        " / sum by (namespace, service) (rate(foretide_gateway_completed_total[5m]))"
    ),
    "How much of a processor does a worker's engine use?": "rate(foretide_worker_engine_process_cpu_seconds_total[1m])",
    "How full is a GPU's memory?": "foretide_gpu_memory_used_bytes / foretide_gpu_memory_bytes",
}


def page() -> str:
    """The whole file."""
    rows = all_families()
    layers = "".join(f"| {layer} | {text} |\n" for layer, text in LAYERS.items())
    asked = "".join(f"| {question} | `{query}` |\n" for question, query in QUESTIONS.items())
    head = HEAD.format(layers=layers, questions="| question | query |\n|---|---|\n" + asked)
    return "\n".join([head, *_sections(rows), *_labels(rows)])


def _sections(rows: list[Family]) -> Iterator[str]:
    for layer in LAYERS:
        of_layer = [row for row in rows if row.layer == layer]
        yield f"## {layer[0].upper()}{layer[1:]}\n"
        yield "| metric | of | type | unit | says | labels | series |\n|---|---|---|---|---|---|---|"
        # What several processes show alike is told once.
        together: dict[tuple[str, ...], list[Family]] = {}
        for row in sorted(of_layer, key=lambda one: one.name):
            together.setdefault((row.on_the_wire, row.text, *row.labels), []).append(row)
        for alike in together.values():
            yield _row(alike)
        yield ""


def _row(alike: list[Family]) -> str:
    one = alike[0]
    labels = ", ".join(f"`{label}`" for label in one.labels) or "–"
    of = ", ".join(row.component for row in alike)
    text = one.text.replace("|", "\\|")
    return f"| `{one.on_the_wire}` | {of} | {one.kind} | {one.unit} | {text} | {labels} | {one.series} |"


def _labels(rows: list[Family]) -> Iterator[str]:
    used = {label for row in rows for label in row.labels}
    yield "## Labels\n"
    yield "| label | values | says |\n|---|---|---|"
    for label, (factor, text) in LABELS.items():
        if label in used:
            yield f"| `{label}` | {factor or '1'} | {text} |"
    yield ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
