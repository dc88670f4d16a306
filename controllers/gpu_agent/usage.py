"""What a node's GPUs do now, as metrics: read from the driver at each scrape. Changes nothing, judges nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controllers.plans.mig.faults import Action

ACTIONS: Final = {action: action.name.lower() for action in Action}


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """One GPU; None for what its driver does not tell, as the utilisation of one that is cut into slices."""

    gpu: str
    """Its UUID."""
    utilization: float | None = None
    """0 to 1."""
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class UsageMetrics(Collector):
    """Shows what was last put into `gpus`, and the faults that were heard since the start."""

    def __init__(self) -> None:
        self.gpus: Sequence[GpuUsage] = ()
        self._faults: Counter[tuple[str, Action]] = Counter()

    def heard(self, gpu: str, action: Action) -> None:
        self._faults[gpu, action] += 1

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        rows = (
            ("utilization", "Time in which a kernel ran, 0 to 1; absent while it is cut.", "utilization"),
            ("memory_bytes", "Memory of the GPU.", "memory_bytes"),
            ("memory_used_bytes", "Of that, in use.", "memory_used_bytes"),
            ("temperature_celsius", "Temperature of the GPU.", "temperature_c"),
            ("power_watts", "Power drawn.", "power_w"),
        )
        for name, text, field in rows:
            family = GaugeMetricFamily(f"foretide_gpu_{name}", text, labels=("gpu",))
            for one in self.gpus:
                value = getattr(one, field)
                if value is not None:
                    family.add_metric((one.gpu,), float(value))
            yield family
        faults = CounterMetricFamily(
            "foretide_gpu_faults", "XIDs that the driver reported, by what they call for.", labels=("gpu", "action")
        )
        for (gpu, action), count in sorted(self._faults.items()):
            faults.add_metric((gpu, ACTIONS[action]), count)
        yield faults
