"""Filling of gaps for models that cannot skip them: inside of a history only, from the past only.

Nothing here makes the first or the last observation older or newer than it is, and nothing fills with zero.
"""

from __future__ import annotations

import numpy as np

from forecasting.series import Array


def carried(values: Array) -> Array:
    """Each gap holds the last observation before it; those before the first one stay gaps."""
    seen = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(values)), -1))
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan) if len(values) else values


def filled(values: Array, period: int | None = None, short: int = 2) -> Array:
    """A gap takes the value of one period before, itself filled; the first `short` of a run are carried.

    Reads the past only. The first period is carried too. Gaps before the first observation take that one, for there is
    nothing else to say.
    """
    gaps = np.isnan(values)
    if not gaps.any() or gaps.all():
        return values.copy()
    out = carried(values)
    if period is not None and period < len(values):
        long = gaps & (_run_position(gaps) >= short)
        for begin in range(period, len(values), period):
            at = np.flatnonzero(long[begin : begin + period]) + begin
            before = out[at - period]
            out[at] = np.where(np.isnan(before), out[at], before)
    return np.where(np.isnan(out), values[np.argmin(gaps)], out)


def _run_position(gaps: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many gaps lie directly before each gap."""
    index = np.arange(len(gaps))
    begin = np.maximum.accumulate(np.where(gaps, -1, index))
    return index - begin - 1
