"""Services by load, for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cli import lines
from cli.fleet import Service
from controllers.plans.units import duration_text
from forecasting.policy import Load, ScalingDecision


@dataclass(frozen=True, slots=True)
class Row:
    """One service. None: nobody has said so.

    load_tokens_per_s: work, weighted as scaling weighs it, of the forecast's last step. used: that share of what the
    ready workers carry. measured: for the last decision, and its age as of now.
    """

    namespace: str
    name: str
    ready: int
    desired: int | None
    planned: int | None
    load_tokens_per_s: float | None
    used: float | None
    measured: Load | None


def busiest(services: Sequence[Service]) -> list[Service]:
    """The most load first; those without a number last, by name."""
    return sorted(services, key=lambda one: (-(_number(one.expected.get("load")) or 0.0), one.namespace, one.name))


def row_of(one: Service, newest: Mapping[tuple[str, str], ScalingDecision], now: datetime) -> Row:
    load_tokens_per_s, ready = _number(one.expected.get("load")), one.status.get("readyReplicas") or 0
    carried = (_number(one.expected.get("capacity")) or 0.0) * ready
    decision = newest.get((one.namespace, one.name))
    measured = None if decision is None else aged(decision, now)
    return Row(
        namespace=one.namespace,
        name=one.name,
        ready=ready,
        desired=one.status.get("desiredReplicas"),
        planned=one.expected.get("plannedReplicas"),
        load_tokens_per_s=load_tokens_per_s,
        used=load_tokens_per_s / carried if load_tokens_per_s is not None and carried > 0 else None,
        measured=measured,
    )


def aged(decision: ScalingDecision, now: datetime) -> Load | None:
    """What it was made from, as old as it is now."""
    load, since_s = decision.inputs.load, now.timestamp() - decision.inputs.now_s
    return None if load is None else replace(load, age_s=load.age_s + since_s)


def top_lines(rows: Sequence[Row]) -> list[str]:
    heads = ("SERVICE", "READY", "PLAN", "LOAD/S", "USED", "REQ/S", "IN/S", "OUT/S", "RUN", "WAIT", "KV", "AGE")
    several = len({row.namespace for row in rows}) > 1
    return lines.table(heads, [_cells(row, several) for row in rows], keep=heads[1:])


def _cells(row: Row, several: bool) -> tuple[str, ...]:
    return (
        f"{row.namespace}/{row.name}" if several else row.name,
        f"{row.ready}/{_text(row.desired)}",
        _text(row.planned),
        _text(row.load_tokens_per_s),
        _share(row.used),
        *_measured(row.measured),
    )


def _measured(load: Load | None) -> tuple[str, ...]:
    if load is None:
        return ("-",) * 7
    rates = (load.requests_per_s, load.input_tokens_per_s, load.output_tokens_per_s, load.running, load.waiting)
    return (*map(_text, rates), _share(load.kv_use), duration_text(max(round(load.age_s), 1)))


def _text(value: float | None) -> str:
    """`12`, `5.1k`, `2M`"""
    if value is None:
        return "-"
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * scale:  # what is rounded up to the unit is told in it
            return f"{value / scale:.2g}{unit}" if value < 99.5 * scale else f"{value / scale:.0f}{unit}"
    return f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
