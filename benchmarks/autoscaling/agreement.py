"""How far the fluid mode, which the study runs in, is from the exact simulation: both over the same requests.

Twenty minutes of the test days, with fleets from tight to comfortable and one that follows the load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.report import Row
from forecasting.simulator.arrivals import per_second
from forecasting.simulator.autoscaler import Autoscaler
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.autoscalers.headroom import Persistence, Static
from forecasting.simulator.many import Batch, Run
from forecasting.simulator.replay import replay
from forecasting.simulator.requests import Requests
from forecasting.simulator.world import World

SPAN_S = 1200
GOAL = 0.02


@dataclass(frozen=True, slots=True)
class Pair:
    """One autoscaler in both modes. ttft_s, tpot_s: 99th percentiles of the exact one."""

    name: str
    exact: float
    fluid: float
    exact_hours: float
    fluid_hours: float
    ttft_s: float | None
    tpot_s: float | None


def compare(requests: Requests, world: World, sizing: Sizing) -> list[Pair]:
    """Fleets at 95 %, 85 % and 70 % of what a replica carries on average, and persistence with headroom."""
    mean = len(requests) / requests.duration_s / sizing.requests_per_s
    tight = max(math.floor(mean / 0.95), 1)
    sizes = list(dict.fromkeys([tight, max(math.ceil(mean / 0.85), 1), max(math.ceil(mean / 0.7), 1)]))
    makes: list[tuple[str, Callable[[], Autoscaler]]] = [
        (f"static, {n} replicas", lambda n=n: Static(n))  # type: ignore[misc]
        for n in sizes
    ]
    makes.append(("persistence × 1.15", lambda: Persistence(sizing, 1.15, 60.0, 300.0)))
    start = max(math.ceil(1.15 * mean), 1)
    return [_pair(name, make, requests, world, n) for (name, make), n in zip(makes, [*sizes, start], strict=True)]


def _pair(name: str, make: Callable[[], Autoscaler], requests: Requests, world: World, replicas: int) -> Pair:
    exact = replay(requests, world, make(), replicas=replicas).outcome
    fluid = Batch([Run(world, make(), 0, replicas)], [per_second(requests)]).run()[0]
    return Pair(
        name,
        exact.attainment,
        fluid.attainment,
        exact.gpu_hours,
        fluid.gpu_hours,
        exact.ttft_p99_s,
        exact.tpot_p99_s,
    )


def rows_of(workload: str, pairs: Sequence[Pair]) -> list[Row]:
    """Two rows a pair: the difference in attainment, and in GPU-hours."""
    name = f"fluid against exact: {workload}"
    rows = []
    for pair in pairs:
        said = f"{pair.name}: exact {pair.exact:.2%}, fluid {pair.fluid:.2%}"
        rows.append(Row(name, said, "difference", abs(pair.exact - pair.fluid), goal=GOAL))
        ratio = abs(pair.fluid_hours / pair.exact_hours - 1)
        rows.append(Row(name, f"{pair.name}: GPU-hours", "difference", ratio, goal=GOAL))
        if pair.ttft_s is not None and pair.tpot_s is not None:
            rows.append(Row(name, f"{pair.name}: TTFT p99, exact", "s", pair.ttft_s))
            rows.append(Row(name, f"{pair.name}: TPOT p99, exact", "ms", 1e3 * pair.tpot_s))
    return rows
