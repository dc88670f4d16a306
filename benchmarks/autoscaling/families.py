"""Every autoscaler with its tuning grid: the same budget of about thirty settings each, the same profile and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from cli.simulation import PERIOD_S
from controllers.plans.capacity import lead_time_s
from controllers.plans.scaling import settings_of
from crds.scaling import Scaling, ScalingPolicy
from forecasting.near import BEYOND_S
from forecasting.policy import Bounds
from forecasting.simulator.autoscaler import Autoscaler
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.autoscalers.headroom import Hourly, Persistence, Seasonal, Static
from forecasting.simulator.autoscalers.kubernetes import Hpa, Keda, Kpa
from forecasting.simulator.autoscalers.ours import (
    Forecasts,
    Foretide,
    PerfectForecasts,
    capacity_for,
)
from forecasting.simulator.autoscalers.serving import AibrixApa, AibrixKpa, DynamoPlanner, Predictor, WvaQueueModel
from forecasting.simulator.record import Record
from forecasting.simulator.world import World

OURS = "Foretide (predictive)"
REACTIVE = "Foretide (reactive)"
PERFECT = "perfect forecast + our policy"


@dataclass(frozen=True, slots=True)
class Setting:
    """One autoscaler at one setting; `label` says which."""

    family: str
    label: str
    make: Callable[[], Autoscaler]


@dataclass(frozen=True, slots=True)
class Context:
    """What autoscalers are told: one replica's numbers, the world's limits, the load up to now."""

    world: World
    sizing: Sizing
    record: Record
    foretold: Forecasts
    """What the operator would foretell."""

    @property
    def lead_s(self) -> float:
        return self.world.cold_start.p95_s()


def all_settings(context: Context, *, full: bool = True) -> list[Setting]:
    """Every family's grid; a quick run takes every fourth setting."""
    families = [
        static(context), hpa_kv(context), hpa_queue(context), keda(context), kpa(context), aibrix_kpa(context),
        aibrix_apa(context), dynamo(context), wva(context), persistence(context), seasonal(context), hourly(context),
        ours(context), reactive(context), perfect(context),
    ]  # fmt: skip
    return [setting for family in families for setting in (family if full else family[::4])]


def static(context: Context) -> list[Setting]:
    sizes = [*range(1, 21), *range(22, 42, 2), *range(45, 101, 5)]
    most = context.world.max_replicas
    return _grid("static peak", Static, replicas=tuple(n for n in sizes if n <= most))


def _grid(family: str, make: Callable[..., Autoscaler], **axes: tuple[object, ...]) -> list[Setting]:
    names = list(axes)
    return [
        Setting(
            family,
            ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True)),
            _later(make, values),
        )
        for values in product(*axes.values())
    ]


def _later(make: Callable[..., Autoscaler], values: tuple[object, ...]) -> Callable[[], Autoscaler]:
    return lambda: make(*values)


KV_TARGETS = (0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.27, 0.35)
HELD = (0.1, 0.14, 0.18, 0.22, 0.27, 0.33, 0.4, 0.5, 0.65, 0.8)
"""Requests a replica as shares of what it holds at its most."""
DOWN_S = (120.0, 300.0, 900.0)
HEADROOMS = (1.0, 1.04, 1.08, 1.12, 1.16, 1.2, 1.25, 1.3, 1.4, 1.6)
DELAYS_S = (300.0, 600.0, 900.0)
"""Of scaling down, for who follows the load, ours and the best baseline alike."""


def hpa_kv(context: Context) -> list[Setting]:
    return _grid("HPA (KV use)", lambda target, down_s: Hpa("KV use", target, down_s), target=KV_TARGETS, down_s=DOWN_S)


def hpa_queue(context: Context) -> list[Setting]:
    targets = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    return _grid("HPA (queue)", lambda target, down_s: Hpa("queue", target, down_s), target=targets, down_s=DOWN_S)


def keda(context: Context) -> list[Setting]:
    def make(held: float, down_s: float) -> Autoscaler:
        return Keda(held * context.sizing.running, True, down_s)

    queue_only = _grid("KEDA", lambda target, down_s: Keda(target, False, down_s), waiting=(0.5, 2.0), down_s=DOWN_S)
    return queue_only + _grid("KEDA", make, held=HELD[1:9], down_s=DOWN_S)


def kpa(context: Context) -> list[Setting]:
    running = context.sizing.running
    return _grid(
        "Knative KPA",
        lambda held, down_s: Kpa(held * running, 60.0, 2.0, down_s),
        held=HELD,
        down_s=(0.0, 300.0, 900.0),
    )


def aibrix_kpa(context: Context) -> list[Setting]:
    running = context.sizing.running
    return _grid(
        "AIBrix KPA", lambda held, down_s: AibrixKpa(held * running, 60.0, 2.0, down_s), held=HELD, down_s=DOWN_S
    )


def aibrix_apa(context: Context) -> list[Setting]:
    return _grid("AIBrix APA", lambda kv, down_s: AibrixApa(kv, 0.1, 2.0, down_s), target_kv=KV_TARGETS, down_s=DOWN_S)


def dynamo(context: Context) -> list[Setting]:
    sizing, record = context.sizing, context.record
    return _grid(
        "Dynamo planner",
        lambda predictor, correction, fast: DynamoPlanner(sizing, record, predictor, correction, fast),
        predictor=tuple(Predictor),
        correction=(1.0, 1.06, 1.12, 1.18, 1.25, 1.35, 1.5, 1.7),
        fast_loop=(False, True),
    )


def wva(context: Context) -> list[Setting]:
    world, sizing = context.world, context.sizing
    return _grid(
        "llm-d WVA",
        lambda headroom, down_s: WvaQueueModel(sizing, world.profile, world.slo, headroom, 60.0, down_s),
        headroom=(1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.7),
        down_s=DOWN_S,
    )


def persistence(context: Context) -> list[Setting]:
    sizing = context.sizing
    return _grid(
        "persistence + headroom",
        lambda headroom, down_s: Persistence(sizing, headroom, 60.0, down_s),
        headroom=HEADROOMS,
        down_s=DELAYS_S,
    )


def seasonal(context: Context) -> list[Setting]:
    sizing, record, lead_s = context.sizing, context.record, context.lead_s
    return _grid(
        "seasonal naive + headroom",
        lambda headroom, season_s: Seasonal(sizing, record, headroom, lead_s, season_s),
        headroom=(0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.3, 2.6, 3.0, 3.5, 4.0),
        season_s=(86_400.0, 604_800.0),
    )


def hourly(context: Context) -> list[Setting]:
    sizing, record, lead_s = context.sizing, context.record, context.lead_s
    return _grid(
        "hourly predictive",
        lambda headroom, days: Hourly(sizing, record, headroom, lead_s, days, 300.0),
        headroom=HEADROOMS,
        days=(1, 7, 14),
    )


def _as_operator(
    family: str,
    context: Context,
    forecasts: Forecasts | None,
    headroom: float,
    delay_s: float,
    promised: float | None = None,
) -> Autoscaler:
    """What the operator makes of `spec.scaling`: headroom is taken by a smaller `tokensPerSecond`, delay_s is its
    `scaleDownDelay`, and promised what the SLA asks for."""
    world, policy = context.world, ScalingPolicy.REACTIVE if forecasts is None else ScalingPolicy.PREDICTIVE
    scaling = Scaling(min=world.min_replicas, max=world.max_replicas, policy=policy, scale_down_delay=f"{delay_s:.0f}s")
    settings = settings_of(scaling, None if promised is None else replace(world.slo, attainment=promised))
    capacity = capacity_for(context.sizing)
    capacity = replace(capacity, work_per_s=capacity.work_per_s / headroom)
    bounds = Bounds(world.min_replicas, world.max_replicas)
    return Foretide(family, bounds, capacity, settings, forecasts, lead_time_s([context.lead_s]), PERIOD_S)


def ours(context: Context) -> list[Setting]:
    """By the operator's own forecast; the quantile is steered by what was promised."""

    def make(promised: float, headroom: float, delay_s: float) -> Autoscaler:
        return _as_operator(OURS, context, context.foretold, headroom, delay_s, promised)

    little = _grid(OURS, make, promised=(0.95,), headroom=(0.8, 0.87, 0.94, 1.0, 1.1), delay_s=DELAYS_S)
    usual = _grid(OURS, make, promised=(0.99,), headroom=(0.94, 1.0, 1.1), delay_s=DELAYS_S)
    return [*little, *usual, *_grid(OURS, make, promised=(0.999,), headroom=(1.1, 1.3, 1.6), delay_s=(600.0, 900.0))]


def reactive(context: Context) -> list[Setting]:
    def make(headroom: float, delay_s: float) -> Autoscaler:
        return _as_operator(REACTIVE, context, None, headroom, delay_s)

    return _grid(REACTIVE, make, headroom=HEADROOMS, delay_s=DELAYS_S)


def perfect(context: Context) -> list[Setting]:
    ahead_s = lead_time_s([context.lead_s]) + BEYOND_S
    forecasts = PerfectForecasts(context.record, context.sizing.input_weight, ahead_s)

    def make(headroom: float, delay_s: float) -> Autoscaler:
        return _as_operator(PERFECT, context, forecasts, headroom, delay_s)

    return _grid(PERFECT, make, headroom=(0.9, 0.95, *HEADROOMS[:6]), delay_s=(120.0,))
