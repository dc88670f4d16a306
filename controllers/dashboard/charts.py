"""One service over time: its load, the forecast, the workers wanted and ready, what was decided. Pure; JSON values out.

The forecast and the plan are those of the last recorded decision, so the page shows what scaling acted on and nothing
that it did not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from controllers.history.interface import Counts
from forecasting.errors import ForecastingError
from forecasting.policy.record import from_json
from forecasting.policy.values import Capacity, LoadForecast, ScalingDecision

Json = dict[str, Any]
SHOWN_DECISIONS: Final = 200
_POINTS: Final = 600
"""About as many as a screen has room for."""
_LEVELS: Final = (("p10", 0.1), ("p50", 0.5), ("p80", 0.8), ("p95", 0.95), ("p99", 0.99))
_AHEAD: Final = 0.5
"""Of the time shown before now: the future gets a third of the picture."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is shown: `step_s` is a multiple of a minute, and `start_s` of it."""

    start_s: float
    end_s: float
    step_s: float


def span_of(hours: int, now_s: float) -> Span:
    """The last `hours` in at most 600 steps."""
    minutes = max(1, math.ceil(hours * 60 / _POINTS))
    # Ten minutes and their multiples are kept longest.
    step_s = 60.0 * minutes if minutes < 10 else 600.0 * math.ceil(minutes / 10)
    end_s = now_s // step_s * step_s
    return Span(end_s - hours * 3600, end_s, step_s)


def chart(counts: Counts | None, lines: Sequence[str], span: Span, now_s: float) -> Json:
    """`lines` are recorded decisions, oldest first; those that cannot be read (another version's) are left out."""
    decisions = list(_read(lines))
    last = decisions[-1] if decisions else None
    forecast = last.inputs.forecast if last is not None else None
    return {
        "nowS": now_s,
        "load": _load(counts, last.inputs.capacity if last is not None else None),
        "forecast": None if forecast is None else _band(forecast, now_s, now_s + _AHEAD * (span.end_s - span.start_s)),
        "planned": _steps([(one.inputs.now_s, one.wanted) for one in decisions]),
        "actual": _steps([(one.inputs.now_s, one.inputs.ready) for one in decisions]),
        "decisions": [_told(one) for one in _changes(decisions)][-SHOWN_DECISIONS:][::-1],
    }


def _read(lines: Sequence[str]) -> Iterator[ScalingDecision]:
    for line in lines:
        try:
            yield from_json(line)
        except ForecastingError:
            continue


def _load(counts: Counts | None, capacity: Capacity | None) -> Json | None:
    if counts is None or not len(counts.arrivals):
        return None
    weights = (1.0, 1.0) if capacity is None else (capacity.input_weight, capacity.output_weight)
    work = (weights[0] * counts.input_tokens + weights[1] * counts.output_tokens) / counts.step_s
    values = [None if math.isnan(value) else round(value, 3) for value in work.tolist()]
    return {"startS": counts.start_s, "stepS": counts.step_s, "values": values}


def _band(forecast: LoadForecast, now_s: float, end_s: float) -> Json | None:
    """The steps from now on, each level by a straight line between those that are known."""
    first = max(0, int((now_s - forecast.issued_s) // forecast.step_s))
    last = max(first, math.ceil((end_s - forecast.issued_s) / forecast.step_s))
    rows = np.asarray(forecast.values[first:last], dtype=np.float64)
    if not len(rows) or not np.isfinite(rows).all():
        return None
    found: Json = {"startS": forecast.issued_s + first * forecast.step_s, "stepS": forecast.step_s}
    for name, level in _LEVELS:
        found[name] = [round(float(np.interp(level, forecast.levels, row)), 3) for row in rows]
    return found


def _steps(points: Sequence[tuple[float, int]]) -> list[Json]:
    """Only where the number changes; a record a minute would be the same curve in a hundred times the bytes."""
    found: list[Json] = []
    for at_s, replicas in points:
        if not found or found[-1]["replicas"] != replicas:
            found.append({"atS": at_s, "replicas": replicas})
    return found


def _changes(decisions: Sequence[ScalingDecision]) -> list[ScalingDecision]:
    return [one for one in decisions if one.wanted != one.inputs.current]


def _told(decision: ScalingDecision) -> Json:
    ignored = f" The forecast had no say: {decision.forecast_ignored}." if decision.forecast_ignored else ""
    return {
        "atS": decision.inputs.now_s,
        "before": decision.inputs.current,
        "replicas": decision.wanted,
        "direction": decision.direction.value,
        "reason": decision.reason.value,
        "message": decision.message + ignored,
    }
