"""Who asks for what and when: Azure-conversation lengths, classes and tenants drawn by a seed. No scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cli.trace_files import read_trace
from forecasting.simulator.requests import Requests

CLASS_SHARES = (0.1, 0.3, 0.4, 0.2)
"""P0 to P3."""
N_TENANTS = 10
MADE_REQUESTS = 4000
BURST_S, BURST, LULL = 60.0, 2.2, 0.4
"""A third of each minute brings 2.2 times the mean rate, the rest 0.4 times."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `output_tokens` are known to the machine alone."""

    at_s: float
    input_tokens: int
    output_tokens: int
    priority: int
    tenant: str


@dataclass(frozen=True, slots=True)
class Lengths:
    """Pairs of prompt and answer, and where they are from."""

    pairs: tuple[tuple[int, int], ...]
    source: str


def lengths(trace: Path | None, longest: int) -> Lengths:
    """Of the Azure conversation trace, or made ones of its shape; pairs beyond `longest` tokens are left out."""
    if trace is None:
        return Lengths(tuple(_made(longest)), "made here (log-normal, medians 900 and 130 tokens)")
    found = read_trace(trace)
    assert isinstance(found, Requests), "a trace of single requests is needed"
    pairs = zip(found.input_tokens.tolist(), found.output_tokens.tolist(), strict=True)
    return Lengths(tuple(pair for pair in pairs if sum(pair) < longest), "Azure LLM inference 2023, conversation")


def _made(longest: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(7)
    inputs = np.clip(rng.lognormal(np.log(900), 0.9, MADE_REQUESTS), 4, longest // 2).astype(int)
    outputs = np.clip(rng.lognormal(np.log(130), 0.9, MADE_REQUESTS), 2, longest // 2 - 1).astype(int)
    return list(zip(inputs.tolist(), outputs.tolist(), strict=True))


def mixed(lengths: Lengths, rate_per_s: float, duration_s: float, seed: int) -> list[Asked]:
    """Four classes and ten equal tenants; bursts above what one replica carries, lulls below."""
    rng = np.random.default_rng(seed)
    times = _arrivals(rng, rate_per_s, duration_s, lambda at: BURST if at % BURST_S < BURST_S / 3 else LULL)
    classes = rng.choice(len(CLASS_SHARES), len(times), p=CLASS_SHARES)
    tenants = rng.integers(0, N_TENANTS, len(times))
    return _asked(rng, lengths, times, classes.tolist(), [f"t{i}" for i in tenants])


def flood(lengths: Lengths, capacity_per_s: float, duration_s: float, seed: int) -> list[Asked]:
    """Nine tenants ask for 6 % of the capacity each; the tenth for twice all of it, from a quarter of the time on."""
    rng, asked = np.random.default_rng(seed), []
    for number in range(N_TENANTS):
        share, begins = (2.0, 0.25) if number == 0 else (0.06, 0.0)
        times = _arrivals(rng, share * capacity_per_s, duration_s, _from(begins * duration_s))
        asked += _asked(rng, lengths, times, [1] * len(times), [f"t{number}"] * len(times))
    return sorted(asked, key=lambda each: each.at_s)


def _from(begin_s: float) -> Callable[[float], float]:
    return lambda at: float(at >= begin_s)


def steady(lengths: Lengths, rate_per_s: float, duration_s: float, seed: int) -> list[Asked]:
    """One class, one tenant, a constant mean rate."""
    rng = np.random.default_rng(seed)
    times = _arrivals(rng, rate_per_s, duration_s, lambda at: 1.0)
    return _asked(rng, lengths, times, [2] * len(times), ["t0"] * len(times))


def at_once(lengths: Lengths, count: int, seed: int) -> list[Asked]:
    rng = np.random.default_rng(seed)
    return _asked(rng, lengths, [0.0] * count, [2] * count, ["t0"] * count)


def _arrivals(
    rng: np.random.Generator, rate_per_s: float, duration_s: float, shape: Callable[[float], float]
) -> list[float]:
    """Poisson, thinned to `shape` times the rate (at most BURST)."""
    times, at = [], 0.0
    while (at := at + rng.exponential(1 / (BURST * rate_per_s))) < duration_s:
        if rng.random() < shape(at) / BURST:
            times.append(at)
    return times


def _asked(
    rng: np.random.Generator, lengths: Lengths, times: list[float], classes: list[int], tenants: list[str]
) -> list[Asked]:
    chosen = rng.integers(0, len(lengths.pairs), len(times))
    return [
        Asked(at_s, lengths.pairs[i][0], lengths.pairs[i][1], priority, tenant)
        for at_s, i, priority, tenant in zip(times, chosen.tolist(), classes, tenants, strict=True)
    ]
