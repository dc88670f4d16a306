"""Every autoscaler with its tuning grid: the same budget of about thirty settings each, the same profile and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from forecasting.policy import Bounds, Policy, PolicySettings
from forecasting.simulator.autoscaler import Autoscaler
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.autoscalers.headroom import Hourly, Persistence, Seasonal, Static
from forecasting.simulator.autoscalers.kubernetes import Hpa, Keda, Kpa
from forecasting.simulator.autoscalers.ours import (
    Forecasts,
    Foretide,
    GrowthForecasts,
    PerfectForecasts,
    capacity_for,
)
from forecasting.simulator.autoscalers.serving import AibrixApa, AibrixKpa, DynamoPlanner, Predictor, WvaQueueModel
from forecasting.simulator.record import Record
from forecasting.simulator.world import World

OURS = "Foretide (predictive)"
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
        down_s=(120.0, 300.0, 600.0),
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


DECIDES_EVERY_S = 30


def _policy(
    quantile: float, headroom: float, stabilisation_s: float, policy: Policy, promised: float | None = None
) -> PolicySettings:
    return PolicySettings(
        policy=policy,
        quantile=quantile,
        promised=promised,
        headroom=headroom,
        horizon_s=60.0,
        hysteresis=0.0,
        up_replicas=2,
        up_share=0.5,
        down_share=0.5,
        cooldown_down_s=0.0,
        stabilisation_s=stabilisation_s,
    )


def _foretide(family: str, context: Context, forecasts: Forecasts | None, settings: PolicySettings) -> Autoscaler:
    bounds = Bounds(context.world.min_replicas, context.world.max_replicas)
    capacity = capacity_for(context.sizing)
    return Foretide(family, bounds, capacity, settings, forecasts, context.lead_s, DECIDES_EVERY_S)


def ours(context: Context) -> list[Setting]:
    """The quantile is steered by what was promised, and not tuned."""
    forecasts = GrowthForecasts(context.record, context.sizing.input_weight, context.lead_s + 60.0)

    def make(promised: float, headroom: float, stabilisation_s: float) -> Autoscaler:
        settings = _policy(0.9, headroom, stabilisation_s, Policy.PREDICTIVE, promised)
        return _foretide(OURS, context, forecasts, settings)

    much = _grid(OURS, make, promised=(0.97, 0.99, 0.995), headroom=(1.4,), stabilisation_s=(300.0, 600.0))
    return much + _grid(
        OURS,
        make,
        promised=(0.97, 0.98, 0.99, 0.995),
        headroom=(1.0, 1.08, 1.2),
        stabilisation_s=(300.0, 600.0),
    )


def reactive(context: Context) -> list[Setting]:
    family = "Foretide (reactive)"

    def make(headroom: float, stabilisation_s: float) -> Autoscaler:
        return _foretide(family, context, None, _policy(0.95, headroom, stabilisation_s, Policy.REACTIVE))

    return _grid(family, make, headroom=HEADROOMS, stabilisation_s=(120.0, 300.0, 600.0))


def perfect(context: Context) -> list[Setting]:
    forecasts = PerfectForecasts(context.record, context.sizing.input_weight, context.lead_s + 60.0)

    def make(headroom: float, stabilisation_s: float) -> Autoscaler:
        return _foretide(PERFECT, context, forecasts, _policy(0.5, headroom, stabilisation_s, Policy.PREDICTIVE))

    return _grid(PERFECT, make, headroom=(0.95, *HEADROOMS[:6]), stabilisation_s=(120.0,))
