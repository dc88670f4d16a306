"""The scaling policy: `plan(ScalingInput) -> ScalingDecision`, its values, and their record as JSON lines."""

from forecasting.policy.decide import plan
from forecasting.policy.record import from_json, from_plain, input_from_plain, to_json, to_plain
from forecasting.policy.values import (
    KV_USE,
    Bounds,
    Capacity,
    Direction,
    Judged,
    Load,
    LoadForecast,
    Memory,
    Policy,
    PolicySettings,
    Reason,
    RecordInvalid,
    ScalingDecision,
    ScalingInput,
    Steering,
    Window,
)

__all__ = [
    "KV_USE",
    "Bounds",
    "Capacity",
    "Direction",
    "Judged",
    "Load",
    "LoadForecast",
    "Memory",
    "Policy",
    "PolicySettings",
    "Reason",
    "RecordInvalid",
    "ScalingDecision",
    "ScalingInput",
    "Steering",
    "Window",
    "from_json",
    "from_plain",
    "input_from_plain",
    "plan",
    "to_json",
    "to_plain",
]
