"""What self-healing remembers of each service while this process leads, and the counters of what it did.

The status is the store: a new leader goes on from there. In between, what was decided counts before the cache shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from controllers.plans.healing.values import HealPlan
from controllers.runtime.interface import Key
from crds.contract import METRIC_REMEDIES
from crds.healing import HealthStatus


class Healings(Collector):
    """Bounded by services × what was ever done for each."""

    def __init__(self) -> None:
        self._memories: dict[Key, HealthStatus] = {}
        self._counts: dict[Key, Counter[tuple[str, str, str]]] = {}

    def last(self, key: Key) -> HealthStatus | None:
        """None before the first decision of this process."""
        return self._memories.get(key)

    def remember(self, key: Key, plan: HealPlan | None) -> None:
        """What was decided; a person who wants no healing wants no memory of it either."""
        if plan is None:
            self._memories.pop(key, None)
            return
        self._memories[key] = plan.memory
        for one in plan.counted:
            self._counts.setdefault(key, Counter())[one.cause, one.remedy.value, one.outcome] += 1

    def forget(self, key: Key) -> None:
        """The service is gone."""
        self._memories.pop(key, None)
        self._counts.pop(key, None)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        labels = ("namespace", "service", "cause", "remedy", "outcome")
        family = CounterMetricFamily(
            METRIC_REMEDIES, "Remedies of self-healing, and what became of them.", labels=labels
        )
        for key, counts in self._counts.items():
            for (cause, remedy, outcome), n in sorted(counts.items()):
                family.add_metric((key.namespace or "", key.name, cause, remedy, outcome), float(n))
        yield family
