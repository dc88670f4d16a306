"""The scaling policy: `plan(ScalingInput) -> ScalingDecision`, its values, and their record as JSON lines."""

from forecasting.policy.decide import plan
from forecasting.policy.record import from_json, from_plain, input_from_plain, to_json, to_plain
from forecasting.policy.values import (
    Bounds,
    Capacity,
    Direction,
    Load,
    LoadForecast,
    Memory,
    Policy,
    PolicySettings,
    Reason,
    RecordInvalid,
    ScalingDecision,
    ScalingInput,
    Window,
)

__all__ = [
    "Bounds",
    "Capacity",
    "Direction",
    "Load",
    "LoadForecast",
    "Memory",
    "Policy",
    "PolicySettings",
    "Reason",
    "RecordInvalid",
    "ScalingDecision",
    "ScalingInput",
    "Window",
    "from_json",
    "from_plain",
    "input_from_plain",
    "plan",
    "to_json",
    "to_plain",
]
