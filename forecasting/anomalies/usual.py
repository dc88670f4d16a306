"""How improbable the last value of a load is beside what is usual for its time of the day, from its history alone.

The score of a value is its distance from the median of the same time of the last seven days, in robust deviations of
those; in the first day, of the day before. How improbable a score is, is judged by the scores before it (surprise.py),
so that a threshold is a rate of false alarms, whatever the load is like. Keeps nothing: a restart says the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from forecasting.anomalies.scores import MAD_TO_SIGMA, MIN_KNOWN
from forecasting.anomalies.surprise import FEWEST, Surprise
from forecasting.series import DAY_S, Array, Series

DAYS: Final = 7
AROUND: Final = 2
"""Steps to each side of the same time of a day."""


def distances(series: Series) -> Array:
    """(n,) value − what is usual, in robust deviations, signed; NaN where too little is known."""
    return _judged(series)[1]


def improbability(series: Series) -> tuple[float, float] | None:
    """Of the last value: how far it is from the usual, and -log10 of how probable such a distance is.

    None when it is a gap or fewer than 50 values before it could be judged.
    """
    found = improbabilities(series)
    if not len(series) or np.isnan(found[-1]):
        return None
    return float(_judged(series)[0][-1]), float(found[-1])


def improbabilities(series: Series) -> Array:
    """(n,) of each value, judged by those before it only: -log10 of how probable its distance from the usual is."""
    surprise, out = Surprise(), np.full(len(series), np.nan)
    for at, score in enumerate(np.abs(distances(series)).tolist()):
        if score == score:  # not a gap
            found = surprise.of(score)
            out[at] = found if surprise.seen > FEWEST else np.nan
    return out


def _judged(series: Series) -> tuple[Array, Array]:
    values = series.values
    day = max(round(DAY_S / series.step_s), 1)
    past = np.concatenate((_same_time(values, day), np.full((len(values), 1), np.nan)), axis=1)
    few = (~np.isnan(past)).sum(axis=1) < MIN_KNOWN
    if few.any():
        recent = _before(values, min(day, 144))
        wide = np.full((len(values), max(past.shape[1], recent.shape[1])), np.nan)
        wide[:, : past.shape[1]] = past
        wide[few] = np.nan
        wide[few, : recent.shape[1]] = recent[few]
        past = wide
    enough = (~np.isnan(past)).sum(axis=1) >= MIN_KNOWN
    filled = np.where(enough[:, None], past, 0.0)
    middle = np.nanmedian(filled, axis=1)
    spread = MAD_TO_SIGMA * np.nanmedian(np.abs(filled - middle[:, None]), axis=1)
    # A load that hardly ever moves must not make its rounding an event: a hundredth of the usual level, at least.
    floor = np.maximum(0.01 * np.abs(middle), 1e-9)
    away = np.where(enough, values - middle, np.nan)
    return away, away / np.maximum(spread, floor)


def _same_time(values: Array, day: int) -> Array:
    """(n, days × around) the values around the same time of the days before."""
    offsets = [n * day + around for n in range(1, DAYS + 1) for around in range(-AROUND, AROUND + 1)]
    return _shifted(values, [one for one in offsets if one > 0])


def _before(values: Array, n: int) -> Array:
    return _shifted(values, list(range(1, n + 1)))


def _shifted(values: Array, offsets: list[int]) -> Array:
    out = np.full((len(values), len(offsets)), np.nan)
    for column, offset in enumerate(offsets):
        if offset < len(values):
            out[offset:, column] = values[: len(values) - offset]
    return out
