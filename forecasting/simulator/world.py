"""The world that every autoscaler meets: cold starts, draining, bounds, how late metrics are, and what counts as good.

Values only; the fleets in `events` and `fluid` live by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from forecasting.errors import BadSetting
from forecasting.profile import LLAMA_8B_H100, Profile


@lru_cache(maxsize=1 << 16)
def _drawn(seed: int, start: int) -> tuple[float, float, float]:
    """Kept, because a generator a start is slow and all runs under one seed draw the same."""
    warm, node, load = np.random.default_rng((seed, start, 0xC01D)).random(3).tolist()
    return warm, node, load


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Time from asking for a replica to its first answer: a node, unless the pool is warm, and the load.

    warm_share: part of the starts that find a node at once; the others wait U(node_min_s, node_max_s).
    load_s: the model's load; one start is U(1 − spread, 1 + spread) of it.
    """

    load_s: float
    spread: float = 0.1
    warm_share: float = 1.0
    node_min_s: float = 120.0
    node_max_s: float = 480.0

    def draw_s(self, seed: int, start: int) -> float:
        """The `start`-th cold start of a run: the same for every autoscaler under one seed."""
        warm, node, load = _drawn(seed, start)
        node_s = 0.0 if warm < self.warm_share else self.node_min_s + node * (self.node_max_s - self.node_min_s)
        return float(node_s + self.load_s * (1 + self.spread * (2 * load - 1)))

    def p95_s(self) -> float:
        """What a service would have measured: the 95th percentile of a thousand starts."""
        return float(np.quantile([self.draw_s(0, start) for start in range(1000)], 0.95))


@dataclass(frozen=True, slots=True)
class Slo:
    """A good request has its first token within `ttft_s` and the further ones within `tpot_s` each, on average."""

    ttft_s: float = 1.0
    tpot_s: float = 0.05
    attainment: float = 0.99


@dataclass(frozen=True, slots=True)
class World:
    """Everything but the requests and the autoscaler.

    metrics_lag_s: age of the newest scrape when it can be read, so that a controller sees 15–30 s into the past.
    """

    profile: Profile = LLAMA_8B_H100
    cold_start: ColdStart = ColdStart(180.0)
    slo: Slo = Slo()
    min_replicas: int = 1
    max_replicas: int = 100
    scrape_s: float = 15.0
    metrics_lag_s: float = 15.0
    drain_cap_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise BadSetting(
                f"World: min_replicas is {self.min_replicas}, max_replicas {self.max_replicas};"
                " 0 <= min <= max and a max of at least 1 are needed. Lower min or raise max."
            )
