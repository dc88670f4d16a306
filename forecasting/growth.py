"""How high the load may be some minutes ahead, from how loads grew before: what the lead time of a scale-up needs.

A few minutes ahead nothing beats the present as a point forecast; what matters is how far above it the load may go. So
the forecast is the peak of the last minutes times the quantiles of `peak ahead ÷ peak behind` over the last days, which
calibrates itself: there is no headroom to guess. Seasons, trends and volatility as regressors were tried and took no
less capacity for a coverage of 99 %. For hours and days ahead use `refresh`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.series import WEEK_S, Array

LEVELS: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
MEAN_S: Final = 60.0
BEHIND_S: Final = 300.0
LEAST_ROWS: Final = 60
UNIT_SHARE: Final = 0.01
"""Part of the mean load that is added to both sides of a ratio: of an empty load there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """mean: (n,) load over the last MEAN_S up to each step; behind: (n,) highest of it in the last BEHIND_S.

    NaN where nothing is known; both look back only.
    """

    step_s: float
    unit: float
    mean: Array
    behind: Array


def peaks_of(values: Array, step_s: float, unit: float | None = None) -> Peaks:
    """Of loads at even steps, NaN where there is a gap. `unit` of an earlier call keeps two calls comparable.

    Raises:
        HistoryTooShort: nothing was observed.
        BadSetting: the steps are longer than a minute.
    """
    if step_s > MEAN_S:
        raise BadSetting(f"Growth: steps of {step_s:.0f} s are too coarse; at most {MEAN_S:.0f} s are allowed.")
    if unit is None:
        if np.isnan(values).all():
            raise HistoryTooShort("Growth: no load was observed; one step is needed.")
        unit = max(UNIT_SHARE * float(np.nanmean(values)), 1e-9)
    known = ~np.isnan(values)
    count = _trailing(known.astype(np.float64), round(MEAN_S / step_s)).sum(axis=1)
    total = _trailing(np.where(known, values, 0.0), round(MEAN_S / step_s)).sum(axis=1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    behind = _trailing(np.where(np.isnan(mean), -np.inf, mean), round(BEHIND_S / step_s), -np.inf).max(axis=1)
    return Peaks(step_s, unit, mean, np.where(np.isfinite(behind), behind, np.nan))


def _trailing(values: Array, length: int, before: float = 0.0) -> Array:
    """(n, length) each step with those before it."""
    return sliding_window_view(np.concatenate([np.full(length - 1, before), values]), length)


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """ratios: (minutes, levels) of the peak within so many minutes ahead over the peak behind. least: the load below
    which nothing was learned."""

    ratios: Array
    unit: float
    least: float = 0.0

    def quantiles(self, behind: float) -> Array:
        """(minutes, levels) of the highest load from now to the end of each minute ahead, the present peak given.

        Raises:
            BadSetting: the present peak is not known.
        """
        if not np.isfinite(behind):
            raise BadSetting("Growth: the newest loads are gaps; there is no level to grow from.")
        grown: Array = np.maximum(self.ratios * (behind + self.unit) - self.unit, 0.0)
        return grown


def learn(
    peaks: Peaks,
    until: int,
    minutes: int,
    delay_s: float = 0.0,
    window_s: float = WEEK_S,
    levels: tuple[float, ...] = LEVELS,
    least_share: float = 0.0,
) -> Growth:
    """From the `window_s` before step `until`; nothing from that step on is read.

    delay_s: how old the newest load is when it is looked at, so that growth is counted from then. least_share: of the
    mean load; a peak behind that is lower is idleness, and says nothing of how a load grows.

    Raises:
        HistoryTooShort: fewer than LEAST_ROWS steps can be learned from.
    """
    a_minute, delay = round(MEAN_S / peaks.step_s), round(delay_s / peaks.step_s)
    first = max(until - round(window_s / peaks.step_s), 0)
    rows = np.arange(first, max(until - delay - minutes * a_minute, first))
    mean = peaks.mean[:until]
    least = least_share / UNIT_SHARE * peaks.unit
    busy = peaks.behind[rows] >= least
    highest, ratios = np.full(len(rows), -np.inf), []
    for minute in range(minutes):
        for step in range(a_minute):
            highest = np.fmax(highest, mean[rows + delay + minute * a_minute + step + 1])
        ratio = (highest + peaks.unit) / (peaks.behind[rows] + peaks.unit)
        known = ratio[busy & np.isfinite(ratio)]
        if len(known) < LEAST_ROWS:
            raise HistoryTooShort(
                f"Growth: {len(known)} steps of {peaks.step_s:.0f} s are known; {LEAST_ROWS} are needed."
                " Scale by the measured load until then."
            )
        ratios.append(np.quantile(known, levels))
    return Growth(np.array(ratios), peaks.unit, least)
