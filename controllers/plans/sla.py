"""What an SLA means: whether its numbers can be met together, and how much outage it allows. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from controllers.plans.units import duration_text
from crds.conditions import READY, STALLED
from crds.fields import seconds
from crds.sla import SLASpec, Targets


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Numbers that cannot stand together."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """The status to write, without condition times."""

    fields: Mapping[str, Any]
    conditions: Sequence[Mapping[str, Any]]


def assess(spec: SLASpec, generation: int, used_by: Sequence[str]) -> Assessment:
    """Everything that `kubectl get sla` shows."""
    fields: dict[str, Any] = {
        "observedGeneration": generation,
        "usedBy": sorted(used_by)[:1000],
        "services": len(used_by),
    }
    wrong = contradiction(spec)
    if wrong is not None:
        return Assessment(fields, _stalled(wrong))
    budget_s = error_budget_s(spec)
    if budget_s is not None:
        fields["errorBudget"] = duration_text(budget_s)
    message = _summary(spec, fields.get("errorBudget"))
    return Assessment(fields, [{"type": READY, "status": "True", "reason": "Ready", "message": message}])


def error_budget_s(spec: SLASpec) -> float | None:
    """(1 − availability) × window, as seconds of full outage; None without an availability."""
    if spec.availability is None or spec.window is None:
        return None
    missing = 1 - Decimal(spec.availability.removesuffix("%")) / 100
    return float(missing * _exact_s(spec.window))


def contradiction(spec: SLASpec) -> Contradiction | None:
    """The first thing that the schema cannot see, or None."""
    return _availability(spec) or (_latency(spec.targets) if spec.targets else None)


def _availability(spec: SLASpec) -> Contradiction | None:
    if spec.availability is None:
        return None
    share = Decimal(spec.availability.removesuffix("%"))
    if share == 0:
        return Contradiction(
            "AvailabilityZero",
            f"availability {spec.availability} asks for nothing: every request may fail."
            ' Write for example "99.9%", or leave availability and window out.',
        )
    if share >= 100:
        return Contradiction(
            "AvailabilityFull",
            f"availability {spec.availability} leaves an error budget of 0: one failed request breaks it for the whole"
            ' window. Write for example "99.99%".',
        )
    return None


def _latency(targets: Targets) -> Contradiction | None:
    """The shortest answer worth a stream has two tokens: the first after ttft, the second after tpot."""
    if targets.e2e is None or targets.tpot is None:
        return None
    # Decimal: in floats 100ms + 200ms is more than 300ms.
    needed_s = (_exact_s(targets.ttft) if targets.ttft else 0) + _exact_s(targets.tpot)
    if needed_s <= _exact_s(targets.e2e):
        return None
    parts = f"ttft {targets.ttft} + tpot {targets.tpot}" if targets.ttft else f"tpot {targets.tpot}"
    return Contradiction(
        "TargetsContradict",
        f"An answer of two tokens may take {parts} = {duration_text(float(needed_s))}, but e2e allows {targets.e2e}."
        " Raise targets.e2e or lower the others.",
    )


def _summary(spec: SLASpec, budget: str | None) -> str:
    """`P1: ttft ≤ 1s and tpot ≤ 50ms for 99% of requests; 99.9% succeed: 40m19s of outage in 28d.`"""
    parts = []
    if spec.targets is not None:
        named = (("ttft", spec.targets.ttft), ("tpot", spec.targets.tpot), ("e2e", spec.targets.e2e))
        limits = " and ".join(f"{name} ≤ {value}" for name, value in named if value)
        parts.append(f"{limits} for {spec.targets.percentile}% of requests{_tokens(spec.targets)}")
    if budget is not None:
        parts.append(f"{spec.availability} succeed, which allows {budget} of full outage in {spec.window}")
    return f"{spec.priority.value}: {'; '.join(parts)}." if parts else f"{spec.priority.value}, without targets."


def _tokens(targets: Targets) -> str:
    """How long an answer can be within all three targets: 1 + (e2e − ttft) ÷ tpot tokens."""
    if targets.ttft is None or targets.tpot is None or targets.e2e is None:
        return ""
    rest_s = _exact_s(targets.e2e) - _exact_s(targets.ttft)
    return f" (answers of up to {1 + int(rest_s / _exact_s(targets.tpot))} tokens)"


def _exact_s(duration: str) -> Decimal:
    return Decimal(str(seconds(duration)))


def _stalled(wrong: Contradiction) -> list[dict[str, Any]]:
    return [
        {"type": READY, "status": "False", "reason": wrong.reason, "message": wrong.message},
        {"type": STALLED, "status": "True", "reason": wrong.reason, "message": wrong.message},
    ]
