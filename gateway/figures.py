"""Counters and histograms as plain numbers: a request pays for additions, a scrape for everything else.

`prometheus_client`'s own take a lock and several calls for each addition, which a loop with one thread does not need.
Their text is made by it all the same. Never asked from another thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        self.value += amount


class Spread:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values up to each bound and above the one before; the last, above all."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


Series = TypeVar("Series", Count, Spread)


class _Family(Collector, Generic[Series]):
    """All series of one name. `labels` gives one, made where there is none; hold on to it."""

    def __init__(self, name: str, help_: str, label_names: Labels, registry: CollectorRegistry) -> None:
        self._name = name
        self._help = help_
        self.label_names = label_names
        self._series: dict[Labels, Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        found = self._series.get(values)
        if found is None:
            assert len(values) == len(self.label_names), f"{self._name} has the labels {self.label_names}"
            found = self._series[values] = self._new()
        return found

    def remove(self, *values: str) -> None:
        """Twice is once."""
        self._series.pop(values, None)

    def __iter__(self) -> Iterator[Labels]:
        return iter(list(self._series))

    def _new(self) -> Series:
        raise NotImplementedError


class Counter(_Family[Count]):
    def _new(self) -> Count:
        return Count()

    def describe(self) -> Iterable[Metric]:
        return (CounterMetricFamily(self._name, self._help),)

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._help, labels=self.label_names)
        for labels, one in self._series.items():
            family.add_metric(labels, one.value)
        return (family,)


class Histogram(_Family[Spread]):
    def __init__(
        self, name: str, help_: str, label_names: Labels, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._bounds = tuple(bounds)
        super().__init__(name, help_, label_names, registry)

    def _new(self) -> Spread:
        return Spread(self._bounds)

    def describe(self) -> Iterable[Metric]:
        return (HistogramMetricFamily(self._name, self._help),)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self.label_names)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, one in self._series.items():
            buckets, seen = [], 0
            for name, count in zip(names, one.counts, strict=True):
                seen += count
                buckets.append((name, float(seen)))
            family.add_metric(labels, buckets, one.total)
        return (family,)
