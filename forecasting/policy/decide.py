"""The one scaling policy: the operator, the what-if tool and the benchmark all call `plan`.

The answer is the larger of the reactive floor and the forecast's upper quantile at the lead time, within bounds, steps,
stabilisation and cool-down. Missing or stale load holds. Never reads a clock and never raises for a wild forecast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from forecasting.policy.limits import (
    bounds_at,
    fewest_after_a_step_down,
    most_after_a_step_up,
    remember,
    seconds_to_cool,
    seconds_to_settle,
)
from forecasting.policy.need import IDLE_SHARE, Need, Untrusted, forecast_need, measured_needs
from forecasting.policy.steering import steered
from forecasting.policy.values import (
    Bounds,
    Direction,
    Load,
    Memory,
    Policy,
    Reason,
    ScalingDecision,
    ScalingInput,
)


@dataclass(frozen=True, slots=True)
class _Demand:
    """The need that counts, rounded for a step up and, with the hysteresis to spare, for a step down."""

    need: Need
    up: int
    down: int
    ignored: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    replicas: int
    reason: Reason
    message: str


def plan(given: ScalingInput) -> ScalingDecision:
    """How many replicas to ask for now. Pure: the same input gives the same decision."""
    given = replace(given, memory=_by_this_clock(given.memory, given.now_s))
    bounds = bounds_at(given.now_s, given.bounds, given.settings.windows)
    load, memory = _usable(given), replace(given.memory, steering=steered(given))
    if load is None:
        # What the load did meanwhile is unknown, so the next step down waits for a whole window again, and sleep for a
        # whole quiet time.
        memory = replace(memory, since_s=None, busy_s=None)
        return _decided(given, _hold_without_load(given, bounds), memory, None)
    memory = _seen(memory, load, given.now_s)
    demand = _demand(given, load, memory, bounds)
    memory = replace(memory, needs=remember(memory.needs, given.now_s, demand.down, given.settings.stabilisation_s))
    answer = _answer(given, bounds, demand, memory)
    return _decided(given, answer, memory, demand.ignored)


def _by_this_clock(memory: Memory, now_s: float) -> Memory:
    """Nothing in it is later than now: a clock that was set back must not make anything wait until it has caught up."""
    since_s, changed_s, busy_s = (
        None if at is None else min(at, now_s) for at in (memory.since_s, memory.changed_s, memory.busy_s)
    )
    return replace(memory, since_s=since_s, changed_s=changed_s, busy_s=busy_s)


def _usable(given: ScalingInput) -> Load | None:
    load = given.load
    if load is None or not load.is_sound or load.age_s > given.settings.stale_after_s:
        return None
    return load


def _hold_without_load(given: ScalingInput, bounds: Bounds) -> _Answer:
    load = given.load
    if load is None:
        why = "no load was measured"
    elif not load.is_sound:
        why = "the measured load holds a number that is negative or not finite"
    else:
        why = f"the load is {load.age_s:.0f} s old, more than {given.settings.stale_after_s:.0f} s"
    return _bounded(_Answer(given.current, Reason.STALE, f"{given.current} held: {why}"), bounds)


def _seen(memory: Memory, load: Load, now_s: float) -> Memory:
    """The memory with this measurement. A busy time that is not known counts from now, the later choice."""
    busy_s = now_s if memory.busy_s is None or not load.is_idle else memory.busy_s
    since_s = now_s if memory.since_s is None else memory.since_s
    return replace(memory, since_s=since_s, busy_s=busy_s)


def _demand(given: ScalingInput, load: Load, memory: Memory, bounds: Bounds) -> _Demand:
    needs = list(measured_needs(load, given.ready, given.capacity, given.settings))
    ignored: str | None = None
    if given.settings.policy is not Policy.REACTIVE:
        ahead = forecast_need(given)
        if isinstance(ahead, Untrusted):
            ignored = ahead.because
        elif ahead is not None:
            needs.append(ahead)
    # Of equal needs the measured one is named: it is the surer one.
    need = max(needs, key=lambda each: each.replicas)
    spare = 1 + given.settings.hysteresis
    awake = _fewest_awake(given, load, memory, need, bounds)
    return _Demand(need, max(_up(need.replicas), awake), max(_up(need.replicas * spare), awake), ignored)


def _up(replicas: float) -> int:
    """Whole replicas. Less than a thousandth of one more is rounding of floats, not load."""
    return math.ceil(replicas - 1e-3) if replicas >= 1 else (1 if replicas >= IDLE_SHARE else 0)


def _fewest_awake(given: ScalingInput, load: Load, memory: Memory, need: Need, bounds: Bounds) -> int:
    """1 while something runs or waits, or did so until lately; 0 when the service may sleep."""
    if not load.is_idle:
        return 1
    if given.current == 0 or need.replicas >= IDLE_SHARE:
        return 0  # asleep stays asleep; with a need the need decides
    quiet_s = _quiet_s(memory, given.now_s)
    return 0 if bounds.min_replicas == 0 and quiet_s >= given.settings.idle_after_s else 1


def _quiet_s(memory: Memory, now_s: float) -> float:
    """How long nothing ran or waited."""
    assert memory.busy_s is not None, "`_seen` begins to count where nothing is known"
    return now_s - memory.busy_s


def _answer(given: ScalingInput, bounds: Bounds, demand: _Demand, memory: Memory) -> _Answer:
    if demand.up > given.current:
        return _bounded(_step_up(given, demand), bounds)
    lowest = max(memory.needs[0][1], bounds.min_replicas)
    if lowest < given.current:
        return _bounded(_step_down(given, demand, lowest, memory), bounds)
    if demand.down < given.current and memory.needs[0][1] > demand.down:
        return _bounded(
            _Answer(
                given.current,
                Reason.STABILISING,
                f"{given.current} held: {_why(demand)}, but {memory.needs[0][1]} were needed within the last"
                f" {given.settings.stabilisation_s:.0f} s",
            ),
            bounds,
        )
    return _bounded(_Answer(given.current, demand.need.reason, _said(given.current, demand)), bounds)


def _step_up(given: ScalingInput, demand: _Demand) -> _Answer:
    wait_s = seconds_to_cool(given.memory, given.now_s, given.settings.cooldown_up_s)
    if wait_s > 0 and given.current > 0:  # from zero somebody is waiting: at once
        return _Answer(
            given.current,
            Reason.COOLING_DOWN,
            f"{given.current} held: {_why(demand)}, but the last change was"
            f" {given.settings.cooldown_up_s - wait_s:.0f} s ago; cool-down {given.settings.cooldown_up_s:.0f} s",
        )
    most = most_after_a_step_up(given.current, given.settings)
    if demand.up > most:
        return _Answer(
            most, demand.need.reason, f"{most} replicas of {demand.up}: {_why(demand)}; a step up ends at {most}"
        )
    return _Answer(demand.up, demand.need.reason, _said(demand.up, demand))


def _step_down(given: ScalingInput, demand: _Demand, lowest: int, memory: Memory) -> _Answer:
    settle_s = seconds_to_settle(memory, given.now_s, given.settings)
    if settle_s > 0:
        return _Answer(
            given.current,
            Reason.STABILISING,
            f"{given.current} held: {_why(demand)}, but the load is known for less than"
            f" {given.settings.stabilisation_s:.0f} s; {settle_s:.0f} s to go",
        )
    wait_s = seconds_to_cool(given.memory, given.now_s, given.settings.cooldown_down_s)
    if wait_s > 0:
        return _Answer(
            given.current,
            Reason.COOLING_DOWN,
            f"{given.current} held: {_why(demand)}; down again in {wait_s:.0f} s",
        )
    fewest = max(fewest_after_a_step_down(given.current, given.settings), lowest)
    if fewest == 0:
        quiet_s = _quiet_s(memory, given.now_s)
        return _Answer(0, Reason.IDLE, f"0 replicas: nothing ran or waited for {quiet_s:.0f} s and none is forecast")
    return _Answer(fewest, demand.need.reason, _said(fewest, demand))


def _why(demand: _Demand) -> str:
    return demand.need.because


def _said(replicas: int, demand: _Demand) -> str:
    return f"{replicas} replicas: {_why(demand)}"


def _bounded(answer: _Answer, bounds: Bounds) -> _Answer:
    replicas = min(max(answer.replicas, bounds.min_replicas), bounds.max_replicas)
    if replicas == answer.replicas:
        return answer
    if replicas < answer.replicas:
        by = f" ({bounds.limited_by})" if bounds.limited_by else ""
        return _Answer(replicas, Reason.BOUNDS, f"{answer.message}; at most {replicas} are allowed{by}")
    return _Answer(replicas, Reason.BOUNDS, f"{answer.message}; at least {replicas} are asked for")


def _decided(given: ScalingInput, answer: _Answer, memory: Memory, ignored: str | None) -> ScalingDecision:
    replicas, reason, message = answer.replicas, answer.reason, answer.message
    if ignored is not None:
        message += f"; the forecast has no say: {ignored}"
    if given.settings.policy is Policy.ADVISORY and reason is not Reason.STALE:
        replicas, reason, message = _advised(given, answer, message)
    changed = replicas != given.current
    return ScalingDecision(
        replicas=replicas,
        wanted=answer.replicas,
        direction=_direction(given.current, replicas),
        reason=reason,
        message=message,
        forecast_ignored=ignored,
        inputs=given,
        memory=replace(memory, changed_s=given.now_s) if changed else memory,
    )


def _advised(given: ScalingInput, answer: _Answer, message: str) -> tuple[int, Reason, str]:
    bounds = bounds_at(given.now_s, given.bounds, given.settings.windows)
    held = min(max(given.current, bounds.min_replicas), bounds.max_replicas)
    return held, Reason.ADVISORY, f"{held} held, advice: {message}"


def _direction(current: int, replicas: int) -> Direction:
    if replicas == current:
        return Direction.HOLD
    return Direction.UP if replicas > current else Direction.DOWN
