"""How many workers a service wants: what the spec says, or, with `scaling`, what `forecasting.policy.plan` decides.

Only an adapter: from the spec and what was measured to the policy's input, and from its answer to ours. The policy is
the one that the simulator and `foretide replay` run. Where somebody else scales the service, its number is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.capacity import LEAST_LEAD_S
from controllers.plans.carried import NOTHING_KNOWN, Known, carried, slo_of
from controllers.plans.limits import Limit
from controllers.plans.snapshot import Demanded, Load
from crds.fields import seconds
from crds.inference_service import InferenceServiceSpec
from crds.scaling import Scaling, ScalingPolicy, ScheduleWindow, Weekday
from forecasting import policy
from forecasting.errors import BadSetting
from forecasting.near import BEYOND_S
from forecasting.policy import Bounds, Direction, Judged, LoadForecast, Memory, Policy, PolicySettings, ScalingInput
from forecasting.simulator.world import Slo
from forecasting.standing import Forecasted

STALE_AFTER_S: Final = 20.0
"""Four scrapes: a number older than this says nothing about now."""
QUANTILE: Final = 0.95
QUIET_S: Final = 10.0
"""Two scrapes: without a client's request for so long, what a worker still holds is a probe of ours."""
_STEP_UP: Final = 4
_DAYS: Final = tuple(Weekday)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why what a worker may carry is not known as it was."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Signals:
    """What was measured and foretold. `loads` has one entry per ready worker; None or a stale one is silence."""

    loads: Sequence[Load | None] = ()
    demand: Demanded | None = None
    """What the gateways say of a service that may sleep; None when they do not."""
    forecast: Forecasted | None = None
    lead_time_s: float = LEAST_LEAD_S
    known: Known = NOTHING_KNOWN
    """What the capacity of a worker like these follows from."""
    autoscaler: str | None = None
    """`HorizontalPodAutoscaler 'x'`: who else scales this service."""
    limit: Limit | None = None
    """What Tenant and pools leave."""
    judged: Judged | None = None
    """How many requests met the targets of the SLA."""
    doubt: Doubt | None = None
    """While there is one, no worker is taken away."""


@dataclass(frozen=True, slots=True)
class ScalingPlan:
    """`replicas` wanted now and why; `decision` is the policy's, None where it was not asked."""

    replicas: int
    direction: Direction
    reason: str
    message: str
    memory: Memory
    decision: policy.ScalingDecision | None = None
    held_by: str | None = None
    """Who else scales the service."""
    trouble: str | None = None
    """Why the spec cannot be followed."""
    advised: int | None = None
    """Workers that the policy calls for, whatever Tenant and pools leave; None where it was not asked."""

    @property
    def wished(self) -> int:
        """Workers that the service should have, whatever Tenant and pools leave."""
        return self.replicas if self.advised is None or self.reason == "Fixed" else self.advised


def plan_scaling(
    spec: InferenceServiceSpec, current: int | None, seen: Signals, memory: Memory, now_s: float
) -> ScalingPlan:
    """`current` is the number wanted until now, None at the first look; `now_s` is Unix time."""
    scaling = spec.scaling
    if scaling is None:
        return _fixed(spec, memory)
    if scaling.policy is ScalingPolicy.ADVISORY:
        return _advised(spec, scaling, seen, memory, now_s)
    held = _held(scaling, bounds_of(scaling, seen.limit).max_replicas, current)
    if seen.autoscaler:
        message = f"{held} kept: {seen.autoscaler} scales this service too"
        return ScalingPlan(held, Direction.HOLD, "OtherAutoscaler", message, memory, held_by=seen.autoscaler)
    try:
        asked = given(spec, scaling, held, seen, memory, now_s)
    except BadSetting as error:
        return ScalingPlan(held, Direction.HOLD, "ScheduleInvalid", f"{held} kept: {error}", memory, trouble=str(error))
    decision = _decide(asked, seen, scaling)
    answer = _answer(held, decision, _wish(decision, seen, scaling))
    if seen.doubt and answer.replicas < held:
        return replace(
            answer,
            replicas=held,
            direction=Direction.HOLD,
            reason=seen.doubt.reason,
            message=f"{held} kept: {seen.doubt.message}",
            advised=max(held, answer.wished),
        )
    return answer


def _fixed(spec: InferenceServiceSpec, memory: Memory) -> ScalingPlan:
    replicas = 1 if spec.replicas is None else spec.replicas
    return ScalingPlan(replicas, Direction.HOLD, "Fixed", f"{replicas} as spec.replicas says", memory)


def _advised(spec: InferenceServiceSpec, scaling: Scaling, seen: Signals, memory: Memory, now_s: float) -> ScalingPlan:
    """The number is spec.replicas, whoever writes it; the policy only speaks."""
    fixed = _fixed(spec, memory)
    try:
        # Outside of its limits the policy would not even advise to hold.
        asked = given(spec, scaling, _within(scaling, fixed.replicas), seen, memory, now_s)
    except BadSetting as error:
        return replace(fixed, trouble=str(error))
    decision = _decide(asked, seen, scaling)
    return replace(fixed, decision=decision, memory=decision.memory, advised=_wish(decision, seen, scaling))


def _first(scaling: Scaling) -> int:
    """A new service starts one worker even where it may sleep, so that a broken one shows now, not at a request."""
    return max(1, scaling.min)


def _held(scaling: Scaling, most: int, current: int | None) -> int:
    """What a limit leaves under the spec's minimum is kept as it is: it would be a step up that is taken back."""
    if current is None:
        return min(_first(scaling), most)
    return max(min(_within(scaling, current), most), min(current, scaling.max))


def _within(scaling: Scaling, replicas: int) -> int:
    """The limits of the whole week; which hold now is the policy's business."""
    return min(max(replicas, scaling.fewest), scaling.max)


def _decide(asked: ScalingInput, seen: Signals, scaling: Scaling) -> policy.ScalingDecision:
    """A silent worker counts as full when the question is whether one can be spared, and as idle for growing."""
    silent = sum(_is_silent(load) for load in seen.loads)
    if not silent or asked.load is None:
        return policy.plan(asked)
    full = replace(asked.load, running=asked.load.running + silent * scaling.target_concurrency)
    careful = policy.plan(replace(asked, load=full))
    return policy.plan(asked) if careful.direction is Direction.UP else careful


def _wish(decision: policy.ScalingDecision, seen: Signals, scaling: Scaling) -> int:
    """What the policy calls for within the bounds of the spec alone."""
    asked, own = decision.inputs, Bounds(scaling.min, scaling.max)
    return decision.wanted if asked.bounds == own else _decide(replace(asked, bounds=own), seen, scaling).wanted


def _answer(held: int, decision: policy.ScalingDecision, wish: int) -> ScalingPlan:
    moved = f"{held} → " if decision.direction is not Direction.HOLD else ""
    return ScalingPlan(
        decision.replicas,
        decision.direction,
        decision.reason.value,
        f"{moved}{decision.message}",
        decision.memory,
        decision,
        advised=wish,
    )


# --- the policy's input -----------------------------------------------------------------------------------------------


def given(
    spec: InferenceServiceSpec, scaling: Scaling, current: int, seen: Signals, memory: Memory, now_s: float
) -> ScalingInput:
    """Everything that one decision is made from."""
    return ScalingInput(
        now_s=now_s,
        bounds=bounds_of(scaling, seen.limit),
        current=current,
        ready=len(seen.loads),
        load=total(seen.loads, seen.demand, current),
        forecast=_forecast(spec, seen, now_s),
        capacity=carried(spec, seen.known).for_policy(),
        lead_time_s=seen.lead_time_s,
        settings=settings_of(scaling, slo_of(seen.known.targets)),
        memory=memory,
        judged=seen.judged,
    )


def bounds_of(scaling: Scaling, limit: Limit | None) -> Bounds:
    """Of the spec, as far as Tenant and pools leave them."""
    if limit is None or not limit.bounds or limit.replicas >= scaling.max:
        return Bounds(scaling.min, scaling.max)
    return Bounds(min(scaling.min, limit.replicas), limit.replicas, limit.by)


def _forecast(spec: InferenceServiceSpec, seen: Signals, now_s: float) -> LoadForecast | None:
    """Only what this decision may look at, so that its record stays short."""
    said = seen.forecast.forecast if seen.forecast else None
    if said is None or carried(spec, seen.known).work_per_s is None:
        return None
    # Up to the end of the span and one step more.
    steps = int((now_s + seen.lead_time_s + BEYOND_S - said.issued_s) // said.step_s) + 2
    return replace(said, values=said.values[: max(1, steps)])


def settings_of(scaling: Scaling, slo: Slo | None) -> PolicySettings:
    """The policy's settings as spec and SLA say them."""
    delay_s = seconds(scaling.scale_down_delay)
    up, down = scaling.step_up, scaling.step_down
    return PolicySettings(
        policy=Policy.REACTIVE if scaling.policy is ScalingPolicy.REACTIVE else Policy.PREDICTIVE,
        quantile=QUANTILE,
        horizon_s=BEYOND_S,
        up_replicas=up or _STEP_UP,
        up_share=0.0 if up else 1.0,
        down_replicas=down or 1,
        down_share=0.0 if down else 0.5,
        stabilisation_s=delay_s,
        cooldown_down_s=delay_s,
        stale_after_s=STALE_AFTER_S,
        idle_after_s=seconds(scaling.idle_period),
        windows=tuple(_window(scaling, one) for one in scaling.schedule or ()),
        # What does not act on its forecast learns nothing about its quantile.
        promised=slo.attainment if slo and scaling.policy is ScalingPolicy.PREDICTIVE else None,
    )


def _window(scaling: Scaling, window: ScheduleWindow) -> policy.Window:
    fewest = scaling.min if window.min is None else window.min
    most = scaling.max if window.max is None else window.max
    days = _DAYS if window.days is None else window.days
    return policy.Window(
        days=tuple(_DAYS.index(day) for day in days),
        start_minute=_minute(window.start),
        end_minute=_minute(window.end),
        min_replicas=min(fewest, most),
        max_replicas=most,
        zone=window.time_zone,
    )


def _minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)


def total(loads: Sequence[Load | None], demand: Demanded | None, current: int) -> policy.Load | None:
    """Over all ready workers and what waits for one; None when nobody who would know says anything fresh."""
    fresh = [load for load in loads if load is not None and not _is_silent(load)]
    if not fresh:
        return _without_workers(demand, current)
    age_s = max(load.age_s for load in fresh)
    if demand is not None and not demand.open and demand.idle_s >= QUIET_S:
        return policy.Load(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, age_s)
    queued = sum(load.waiting for load in fresh)
    arriving = sum(load.requests_per_s for load in fresh)
    return policy.Load(
        # Not quiet: a request that came and went between two scrapes counts, too.
        requests_per_s=arriving if demand is None else max(arriving, 1.0 / QUIET_S),
        input_tokens_per_s=sum(load.input_tokens_per_s for load in fresh),
        output_tokens_per_s=sum(load.output_tokens_per_s for load in fresh),
        running=max(0, sum(load.requests for load in fresh) - queued),
        waiting=queued + (demand.waiting if demand else 0),
        kv_use=sum(load.kv_use for load in fresh) / len(fresh),
        age_s=age_s,
    )


def _without_workers(demand: Demanded | None, current: int) -> policy.Load | None:
    """Workers that are wanted and say nothing are no proof that there is nothing to do; a request that waits is one."""
    if demand is None or (current > 0 and not demand.waiting):
        return None
    return policy.Load(0.0, 0.0, 0.0, 0.0, demand.waiting, 0.0, 0.0)


def _is_silent(load: Load | None) -> bool:
    return load is None or load.age_s > STALE_AFTER_S
