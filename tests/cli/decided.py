"""Decisions of demo/chat on a Monday at noon: one raises 6 to 8, the next one holds."""

from __future__ import annotations

from forecasting.policy import (
    Bounds,
    Capacity,
    Load,
    LoadForecast,
    Memory,
    Policy,
    PolicySettings,
    ScalingDecision,
    ScalingInput,
    plan,
)

NOON_S = 1_772_452_800.0  # 2026-03-02 12:00 UTC


def decided(after_s: float, current: int, policy: Policy = Policy.PREDICTIVE) -> ScalingDecision:
    ahead = LoadForecast(NOON_S, 60.0, (0.1, 0.5, 0.9, 0.95), ((5100.0, 5900.0, 6800.0, 7100.0),) * 20)
    return plan(
        ScalingInput(
            now_s=NOON_S + after_s,
            bounds=Bounds(1, 12, "tenant 'acme': 12 of 16 GPUs"),
            current=current,
            ready=6,
            load=Load(12.0, 4000.0, 4100.0, 90.0, 3.0, 0.4, 2.0),
            forecast=ahead,
            capacity=Capacity(900.0, 40.0, input_weight=0.25, because="as the spec says"),
            lead_time_s=272.0,
            settings=PolicySettings(policy=policy),
            memory=Memory(since_s=0.0),
        )
    )


UP, HELD = decided(0, 6), decided(300, 8)
