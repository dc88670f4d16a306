"""Counters and histograms for one thread, exported to Prometheus. `prometheus_client`'s own lock and walk their buckets
at every observation, which at tens of thousands of tokens a second is the server's largest cost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric


class Tally:
    """A counter. `value` may be added to directly."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """Counts observations per bucket; a bucket holds what is at most its bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def family(self, name: str, text: str, label: str, label_value: str) -> Metric:
        family = HistogramMetricFamily(name, text, labels=[label])
        self.add_to(family, [label_value])
        return family

    def add_to(self, family: HistogramMetricFamily, label_values: list[str]) -> None:
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        family.add_metric(label_values, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


def one_two_five(largest: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, … up to `largest`."""

    def bounds() -> Iterator[float]:
        step = 1
        while True:
            yield from (step, 2 * step, 5 * step)
            step *= 10

    chosen: list[float] = []
    for bound in bounds():
        if bound > largest:
            break
        chosen.append(float(bound))
    return tuple(chosen)


def counter_family(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def gauge_family(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
