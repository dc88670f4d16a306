"""What stands between a need and a new number of replicas: schedule windows, steps, stabilisation, cool-down.

Each is one small function over values. None of them reads the load.
"""

from __future__ import annotations

import math
from datetime import datetime

from forecasting.policy.values import Bounds, Memory, PolicySettings, Window, zone_of

MINUTES_A_DAY = 1440


def bounds_at(now_s: float, bounds: Bounds, windows: tuple[Window, ...]) -> Bounds:
    """The bounds of the first window that is open now, within the outer upper bound; else the outer ones.

    The outer upper bound is what tenant and pool allow, so that no window passes it.
    """
    for window in windows:
        if is_open(window, now_s):
            most = min(window.max_replicas, bounds.max_replicas)
            limited_by = bounds.limited_by if most < window.max_replicas else None
            return Bounds(min(window.min_replicas, most), most, limited_by)
    return bounds


def is_open(window: Window, now_s: float) -> bool:
    """Whether the local time of the window's zone lies in it."""
    local = datetime.fromtimestamp(now_s, zone_of(window.zone))
    minute = local.hour * 60 + local.minute
    if window.start_minute < window.end_minute:
        return local.weekday() in window.days and window.start_minute <= minute < window.end_minute
    if minute >= window.start_minute:
        return local.weekday() in window.days
    return minute < window.end_minute and (local.weekday() - 1) % 7 in window.days


def most_after_a_step_up(current: int, settings: PolicySettings) -> int:
    """The highest number that one decision may ask for."""
    return current + max(settings.up_replicas, math.floor(current * settings.up_share))


def fewest_after_a_step_down(current: int, settings: PolicySettings) -> int:
    """The lowest number that one decision may ask for."""
    return max(current - max(settings.down_replicas, math.floor(current * settings.down_share)), 0)


def remember(
    needs: tuple[tuple[float, int], ...], now_s: float, need: int, window_s: float
) -> tuple[tuple[float, int], ...]:
    """The needs that can still be the highest of a window: in it, and above every later one.

    The first entry is the highest need of the window, and the tuple stays short however often decisions are made.
    """
    kept = tuple((at, replicas) for at, replicas in needs if now_s - window_s <= at <= now_s and replicas > need)
    return (*kept, (now_s, need))


def seconds_to_settle(memory: Memory, now_s: float, settings: PolicySettings) -> float:
    """How long until the memory spans the stabilisation window, and a step down may be trusted."""
    since_s = now_s if memory.since_s is None else memory.since_s
    return max(since_s + settings.stabilisation_s - now_s, 0.0)


def seconds_to_cool(memory: Memory, now_s: float, cooldown_s: float) -> float:
    """How long until the last change is `cooldown_s` ago."""
    return 0.0 if memory.changed_s is None else max(memory.changed_s + cooldown_s - now_s, 0.0)
