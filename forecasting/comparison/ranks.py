"""Sequential rank tests of two histograms over the same buckets: is the candidate's slower, longer, or neither?

Each batch gives increments of log evidence, one for each alternative; `forecasting.comparison.evidence` makes verdicts
of their sums. A tolerance is a shift of the candidate by whole buckets, which stand in a fixed ratio. Observations of
one batch are taken as exchangeable: what slows both revisions at once cancels, what comes in clusters does not.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from forecasting.comparison.tilt import Array, log_ratios

_TILTS: Final = np.array([0.4, 0.8, 1.6, 3.2, 6.4])
"""From a shift that takes a thousand requests to see to one that takes a dozen."""
ALTERNATIVES: Final = len(_TILTS)


def above(stable: Array, candidate: Array, tolerated: int) -> Array:
    """Evidence that the candidate's values are higher by more than `tolerated` buckets.

    stable, candidate: (..., buckets) counts of one batch. Returns (..., ALTERNATIVES).
    """
    return _shifted(stable, candidate, -tolerated, _TILTS)


def below(stable: Array, candidate: Array, margin: int) -> Array:
    """Evidence that they are lower than those of stable would be, raised by `margin` buckets."""
    return _shifted(stable, candidate, -margin, -_TILTS)


def apart(stable: Array, candidate: Array, tolerated: int) -> Array:
    """Evidence that they are higher or lower by more than `tolerated` buckets: (..., 2 × ALTERNATIVES), to be mixed."""
    lower = _shifted(stable, candidate, tolerated, -_TILTS)
    return np.concatenate((above(stable, candidate, tolerated), lower), axis=-1)


def within(stable: Array, candidate: Array, margin: int) -> Array:
    """Evidence that they are neither: (..., 2 × ALTERNATIVES), of which each half has to convince."""
    higher = _shifted(stable, candidate, margin, _TILTS)
    return np.concatenate((below(stable, candidate, margin), higher), axis=-1)


def _shifted(stable: Array, candidate: Array, buckets: int, tilts: Array) -> Array:
    moved = shifted(candidate, buckets)
    pool = stable + moved
    total = np.maximum(pool.sum(-1, keepdims=True), 1.0)
    midranks = (np.cumsum(pool, axis=-1) - pool / 2) / total - 0.5
    return log_ratios(moved, pool, midranks, tilts)


def shifted(counts: Array, buckets: int) -> Array:
    """Every observation `buckets` higher, or lower when negative; the outermost buckets keep what would leave."""
    if buckets == 0:
        return counts
    if buckets < 0:
        return shifted(counts[..., ::-1], -buckets)[..., ::-1]
    moved = np.zeros_like(counts)
    moved[..., buckets:] = counts[..., :-buckets]
    moved[..., -1] += counts[..., -buckets:].sum(-1)
    return moved
