"""How many replicas the measured load and the forecast ask for, each with its arithmetic.

Answers in fractions of a replica; rounding, bounds and steps are the decision's matter. Never trusts a forecast that
is broken, late, short, beyond belief or without calibration: it says why instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from forecasting.policy.steering import quantile_of
from forecasting.policy.values import Capacity, Load, LoadForecast, PolicySettings, Reason, ScalingInput

# Without a plausible maximum of its own, a forecast is believed up to this many times the present scale.
BELIEVABLE_FACTOR = 10.0
# The requests held ask for at most this many times the ready replicas, and one more.
QUEUE_FACTOR = 1.5
# A forecast of less than this share of a replica is no load: it would keep a service awake for ever.
IDLE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Need:
    """A number of replicas, not rounded, and what it comes from."""

    replicas: float
    reason: Reason
    because: str


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Why a forecast has no say."""

    because: str


def tokens(rate_per_s: float) -> str:
    """`5.4k tok/s`"""
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if rate_per_s >= 0.9995 * scale:  # what is rounded up to the unit is told in it
            return f"{rate_per_s / scale:.3g}{unit} tok/s"
    return f"{rate_per_s:.3g} tok/s"


def _each(capacity: Capacity) -> str:
    because = f" ({capacity.because})" if capacity.because else ""
    return f"{tokens(capacity.work_per_s)} each{because}"


def measured_needs(load: Load, ready: int, capacity: Capacity, settings: PolicySettings) -> tuple[Need, ...]:
    """The reactive floor: work rate, requests held and KV cache in use, as of the last measurement."""
    work = capacity.work_of(load) * settings.headroom
    held = load.running + load.waiting
    replicas = max(ready, 1)
    # A queue is drained once, not for ever, and what already starts will help: only so much more than is ready now.
    most = QUEUE_FACTOR * replicas + 1
    return (
        Need(
            work / capacity.work_per_s,
            Reason.WORK,
            f"load {tokens(work)} now ÷ {_each(capacity)}",
        ),
        Need(
            min(held / capacity.running, most),
            Reason.CONCURRENCY,
            f"{load.running:.0f} running + {load.waiting:.0f} waiting ÷ {capacity.running:.3g} each"
            + (f", at most {most:g} while {replicas} are ready" if held / capacity.running > most else ""),
        ),
        Need(
            replicas * load.kv_use / capacity.kv_use,
            Reason.KV_CACHE,
            f"{replicas} ready × {load.kv_use:.0%} of the KV cache ÷ {capacity.kv_use:.0%}",
        ),
    )


def forecast_need(given: ScalingInput) -> Need | Untrusted | None:
    """The forecast's upper quantile, at its highest from now to the lead time plus the horizon.

    All of that span counts, not its end alone: what is asked for now stands from now on, and a step down that must be
    taken back at once would pay one more cold start.
    """
    forecast, settings = given.forecast, given.settings
    if forecast is None:
        return None
    span = _span(forecast, given.now_s, given.lead_time_s + settings.horizon_s)
    doubt = _doubt(forecast, span, given)
    if doubt is not None:
        return Untrusted(doubt)
    quantile = quantile_of(given)
    level = next((at for at, value in enumerate(forecast.levels) if value >= quantile - 1e-9), None)
    column = len(forecast.levels) - 1 if level is None else level
    step = max(span, key=lambda at: max(forecast.values[at][: column + 1]))
    # The maximum up to the level, so that quantiles which cross cannot make a higher level ask for less.
    work = max(forecast.values[step][: column + 1]) * settings.headroom
    ahead_s = max(forecast.issued_s + step * forecast.step_s - given.now_s, 0.0)
    return Need(
        work / given.capacity.work_per_s,
        Reason.FORECAST,
        f"p{100 * forecast.levels[column]:g} load {tokens(work)} at +{ahead_s:.0f} s ÷ {_each(given.capacity)}",
    )


def _span(forecast: LoadForecast, now_s: float, ahead_s: float) -> range:
    """Steps that touch the time from now to `ahead_s` from now; fewer when the forecast ends before."""
    first = max(math.floor((now_s - forecast.issued_s) / forecast.step_s), 0)
    last = math.floor((now_s + ahead_s - forecast.issued_s) / forecast.step_s)
    return range(first, min(last + 1, len(forecast.values)))


def _doubt(forecast: LoadForecast, span: range, given: ScalingInput) -> str | None:
    """Why not to believe it, or None."""
    if not forecast.calibrated:
        return "its intervals have not held what they promise"
    if forecast.issued_s > given.now_s + forecast.step_s:
        return f"it was issued {forecast.issued_s - given.now_s:.0f} s after now"
    end_s = forecast.issued_s + len(forecast.values) * forecast.step_s - given.now_s
    if end_s < given.lead_time_s or not span:
        return f"it ends {end_s:+.0f} s from now, and the lead time is {given.lead_time_s:.0f} s"
    values = [value for at in span for value in forecast.values[at]]
    if not all(map(math.isfinite, values)):
        return "it holds values that are not finite"
    if min(values) < 0:
        return f"it holds a negative load of {min(values):.3g} tok/s"
    most = _believable(forecast, given)
    if max(values) > most:
        return f"its {tokens(max(values))} is beyond belief: at most {tokens(most)} is"
    return None


def _believable(forecast: LoadForecast, given: ScalingInput) -> float:
    if forecast.plausible_max is not None:
        return forecast.plausible_max
    measured = given.capacity.work_of(given.load) if given.load is not None else 0.0
    return BELIEVABLE_FACTOR * max(measured, given.capacity.work_per_s * max(given.current, 1))
