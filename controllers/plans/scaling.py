"""How many workers a service wants: what the spec says, or, with `scaling`, what the requests held by workers call for.

Reactive and careful: up at once, by at most doubling (or four); down only after the load was lower for the whole delay,
by at most half, and never on a number that nobody measured. What must be remembered between two looks is `History`; a
fresh one, as after a restart, only makes the next step down later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from controllers.plans.snapshot import Load
from crds.fields import seconds
from crds.inference_service import InferenceServiceSpec
from crds.scaling import Scaling

STALE_AFTER_S: Final = 20.0
"""Four scrapes: a number older than this says nothing about now."""
_STEP_UP: Final = 4


class Direction(Enum):
    FIXED = "Fixed"
    HOLD = "Hold"
    UP = "ScaledUp"
    DOWN = "ScaledDown"


@dataclass(frozen=True, slots=True)
class History:
    """Numbers that were called for since `since_s`: (when, how many), oldest first. Times are monotonic seconds."""

    since_s: float
    called_for: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """`replicas` wanted now, why in numbers, and what to remember."""

    replicas: int
    direction: Direction
    message: str
    history: History


@dataclass(frozen=True, slots=True)
class Measured:
    """What the ready workers say: `known` requests in all, and how many of them said nothing fresh."""

    known: int
    answered: int
    silent: int


def measure(loads: Sequence[Load | None]) -> Measured:
    """One entry per ready worker; None or a stale one is silence."""
    fresh = [load.requests for load in loads if load is not None and load.age_s <= STALE_AFTER_S]
    return Measured(sum(fresh), len(fresh), len(loads) - len(fresh))


def plan_scaling(
    spec: InferenceServiceSpec, current: int | None, loads: Sequence[Load | None], history: History, now_s: float
) -> ScalingDecision:
    """`current` is the number wanted until now, None at the first look; `loads` are those of the ready workers."""
    scaling = spec.scaling
    if scaling is None:
        replicas = 1 if spec.replicas is None else spec.replicas
        return ScalingDecision(replicas, Direction.FIXED, f"{replicas} as spec.replicas says", history)
    held = _within(scaling, scaling.min if current is None else current)
    measured = measure(loads)
    if not measured.answered:
        # Nothing measured is no reason to move, and least of all to shrink.
        return ScalingDecision(held, Direction.HOLD, f"{held} kept: no worker reports its load", History(now_s))
    return _by_load(scaling, held, measured, history, now_s)


def _by_load(scaling: Scaling, held: int, measured: Measured, history: History, now_s: float) -> ScalingDecision:
    lowest = _within(scaling, math.ceil(measured.known / scaling.target_concurrency))
    # A silent worker counts as full when the question is whether one can be spared.
    assumed = measured.known + measured.silent * scaling.target_concurrency
    highest = _within(scaling, math.ceil(assumed / scaling.target_concurrency))
    history = _remember(history, highest, seconds(scaling.scale_down_delay), now_s)
    if lowest > held:
        wanted = min(lowest, held + max(held, _STEP_UP))
        return ScalingDecision(wanted, Direction.UP, _why(scaling, held, wanted, measured), history)
    calmed = now_s - history.since_s >= seconds(scaling.scale_down_delay)
    peak = max(number for _, number in history.called_for)
    if peak < held and calmed:
        wanted = max(peak, held - max(1, held // 2))
        message = f"{_why(scaling, held, wanted, measured)}, lower for {scaling.scale_down_delay}"
        return ScalingDecision(wanted, Direction.DOWN, message, History(now_s))
    return ScalingDecision(held, Direction.HOLD, f"{held} kept: {_arithmetic(scaling, measured)}", history)


def _within(scaling: Scaling, replicas: int) -> int:
    return min(max(replicas, scaling.min), scaling.max)


def _remember(history: History, number: int, window_s: float, now_s: float) -> History:
    """Keeps the window, and one entry for each run of equal numbers: its latest."""
    kept = [entry for entry in history.called_for if now_s - entry[0] <= window_s]
    if kept and kept[-1][1] == number:
        kept.pop()
    return History(history.since_s, (*kept, (now_s, number)))


def _why(scaling: Scaling, before: int, after: int, measured: Measured) -> str:
    return f"{before} → {after} replicas: {_arithmetic(scaling, measured)}"


def _arithmetic(scaling: Scaling, measured: Measured) -> str:
    called_for = measured.known / scaling.target_concurrency
    silent = f", {measured.silent} silent" if measured.silent else ""
    return (
        f"{measured.known} requests on {measured.answered} workers{silent} ÷ {scaling.target_concurrency} each"
        f" = {called_for:.1f}, limits {scaling.min}…{scaling.max}"
    )
