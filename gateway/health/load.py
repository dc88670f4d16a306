"""What a worker says of itself on `GET /load`, read with suspicion, and what follows for its health. Pure.

Bytes that are not such a report are no report: a worker of another make serves without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Load:
    """One report. Shares are between 0 and 1."""

    ready: bool = True
    draining: bool = False
    running: int = 0
    waiting: int = 0
    max_num_seqs: int | None = None
    kv_usage: float = 0.0
    utilisation: float = 0.0
    steps: int = 0
    stalled_s: float = 0.0
    """For how long the engine has owed an answer without a sign of progress."""
    step_kind: str | None = None
    """What it said before something that takes long."""
    expected_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProgressPolicy:
    ask_every_s: float = 0.25
    suspect_after_s: float = 0.35
    """Of silence: from then on its streams are moved."""
    spoke_lately_s: float = 1.0
    """A worker that spoke so shortly before a question is silent since then, and not since the question."""
    owed_s: float = 0.2
    """But a question is open for at least so long before its answer is missed."""
    answer_within_s: float = 0.6
    """A worker that answers nothing at all for so long is stopped, or its machine is gone."""
    hung_after_s: float = 1.8
    """Of no progress, where it said nothing of a long step."""
    patience: float = 3.0
    """A step that was announced may take so many times what was expected of it, before that."""


@dataclass(frozen=True, slots=True)
class StallPolicy:
    """When the streams of a worker are moved though it is not given up yet: that costs a prefill, and is not seen."""

    after_s: float = 0.4
    patience: float = 3.0
    """Of a step that was announced, and `after_s` more."""


class Evidence(Enum):
    """How it is known that a worker does nothing. The values are metric labels."""

    REFUSED = "refused"
    """Nobody listens at its address."""
    SILENT = "silent"
    """It takes connections and answers none."""
    HUNG = "hung"
    """It answers, owes tokens, and makes none."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker does nothing, by which evidence, and with the numbers."""

    evidence: Evidence
    message: str


def load_in(body: bytes) -> Load | None:
    """The report, or None for anything else."""
    try:
        told: Any = orjson.loads(body)
        if not isinstance(told, dict) or "steps" not in told or "stalled_s" not in told:
            return None
        step = told.get("step") or {}
        slots = int(told.get("max_num_seqs") or 0)
        return Load(
            ready=told.get("ready") is True,
            draining=told.get("draining") is True,
            running=max(int(told.get("running", 0)), 0),
            waiting=max(int(told.get("waiting", 0)), 0),
            max_num_seqs=slots if slots > 0 else None,
            kv_usage=_share(told.get("kv_usage", 0.0)),
            utilisation=_share(told.get("utilisation", 0.0)),
            steps=int(told["steps"]),
            stalled_s=max(_number(told["stalled_s"]), 0.0),
            step_kind=str(step["kind"])[:32] if step else None,
            expected_s=min(max(_number(step["expected_s"]), 0.0), 600.0) if step else 0.0,
        )
    except (orjson.JSONDecodeError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _share(value: Any) -> float:
    return min(max(_number(value), 0.0), 1.0)


def _number(value: Any) -> float:
    """Raises ValueError: text, too, may say that it is none, or without end."""
    number = float(value)
    if not isfinite(number):
        raise ValueError("no number")
    return number


def suspect_at_s(asked_s: float, heard_s: float, policy: ProgressPolicy) -> float:
    """When a worker becomes suspect that has not answered since `asked_s`, nor said anything else since `heard_s`."""
    if heard_s < asked_s - policy.spoke_lately_s:
        return asked_s + policy.suspect_after_s
    return max(heard_s + policy.suspect_after_s, asked_s + policy.owed_s)


def lost_at_s(asked_s: float, heard_s: float, policy: ProgressPolicy) -> float:
    """When it is given up."""
    return max(asked_s, heard_s) + policy.answer_within_s


def _may_stand_s(load: Load, policy: StallPolicy) -> float:
    return policy.after_s + policy.patience * load.expected_s


def stalls_in_s(load: Load, policy: StallPolicy) -> float | None:
    """After which its engine will have stalled unless it makes a step; None where it has, or owes nothing."""
    left_s = _may_stand_s(load, policy) - load.stalled_s
    return left_s if load.stalled_s and left_s > 0.0 else None


def stalled(load: Load, policy: StallPolicy) -> bool:
    """Its engine owes tokens, and makes no step for longer than it said."""
    return load.ready and load.stalled_s > _may_stand_s(load, policy)


def hung(load: Load, policy: ProgressPolicy) -> Loss | None:
    """A worker that answers HTTP but owes tokens and makes no step; not one that said why that takes long."""
    allowed_s = policy.hung_after_s + policy.patience * load.expected_s
    if not load.ready or load.stalled_s <= allowed_s:
        return None
    said = (
        f"{policy.patience:g} × {load.expected_s:g} s for {load.step_kind}" if load.step_kind else "no long step said"
    )
    return Loss(
        Evidence.HUNG,
        f"{load.running + load.waiting} requests and no step for {load.stalled_s:.1f} s > {allowed_s:.1f} s ({said})",
    )
