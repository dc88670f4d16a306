"""Sequential tests of two error rates: an mSPRT over odds ratios, and one that they are close.

Source: of the second, Turner, Ly and Grünwald, Generic E-variables for exact sequential k-sample tests (2024): the
likelihood ratio of an alternative, chosen before the batch is seen, against the nearest point of the null hypothesis.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from forecasting.comparison.tilt import Array, log_ratios

_ODDS: Final = np.array([1.5, 2.0, 3.0, 6.0, 20.0])
ALTERNATIVES: Final = len(_ODDS)
_HALVINGS: Final = 50


def more(stable: Array, candidate: Array, tolerance: float) -> Array:
    """Evidence that the candidate's odds of an error are more than (1 + tolerance) times as high.

    stable, candidate: (..., 2) requests that went well and that failed, of one batch. Returns (..., ALTERNATIVES).
    """
    scores = np.broadcast_to(np.array([0.0, 1.0]), candidate.shape)
    tolerated = np.log1p(tolerance)
    ratios = log_ratios(candidate, stable + candidate, scores, np.append(tolerated + np.log(_ODDS), tolerated))
    return np.asarray(ratios[..., :-1] - ratios[..., -1:])


def no_more(stable: Array, candidate: Array, margin: float, before: Array) -> Array:
    """Evidence that its rate of errors is less than `margin` above stable's: (..., 1).

    before: (..., 2) what both saw before this batch, which gives the alternative: one rate for both.
    """
    rate = (before[..., 1] + 0.5) / (before.sum(-1) + 50.0)
    nearest = _nearest(rate, stable.sum(-1), candidate.sum(-1), margin)
    alike = _log_likelihood(stable + candidate, rate)
    null = _log_likelihood(stable, nearest) + _log_likelihood(candidate, nearest + margin)
    return np.asarray(alike - null)[..., None]


def _log_likelihood(counts: Array, rate: Array) -> Array:
    return np.asarray(counts[..., 0] * np.log1p(-rate) + counts[..., 1] * np.log(rate))


def _nearest(rate: Array, stable: Array, candidate: Array, margin: float) -> Array:
    """Of all pairs of rates that differ by `margin`, the lower one of the pair that is hardest to tell from `rate`."""
    low, high = np.full_like(rate, 1e-12), np.full_like(rate, 1 - margin - 1e-12)
    for _ in range(_HALVINGS):
        at = (low + high) / 2
        slope = stable * (at - rate) / (at * (1 - at))
        slope += candidate * (at + margin - rate) / ((at + margin) * (1 - at - margin))
        low, high = np.where(slope < 0, at, low), np.where(slope < 0, high, at)
    return np.asarray((low + high) / 2)
