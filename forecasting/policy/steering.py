"""The quantile that capacity is bought for, moved by how many requests met their targets: an error budget to spend.

A fixed quantile is right for no service: where loads hardly jump it buys what is never needed, and where they do it
keeps no promise. So its log-odds fall steadily while all goes well and rise with each request that is late,

    logit += seconds / DAY_S × weight × (late - allowed) / allowed

which, over days, is at rest only where as many are late as may be, whatever the forecast is like, or at the least or
most that is bought (adaptive conformal inference, Gibbs and Candès 2021, on requests instead of steps). `weight` is the
rate of requests over that of the last day, so that it is requests that count, and not minutes. Never reads a clock;
without counters nothing moves.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from forecasting.policy.values import Judged, ScalingInput, Steering
from forecasting.series import DAY_S

SPENT: Final = 0.7
"""Of what the promise allows to be late: the rest is for what the quantile cannot help."""
LEAST: Final = 0.5
MOST: Final = 0.98
"""Of fifty rises one is higher, and what would hold that one as well costs more than it keeps in time: headroom, or a
longer delay, keep as many for less."""
SET_BACK_S: Final = 60.0
"""A clock that goes back by more was set; by less, what is told is merely old."""
HEAVIEST: Final = 10.0
"""Times the usual rate of requests, beyond which they count no more."""


def quantile_of(given: ScalingInput) -> float:
    """Of the forecast; as the settings say where nothing is promised or counted."""
    steering = steered(given)
    return given.settings.quantile if steering is None else _probability(steering.logit)


def steered(given: ScalingInput) -> Steering | None:
    """With what was counted since the last decision; as it was where that says nothing new."""
    before, judged, promised = given.memory.steering, given.judged, given.settings.promised
    if promised is None or judged is None:
        return before if promised is not None else None
    if before is None:
        return Steering(_logit(min(max(given.settings.quantile, LEAST), MOST)), judged)
    passed_s = judged.at_s - before.last.at_s
    came, good = judged.requests - before.last.requests, judged.good - before.last.good
    if passed_s < -SET_BACK_S:
        return replace(before, last=judged)
    if passed_s <= 0:
        return before
    if not 0 <= good <= came:  # Counters that fell begin again.
        return replace(before, last=judged)
    return _moved(before, judged, came, good, 1 - promised)


def _moved(before: Steering, judged: Judged, came: float, good: float, may_be_late: float) -> Steering:
    passed_s = judged.at_s - before.last.at_s
    rate_per_s, seen_s = came / passed_s, before.seen_s + passed_s
    known_per_s = before.usual_per_s or 0.0  # None of a decision recorded by an earlier release.
    usual_per_s = known_per_s + min(passed_s / min(seen_s, DAY_S), 1.0) * (rate_per_s - known_per_s)
    logit = before.logit
    if came:
        allowed = SPENT * may_be_late
        weight = min(rate_per_s / usual_per_s, HEAVIEST)
        logit += min(passed_s / DAY_S, 1.0) * weight * ((came - good) / came - allowed) / allowed
    return Steering(min(max(logit, _logit(LEAST)), _logit(MOST)), judged, usual_per_s, seen_s)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
