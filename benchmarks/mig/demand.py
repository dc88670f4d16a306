"""What is asked of the fleet, step by step: random mixes, and the request rates of a production trace.

A step is ten minutes. A demand says how many workers of each profile and class are wanted then, whoever asks.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.mig.fleet import Kind, slices

STEP_S = 600.0
PROFILES = ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
CLASS_SHARES = (0.15, 0.25, 0.3, 0.3)
"""Of the services: P0 to P3."""


@dataclass(frozen=True, slots=True)
class Demands:
    """A workload: the demand of each step, scaled so that its mean is `load` of the fleet's compute slices."""

    name: str
    steps: tuple[Counter[Kind], ...]


def random_services(rng: random.Random, shares: Sequence[float], count: int) -> list[Kind]:
    """Services by profile and class; `shares` is the share of services of each profile."""
    profiles = rng.choices(PROFILES, shares, k=count)
    classes = rng.choices(range(len(CLASS_SHARES)), CLASS_SHARES, k=count)
    return list(zip(profiles, classes, strict=True))


def from_rates(name: str, kinds: Sequence[Kind], rates: np.ndarray[Any, Any], gpus: int, load: float) -> Demands:
    """rates: (services, steps) ≥ 0. Workers follow the rates; every service is as large as every other on average."""
    each = np.array([slices({kind: 1}) for kind in kinds])
    mean = rates.mean(axis=1, keepdims=True)
    relative = np.divide(rates, mean, out=np.zeros_like(rates), where=mean > 0)
    per_service = load * 7 * gpus / len(kinds) / each
    steps = []
    for column in (relative * per_service[:, None]).T:
        demand: Counter[Kind] = Counter()
        for kind, workers in zip(kinds, column, strict=True):
            demand[kind] += math.floor(workers + 0.5)
        steps.append(demand)
    return Demands(name, tuple(steps))


def random_rates(rng: np.random.Generator, services: int, steps: int) -> np.ndarray[Any, Any]:
    """Each service's own day: a wave of random height and phase, and a random walk on top."""
    at = np.arange(steps) / 144 * 2 * math.pi
    phase, height = rng.uniform(0, 2 * math.pi, (services, 1)), rng.uniform(0.2, 0.9, (services, 1))
    walk = np.exp(np.cumsum(rng.normal(0, 0.08, (services, steps)), axis=1))
    return (1 + height * np.sin(at + phase)) * walk
