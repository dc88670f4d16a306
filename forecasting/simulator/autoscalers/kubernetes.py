"""The reactive autoscalers of Kubernetes: HPA, KEDA and Knative's KPA, by their documented algorithms.

Sources: the HPA algorithm of the Kubernetes documentation with its default behaviour (tolerance 0.1, 300 s of
down-stabilisation, up by at most the larger of 100 % and 4 pods in 15 s); KEDA's external metric of average value;
Knative's autoscaler design (60 s stable and 6 s panic window, panic at 200 %, no down in panic).
"""

from __future__ import annotations

import math

from forecasting.simulator.autoscalers.common import Highest, whole
from forecasting.simulator.view import Scrape, View

TOLERANCE = 0.1


class Hpa:
    """`ceil(current × metric ÷ target)`; the metric is the KV use or the waiting requests of one replica."""

    period_s = 15

    def __init__(self, metric: str, target: float, down_s: float = 300.0) -> None:
        self.name = f"HPA ({metric})"
        self._use_kv, self._target = metric == "KV use", target
        self._highest = Highest(down_s)

    def desired(self, view: View) -> int:
        newest = view.newest
        if newest is None:
            return view.current
        metric = newest.kv_use if self._use_kv else newest.waiting / max(view.ready, 1)
        ratio = metric / self._target
        # Pods that are not ready count as using nothing on the way up, which damps the ratio as the HPA does.
        if ratio > 1 and view.current > view.ready:
            ratio = max(ratio * max(view.ready, 1) / view.current, 1.0)
        wish = view.current if abs(ratio - 1) <= TOLERANCE else whole(view.current * ratio)
        wish = min(wish, view.current + max(view.current, 4))
        return self._highest.of(view.now_s, max(wish, 1))


class Keda:
    """Requests that wait (and, if set, run) over a threshold a replica, polled every 30 s; the HPA behind it."""

    name = "KEDA (waiting requests)"
    period_s = 30

    def __init__(self, threshold: float, running_counts: bool, down_s: float = 300.0) -> None:
        self._threshold, self._running_counts = threshold, running_counts
        self._highest = Highest(down_s)

    def desired(self, view: View) -> int:
        newest = view.newest
        if newest is None:
            return view.current
        held = newest.waiting + (newest.running if self._running_counts else 0.0)
        ratio = held / self._threshold / max(view.current, 1)
        wish = view.current if abs(ratio - 1) <= TOLERANCE else whole(held / self._threshold)
        wish = min(wish, view.current + max(view.current, 4))
        return self._highest.of(view.now_s, max(wish, 1))


class Kpa:
    """Concurrency over a stable and a panic window; in panic the number never falls."""

    name = "Knative KPA"
    period_s = 15

    def __init__(
        self, target: float, stable_s: float = 60.0, panic_threshold: float = 2.0, down_s: float = 0.0
    ) -> None:
        self._target, self._stable_s, self._panic_threshold = target, stable_s, panic_threshold
        self._panic_until_s, self._panic_most = -math.inf, 0
        self._highest = Highest(down_s)

    def desired(self, view: View) -> int:
        window = view.window(self._stable_s)
        if not window:
            return view.current
        stable = whole(sum(map(_held, window)) / len(window) / self._target)
        panic = whole(_held(window[-1]) / self._target)
        if panic >= self._panic_threshold * max(view.ready, 1):
            if view.now_s >= self._panic_until_s:
                self._panic_most = 0
            self._panic_until_s = view.now_s + self._stable_s
        if view.now_s < self._panic_until_s:
            self._panic_most = max(self._panic_most, panic, view.current)
            return self._panic_most
        # Knative halves at most at once.
        return self._highest.of(view.now_s, max(stable, view.ready // 2, 1))


def _held(scrape: Scrape) -> float:
    return scrape.running + scrape.waiting
