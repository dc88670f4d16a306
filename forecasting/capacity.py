"""How much load one replica carries while it holds its latency targets, and how many replicas a load needs.

From a profile and the lengths of requests: the largest steady rate at which the share of requests that meet both
targets is still the wanted one (by the fluid model of the simulator, so that what is planned is what is simulated). The
unit of work is one output token; an input token counts as the part that it costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from forecasting.errors import BadSetting
from forecasting.profile import Profile
from forecasting.simulator.arrivals import Lengths
from forecasting.simulator.fluid import Pools, step
from forecasting.simulator.many import share_good
from forecasting.simulator.world import Slo

# A steady load is reached when the longest answers have come and gone.
SETTLE_S = 60
LONGEST_SETTLE_S = 600
RATES = 96


@dataclass(frozen=True, slots=True)
class ReplicaCapacity:
    """One replica at the most that holds the targets: requests/s, work/s (output tokens), requests and KV it holds."""

    requests_per_s: float
    work_per_s: float
    input_weight: float
    running: float
    kv_use: float
    message: str


def replicas_for(work_per_s: float, each_per_s: float, *, peak_factor: float = 1.0, reserve: int = 0) -> int:
    """Replicas for a load: ⌈load × peak_factor ÷ capacity⌉ + reserve; peak × 1.5 plans for what was never seen."""
    # Less than a thousandth of one more is rounding of floats, not load.
    return math.ceil(work_per_s * peak_factor / each_per_s - 1e-3) + reserve


def capacity_of(profile: Profile, lengths: Lengths, slo: Slo) -> ReplicaCapacity:
    """The most that one replica holds.

    Raises:
        BadSetting: not even a single request at a time meets the targets.
    """
    best, running = best_rate(profile, lengths, slo)
    more_input = best_rate(profile, _longer(lengths, inputs=1.1), slo)[0]
    more_output = best_rate(profile, _longer(lengths, outputs=1.1), slo)[0]
    # Seconds of a replica that one more token costs: 1/rate is the time of a request, and these are its slopes.
    input_s = max((1 / more_input - 1 / best) / (0.1 * lengths.mean_input), 0.0)
    output_s = max((1 / more_output - 1 / best) / (0.1 * (lengths.decode + 1)), 1e-12)
    weight = min(input_s / output_s, 1.0)
    work = best * ((lengths.decode + 1) + weight * lengths.mean_input)
    kv = running * lengths.resident / profile.kv_tokens
    return ReplicaCapacity(
        best,
        work,
        weight,
        running,
        kv,
        f"{best:.3g} requests/s × ({lengths.decode + 1:.0f} output + {weight:.2f} × {lengths.mean_input:.0f} input"
        f" tokens) = {work:.4g} tok/s each",
    )


def _longer(lengths: Lengths, *, inputs: float = 1.0, outputs: float = 1.0) -> Lengths:
    return Lengths(
        lengths.inputs * inputs,
        lengths.outputs * outputs,
        lengths.resident * inputs * 0.9 + lengths.resident * outputs * 0.1,
        lengths.decode * outputs,
        lengths.mean_input * inputs,
    )


def best_rate(profile: Profile, lengths: Lengths, slo: Slo) -> tuple[float, float]:
    """(requests/s, requests held) at the highest rate of a fine grid that meets the targets.

    Raises:
        BadSetting: not even a single request at a time meets them.
    """
    ceiling = 1.0 / (profile.delta_s * lengths.mean_input + profile.request_s + profile.beta_s * lengths.decode)
    rates = ceiling * np.linspace(1 / RATES, 1.0, RATES)
    pools = Pools.empty(RATES, profile)
    ready = np.ones(RATES)
    for _ in range(_settle_s(profile, lengths)):
        second = step(pools, ready, rates, rates * lengths.mean_input, profile, lengths)
    good = share_good([second], slo, lengths, profile.request_s)[0] >= slo.attainment
    if not good[0]:
        raise BadSetting(
            f"Capacity: {profile.model} on {profile.accelerator} cannot meet TTFT {slo.ttft_s:g} s and TPOT"
            f" {slo.tpot_s * 1e3:g} ms for {slo.attainment:.1%} of its requests even without load."
            " Loosen the targets or choose a faster accelerator."
        )
    best = int(np.argmin(good)) - 1 if not good.all() else RATES - 1
    held = pools.early[best] + pools.late[best] + pools.queued_requests[best]
    return float(rates[best]), float(max(held, 1.0))


def _settle_s(profile: Profile, lengths: Lengths) -> int:
    alone_s = profile.iteration_s(1, 0, lengths.resident) * float(lengths.outputs[-1])
    return min(max(SETTLE_S, math.ceil(2 * alone_s)), LONGEST_SETTLE_S)
