"""The next minutes of a service: as far above the present as its load rose before, and never less than is expected.

What a worker that is asked for now must carry comes within minutes, and a forecast in steps of ten says of them little
more than their mean. So the operator bounds them by `growth`, learned from the minutes of two days, over the peak of
the last five; the forecast's median stands under it, which sees a rise coming that has not begun. Knows no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from forecasting.errors import HistoryTooShort
from forecasting.growth import BEHIND_S, Growth, learn, peaks_of
from forecasting.policy import LoadForecast
from forecasting.series import DAY_S, Array
from forecasting.standing import SAID_LEVELS, Forecasted

STEP_S: Final = 60.0
LEARNED_S: Final = 2 * DAY_S
PRESENT_S: Final = BEHIND_S
STALE_S: Final = 180.0
"""After the newest minute that was counted: then nobody knows where the load stands, and the forecast has its say."""
BEYOND_S: Final = 300.0
"""After the lead time, as far as a decision looks."""
EXPECTED: Final = 0.5
IDLE_SHARE: Final = 0.1
"""Of the mean load: what begins from less begins from nothing, and is no measure of how a load grows."""
LEARN_EVERY_S: Final = 3600.0
"""How far loads rise within minutes does not change within one."""
TRY_EVERY_S: Final = 600.0
"""While too little is known."""
SETTLED_S: Final = 20.0
"""After the end of a minute, until the last scrape of it is in the history."""


@dataclass(frozen=True, slots=True)
class Present:
    """The highest rate of requests in the last PRESENT_S, and how much work one request is. at_s: where the newest
    minute ends that was counted."""

    at_s: float
    requests_per_s: float
    work_each: float


def learned(arrivals: Array, lead_time_s: float) -> Growth | None:
    """From the requests of each minute, (n,) with NaN for gaps; None of too few."""
    minutes = math.ceil((lead_time_s + BEYOND_S + STALE_S) / STEP_S)
    try:
        peaks = peaks_of(arrivals / STEP_S, STEP_S)
        return learn(peaks, len(arrivals), minutes, levels=SAID_LEVELS, least_share=IDLE_SHARE)
    except HistoryTooShort:
        return None


def is_due(growth: Growth | None, learned_s: float, lead_time_s: float, now_s: float) -> bool:
    """Whether to learn anew: the lead time has become longer, or enough time has passed."""
    if growth is not None and len(growth.ratios) * STEP_S < lead_time_s + BEYOND_S:
        return True
    every_s = TRY_EVERY_S if growth is None else LEARN_EVERY_S
    return not 0 <= now_s - learned_s < every_s  # A clock may be set back.


def settled_s(now_s: float) -> float:
    """The end of the newest minute that is known whole."""
    return math.floor((now_s - SETTLED_S) / STEP_S) * STEP_S


def present_of(arrivals: Array, end_s: float, work_each: float) -> Present | None:
    """From the requests of each minute up to `end_s`, PRESENT_S of them at least; None where all is a gap."""
    last = arrivals[-round(PRESENT_S / STEP_S) :].tolist()
    known = [minute for minute, each in enumerate(last) if each == each]
    if not known:
        return None
    newest_s = end_s - (len(last) - 1 - known[-1]) * STEP_S
    return Present(newest_s, max(last[minute] for minute in known) / STEP_S, work_each)


def sharpened(
    said: Forecasted, growth: Growth | None, present: Present | None, lead_time_s: float, now_s: float
) -> Forecasted:
    """The same with the next minutes told by growth, where there is something to grow from and it reaches so far."""
    if said.forecast is None or growth is None or present is None or present.requests_per_s < growth.least:
        return said
    if not 0 <= now_s - present.at_s <= STALE_S:
        return said
    if present.at_s + len(growth.ratios) * STEP_S < now_s + lead_time_s + BEYOND_S:
        return said  # The lead time has become longer since it was learned.
    if not _is_sound(said.forecast):
        return said  # What is broken is not mended here: the policy says what is wrong with it.
    return replace(said, forecast=_over(said.forecast, growth, present))


def _is_sound(forecast: LoadForecast) -> bool:
    return all(0.0 <= value < math.inf for row in forecast.values for value in row)


def _over(forecast: LoadForecast, growth: Growth, present: Present) -> LoadForecast:
    rows = present.work_each * growth.quantiles(present.requests_per_s)
    most = math.inf if forecast.plausible_max is None else forecast.plausible_max
    values = []
    for minute, row in enumerate(rows.tolist()):
        expected = _expected(forecast, present.at_s + minute * STEP_S)
        values.append(tuple(min(round(max(value, expected), 3), most) for value in row))
    return replace(forecast, issued_s=present.at_s, step_s=STEP_S, levels=SAID_LEVELS, values=tuple(values))


def _expected(forecast: LoadForecast, at_s: float) -> float:
    step = math.floor((at_s - forecast.issued_s) / forecast.step_s)
    return forecast.values[step][forecast.levels.index(EXPECTED)] if 0 <= step < len(forecast.values) else 0.0
