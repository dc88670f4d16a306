"""Scores of a whole history, one number a value: how far from usual. NaN where nothing is known.

All but `seasonal_residual` look only at the values before. Thresholds are the caller's.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from forecasting.errors import BadSetting
from forecasting.series import Array, Series

MAD_TO_SIGMA = 1.4826
"""The median absolute deviation of a normal distribution is 1/1.4826 of its standard deviation."""
MIN_KNOWN = 5
"""Fewer values in a window, and there is no score."""


def k_sigma(values: Array, window: int) -> Array:
    """(n,) |value - mean| ÷ standard deviation, of the `window` values before it. A first difference of a constant: inf
    becomes the number of standard deviations of rounding, so it stays finite."""
    past = _before(values, window)
    known = (~np.isnan(past)).sum(axis=1)
    count = np.maximum(known, 1)
    mean = np.nansum(past, axis=1) / count
    spread = np.sqrt(np.nansum((past - mean[:, None]) ** 2, axis=1) / count)
    return _score(np.abs(values - mean), spread, mean, known)


def robust(values: Array, window: int) -> Array:
    """(n,) |value - median| ÷ (1.4826 × median absolute deviation), of the `window` values before it."""
    past = _before(values, window)
    known = (~np.isnan(past)).sum(axis=1)
    filled = np.where((known > 0)[:, None], past, 0.0)
    middle = np.nanmedian(filled, axis=1)
    spread = MAD_TO_SIGMA * np.nanmedian(np.abs(filled - middle[:, None]), axis=1)
    return _score(np.abs(values - middle), spread, middle, known)


def seasonal_residual(series: Series) -> Array:
    """(n,) the residual of the decomposition, in robust standard deviations of all residuals. Sees the future.

    Raises: HistoryTooShort.
    """
    # statsmodels takes 80 MiB, which nobody pays who does not ask for this.
    from forecasting.decomposition import decompose

    residual = decompose(series, robust=True).residual
    middle = float(np.nanmedian(residual))
    spread = MAD_TO_SIGMA * float(np.nanmedian(np.abs(residual - middle)))
    floor = 1e-9 * max(float(np.nanmax(series.values)), 1e-9)
    return np.abs(residual - middle) / max(spread, floor)


def page_hinkley(values: Array, warmup: int, drift: float = 0.5) -> Array:
    """(n,) the cumulative sum of how far the level has left that of the first `warmup` values, in either direction.

    In their standard deviations, less `drift` a step (Page 1954, two-sided CUSUM). About 8 is a change of level.
    Raises: BadSetting where nothing was observed in the warm-up.
    """
    head = values[:warmup][~np.isnan(values[:warmup])]
    if len(head) < 2:
        raise BadSetting(f"Page-Hinkley: {len(head)} values in a warm-up of {warmup}; at least 2 are needed.")
    scale = max(float(head.std()), 1e-9 * max(abs(float(head.mean())), 1e-9))
    up = down = 0.0
    out = np.full(len(values), np.nan)
    for at, moved in enumerate(((values - head.mean()) / scale).tolist()):
        if moved == moved:  # not a gap
            up, down = max(0.0, up + moved - drift), max(0.0, down - moved - drift)
            out[at] = max(up, down)
    return out


def conformal_p(scores: Array) -> Array:
    """(n,) of each score: (1 + earlier scores that are as high) ÷ (1 + earlier scores). Small is unusual.

    Uniform where the scores are exchangeable (Laxhammar and Falkman 2015), whatever they measure.
    """
    out = np.full(len(scores), np.nan)
    ordered = np.empty(0)
    for at, score in enumerate(scores):
        if np.isnan(score):
            continue
        place = int(np.searchsorted(ordered, score))
        out[at] = (1 + len(ordered) - place) / (1 + len(ordered))
        ordered = np.insert(ordered, place, score)
    return out


def _before(values: Array, window: int) -> Array:
    """(n, window) the values before each, NaN before the first."""
    if window < MIN_KNOWN:
        raise BadSetting(f"A window of {window} values was asked; at least {MIN_KNOWN} are needed.")
    return np.asarray(sliding_window_view(np.concatenate([np.full(window, np.nan), values]), window)[:-1])


def _score(distance: Array, spread: Array, centre: Array, known: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Array:
    floor = 1e-9 * np.maximum(np.abs(centre), 1e-9)
    return np.where(known >= MIN_KNOWN, distance / np.maximum(spread, floor), np.nan)
