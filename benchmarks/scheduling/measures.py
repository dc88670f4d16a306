"""From what became of requests to numbers: attainment, goodput, fairness, the objective. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Sequence as Many

import numpy as np

from benchmarks.scheduling.machine import Fate, Run
from worker_image.engine.scheduler.objective import Served, cost, jain
from worker_image.engine.standing import CLASS_TTFT_S

MOST_TPOT_S = 0.1
"""Mean time per output token, for P0 to P2; P3 is best effort."""


def ttft_s(fate: Fate) -> float:
    """Infinite where no token came."""
    return float("inf") if fate.first_s is None else fate.first_s - fate.asked.at_s


def tpot_s(fate: Fate) -> float:
    """Mean between tokens, stops by preemption included; infinite where the answer did not end."""
    if fate.done_s is None or fate.first_s is None:
        return float("inf")
    return (fate.done_s - fate.first_s) / max(fate.asked.output_tokens - 1, 1)


def attained(fate: Fate) -> bool:
    in_time = ttft_s(fate) <= CLASS_TTFT_S[fate.asked.priority]
    return in_time and fate.done_s is not None and (fate.asked.priority == 3 or tpot_s(fate) <= MOST_TPOT_S)


def attainment(fates: Many[Fate]) -> float:
    return sum(map(attained, fates)) / len(fates)


def of_class(run: Run, priority: int) -> list[Fate]:
    return [fate for fate in run.fates if fate.asked.priority == priority]


def goodput_per_s(run: Run) -> float:
    return sum(map(attained, run.fates)) / run.ended_s


def utilisation(run: Run) -> float:
    return run.busy_s / run.ended_s


def objective(run: Run) -> float:
    """Σ(delay ÷ SLA)² + λ · variance, a request, delays being times to first token."""
    served = [Served(ttft_s(fate), CLASS_TTFT_S[fate.asked.priority]) for fate in run.fates if fate.first_s is not None]
    return cost(served) / len(served)


def quantile(values: Iterable[float], level: float) -> float | None:
    """None where it is not finite: some never came."""
    found = float(np.quantile(np.array(list(values)), level, method="higher"))
    return found if np.isfinite(found) else None


def fair_shares(demands: Many[float], total: float) -> list[float]:
    """Max-min fair: nobody gets more than it asks for, and what is left is shared equally."""
    shares, left = [0.0] * len(demands), total
    open_ones = sorted(range(len(demands)), key=lambda i: demands[i])
    while open_ones:
        equal = left / len(open_ones)
        at = open_ones.pop(0)
        shares[at] = min(demands[at], equal)
        left -= shares[at]
    return shares


def fairness(fates: Many[Fate]) -> float:
    """Jain's index of what each tenant was served ÷ its max-min fair share of all that was served."""
    demand: defaultdict[str, float] = defaultdict(float)
    served: defaultdict[str, float] = defaultdict(float)
    for fate in fates:
        demand[fate.asked.tenant] += fate.asked.input_tokens + fate.asked.output_tokens
        served[fate.asked.tenant] += fate.served
    tenants = sorted(demand)
    shares = fair_shares([demand[each] for each in tenants], sum(served.values()))
    return jain([served[each] / share for each, share in zip(tenants, shares, strict=True) if share])
