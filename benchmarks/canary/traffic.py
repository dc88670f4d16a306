"""Simulated requests of two revisions, look by look: counts of errors and histograms over the gateway's buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from crds import contract

Array = npt.NDArray[np.float64]

CANDIDATE: Final = 100
"""Requests of the candidate between two looks."""
STABLE: Final = 900
LOOKS: Final = 40


@dataclass(frozen=True, slots=True)
class Revision:
    """How one revision behaves: log-normal latencies and lengths, independent requests."""

    error_rate: float = 0.01
    ttft: float = 1.0
    tpot: float = 1.0
    length: float = 1.0
    """Factors over 200 ms, 20 ms and 150 tokens."""


@dataclass(frozen=True, slots=True)
class Look:
    """What came in between two looks, for every run: `errors` (runs, 2) as right and wrong; the others (runs, buckets),
    and what a peer looks at that keeps no histogram: (runs, 3) number, sum and sum of squares."""

    errors: Array
    ttft: Array
    tpot: Array
    length: Array
    moments: dict[str, Array]

    def of(self, runs: npt.NDArray[np.bool_]) -> Look:
        """Of some of the runs."""
        return Look(self.errors[runs], self.ttft[runs], self.tpot[runs], self.length[runs], {})


def look(rng: np.random.Generator, revision: Revision, runs: int, requests: int) -> Look:
    """One look at `revision`."""
    wrong = rng.binomial(requests, revision.error_rate, runs).astype(float)
    drawn = {
        "ttft": 0.2 * revision.ttft * np.exp(rng.normal(0, 0.6, (runs, requests))),
        "tpot": 0.02 * revision.tpot * np.exp(rng.normal(0, 0.3, (runs, requests))),
        "length": np.ceil(150 * revision.length * np.exp(rng.normal(0, 0.7, (runs, requests)))),
    }
    bounds = {
        "ttft": contract.REVISION_TTFT_BOUNDS_S,
        "tpot": contract.REVISION_TPOT_BOUNDS_S,
        "length": contract.REVISION_OUTPUT_TOKENS_BOUNDS,
    }
    moments = {
        name: np.stack((np.full(runs, float(requests)), one.sum(1), (one**2).sum(1)), axis=-1)
        for name, one in drawn.items()
    }
    histograms = {name: _histogram(one, np.array(bounds[name])) for name, one in drawn.items()}
    return Look(np.stack((requests - wrong, wrong), axis=-1), **histograms, moments=moments)


def _histogram(values: Array, bounds: Array) -> Array:
    runs, width = len(values), len(bounds) + 1
    flat = np.searchsorted(bounds, values) + np.arange(runs)[:, None] * width
    return np.bincount(flat.ravel(), minlength=runs * width).reshape(runs, width).astype(float)
