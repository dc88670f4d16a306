"""Foretide's policy in the simulation: the same `policy.plan` that the operator calls, over what a view can know."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from forecasting.growth import LEVELS, Growth, Peaks, learn, peaks_of
from forecasting.policy import (
    KV_USE,
    Bounds,
    Capacity,
    Judged,
    Load,
    LoadForecast,
    Memory,
    PolicySettings,
    ScalingDecision,
    ScalingInput,
    plan,
)
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.record import STEP_S, Record
from forecasting.simulator.requests import Floats
from forecasting.simulator.view import View

LEARN_EVERY_S = 3600
RATE_WINDOW_S = 60.0
MINUTE_S = 60.0
LEAST_HISTORY_S = 3600


def capacity_for(sizing: Sizing) -> Capacity:
    """One replica as the policy takes it, and as the operator does."""
    return Capacity(sizing.work_per_s, sizing.running, KV_USE, input_weight=sizing.input_weight)


class Forecasts(Protocol):
    """Where the policy's forecast comes from."""

    def at(self, now_s: float) -> LoadForecast | None:
        """The forecast at hand at `now_s`; None while there is none."""


class GrowthForecasts:
    """Quantiles of the peak ahead, learned hourly from the record; shared by all runs on one trace."""

    def __init__(self, record: Record, input_weight: float, ahead_s: float, window_s: float = 7 * 86400.0) -> None:
        self._record, self._minutes, self._window_s = record, int(ahead_s // MINUTE_S) + 1, window_s
        work = record.work(input_weight)
        known = record.known_until(record.lag_s) or len(work)
        self._peaks: Peaks = peaks_of(work, STEP_S, unit=max(0.01 * float(work[:known].mean()), 1e-9))
        self._growth: tuple[float, Growth] | None = None
        self._made: tuple[int, LoadForecast] | None = None

    def at(self, now_s: float) -> LoadForecast | None:
        known = self._record.known_until(now_s)
        if known * STEP_S < LEAST_HISTORY_S:
            return None
        if self._made is None or self._made[0] != known:
            self._made = known, self._forecast(now_s, known)
        return self._made[1]

    def _forecast(self, now_s: float, known: int) -> LoadForecast:
        if self._growth is None or now_s - self._growth[0] >= LEARN_EVERY_S:
            delay_s = self._record.lag_s
            self._growth = now_s, learn(self._peaks, known, self._minutes, delay_s, self._window_s)
        rows = self._growth[1].quantiles(float(self._peaks.behind[known - 1])).tolist()
        return LoadForecast(now_s, MINUTE_S, LEVELS, tuple(map(tuple, rows)))


class PerfectForecasts:
    """What will come, as every quantile: what remains wrong with it is the policy's."""

    def __init__(self, record: Record, input_weight: float, ahead_s: float) -> None:
        self._work: Floats = record.work(input_weight)
        self._past, self._steps = record.past_steps, int(ahead_s // STEP_S) + 2

    def at(self, now_s: float) -> LoadForecast | None:
        first = self._past + int(now_s // STEP_S)
        ahead = self._work[first : first + self._steps].tolist()
        ahead += [ahead[-1] if ahead else 0.0] * (self._steps - len(ahead))
        return LoadForecast(
            float(now_s // STEP_S * STEP_S), STEP_S, (0.5, 0.999), tuple((each, each) for each in ahead)
        )


class Foretide:
    """`policy.plan` every `period_s` seconds. `start_s`: Unix time at which the trace begins, for schedule windows."""

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        capacity: Capacity,
        settings: PolicySettings,
        forecasts: Forecasts | None,
        lead_time_s: float,
        period_s: int = 30,
        start_s: float = 0.0,
    ) -> None:
        self._start_s = start_s
        self.name, self.period_s = name, period_s
        self._bounds, self._capacity, self._settings = bounds, capacity, settings
        self._forecasts, self._lead_time_s = forecasts, lead_time_s
        self._memory = Memory()
        self.last: ScalingDecision | None = None

    def desired(self, view: View) -> int:
        forecast = self._forecasts.at(view.now_s) if self._forecasts is not None else None
        if forecast is not None and self._start_s:
            forecast = replace(forecast, issued_s=forecast.issued_s + self._start_s)
        decision = plan(
            ScalingInput(
                now_s=self._start_s + view.now_s,
                bounds=self._bounds,
                current=view.current,
                ready=view.ready,
                load=load_of(view),
                forecast=forecast,
                capacity=self._capacity,
                lead_time_s=self._lead_time_s,
                settings=self._settings,
                memory=self._memory,
                judged=judged_of(view),
            )
        )
        self._memory, self.last = decision.memory, decision
        return decision.replicas


def judged_of(view: View) -> Judged | None:
    """What gateways would have counted."""
    newest = view.newest
    return None if newest is None else Judged(newest.at_s, newest.judged_total, newest.good_total)


def load_of(view: View) -> Load | None:
    """The measured load as the operator would have it: rates over a minute, gauges of the newest scrape."""
    newest, rates = view.newest, view.rates(RATE_WINDOW_S)
    if newest is None or rates is None:
        return None
    return Load(
        rates.requests_per_s,
        rates.input_tokens_per_s,
        rates.output_tokens_per_s,
        newest.running,
        newest.waiting,
        min(newest.kv_use, 1.0),
        view.now_s - newest.at_s,
    )
