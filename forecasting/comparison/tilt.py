"""Two samples that were drawn beside each other: how much better a shift explains who drew what than chance does.

Of a pool of observations, each with a score, one sample is the candidate's. If both are alike, every subset of that
size was as likely. An alternative makes a subset likelier by exp(tilt × its sum of scores). The ratio of the two
probabilities has expectation 1 under chance, whatever the observations are: its products over batches are test
martingales, and their averages over tilts are the mixtures of an mSPRT. With the scores 0 and 1 this is the exact
conditional test of an odds ratio; with ranks it is a sequential rank test.

Source: R. A. Fisher (1935) and D. R. Cox (1970) for the conditional likelihood; H. E. Daniels, Saddlepoint
approximations in statistics (1954), for its normaliser; Johari et al., Always valid inference (2022), for the mixture.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Array = npt.NDArray[np.float64]

_ENOUGH_VARIANCE: Final = 12.0
"""From here on the saddlepoint approximation errs by less than 1e-3 of the probability."""
_NEWTON_STEPS: Final = 10


def log_ratios(candidate: Array, pool: Array, scores: Array, tilts: Array) -> Array:
    """The logarithm of the likelihood ratio of each tilt against chance.

    candidate, pool: (..., buckets) counts, the candidate's being part of the pool's; scores: (..., buckets);
    tilts: (tilts,). Returns (..., tilts); 0 where the candidate has none or all of the pool.
    """
    used = pool.reshape(-1, pool.shape[-1]).any(0)
    if not used.any():
        return np.zeros((*pool.shape[:-1], len(tilts)))
    candidate, pool, scores = candidate[..., used], pool[..., used], scores[..., used]
    drawn, total = candidate.sum(-1), pool.sum(-1)
    telling = (drawn > 0) & (drawn < total)
    # Where nothing can be told, any numbers that do not divide by zero serve; the result is masked.
    drawn_safe = np.where(telling, drawn, 1.0)
    pool_safe = np.where(telling[..., None], pool, 2.0)
    weights = tilts[:, None] * scores[..., None, :]
    tilted = _log_normaliser(weights, pool_safe[..., None, :], drawn_safe[..., None])
    chance = _log_subsets(pool_safe.sum(-1), drawn_safe)
    sums = (candidate * scores).sum(-1)
    return np.where(telling[..., None], tilts * sums[..., None] - (tilted - chance[..., None]), 0.0)


def _log_subsets(total: Array, drawn: Array) -> Array:
    return np.asarray(gammaln(total + 1) - gammaln(drawn + 1) - gammaln(total - drawn + 1))


def _log_normaliser(weights: Array, pool: Array, drawn: Array) -> Array:
    """The log of the sum of exp(sum of weights) over all subsets of size `drawn`: a coefficient of a polynomial.

    weights: (..., buckets), pool: broadcastable to it, drawn: broadcastable to (...,).
    """
    offset = _saddle(weights, pool, drawn)
    logits = weights - offset[..., None]
    shares = 1.0 / (1.0 + np.exp(-logits))
    whole = (pool * np.logaddexp(0.0, logits)).sum(-1) + drawn * offset
    return np.asarray(whole + _log_probability(shares, np.broadcast_to(pool, shares.shape), drawn))


def _saddle(weights: Array, pool: Array, drawn: Array) -> Array:
    """The offset at which independent draws of each observation would take `drawn` of them on average."""
    total = pool.sum(-1)
    logit = np.log(drawn / (total - drawn))
    low, high = weights.min(-1) - logit, weights.max(-1) - logit
    offset = (low + high) / 2
    for _ in range(_NEWTON_STEPS):
        shares = 1.0 / (1.0 + np.exp(offset[..., None] - weights))
        excess = (pool * shares).sum(-1) - drawn
        low, high = np.where(excess > 0, offset, low), np.where(excess > 0, high, offset)
        newton = offset + excess / np.maximum((pool * shares * (1 - shares)).sum(-1), 1e-300)
        offset = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
    return np.asarray(offset)


def _log_probability(shares: Array, pool: Array, drawn: Array) -> Array:
    """That independent draws take exactly `drawn`, their mean: by its saddlepoint, or exactly where that is too few."""
    spread = shares * (1 - shares)
    variance = (pool * spread).sum(-1)
    third = (pool * spread * (1 - 2 * shares)).sum(-1)
    fourth = (pool * spread * (1 - 6 * spread)).sum(-1)
    safe = np.maximum(variance, _ENOUGH_VARIANCE)
    correction = np.log1p(fourth / (8 * safe**2) - 5 * third**2 / (24 * safe**3))
    found = np.asarray(-0.5 * np.log(2 * np.pi * safe) + correction)
    drawn = np.broadcast_to(drawn, variance.shape)
    for at in zip(*np.nonzero(variance < _ENOUGH_VARIANCE), strict=True):
        found[at] = _exact_log_probability(shares[at], pool[at], float(drawn[at]), float(variance[at]))
    return found


def _exact_log_probability(shares: Array, pool: Array, drawn: float, variance: float) -> float:
    """By the characteristic function, at as many points as keep the wrapped tails out of sight."""
    points = int(min(pool.sum() + 1, drawn + 12 * np.sqrt(variance) + 60))
    angles = 2j * np.pi * np.arange(points) / points
    logs = (pool * np.log1p(shares * np.expm1(angles)[:, None])).sum(-1)
    return float(np.log(np.exp(logs - angles * drawn).real.mean()))
