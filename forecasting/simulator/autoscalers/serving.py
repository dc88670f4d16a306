"""The autoscalers made for LLM serving: AIBrix's KPA and APA, the planner of Dynamo, the queue model of llm-d's WVA.

Written anew from their documentation and papers; the forecasters of the planner are one-step point forecasts, as there.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np

from forecasting.profile import Profile
from forecasting.series import DAY_S
from forecasting.simulator.autoscalers.common import Highest, Sizing, whole
from forecasting.simulator.record import STEP_S, Record
from forecasting.simulator.requests import Floats
from forecasting.simulator.view import View
from forecasting.simulator.world import Slo


class AibrixKpa:
    """Panics on the ratio of the panic window's metric to the stable one's, instead of on ready replicas."""

    name = "AIBrix KPA"
    period_s = 15

    def __init__(self, target: float, stable_s: float = 60.0, panic_ratio: float = 2.0, down_s: float = 300.0) -> None:
        self._target, self._stable_s, self._panic_ratio = target, stable_s, panic_ratio
        self._panic_until_s = -math.inf
        self._highest = Highest(down_s)

    def desired(self, view: View) -> int:
        window = view.window(self._stable_s)
        if not window:
            return view.current
        stable = sum(each.running + each.waiting for each in window) / len(window)
        panic = window[-1].running + window[-1].waiting
        if panic > self._panic_ratio * max(stable, 1e-9):
            self._panic_until_s = view.now_s + self._stable_s
        if view.now_s < self._panic_until_s:
            return max(whole(panic / self._target), view.current)
        return self._highest.of(view.now_s, max(whole(stable / self._target), 1))


class AibrixApa:
    """`ceil(current × metric ÷ target)` outside a tolerance, with capped rates up and down and a slow way down."""

    name = "AIBrix APA"
    period_s = 15

    def __init__(self, target_kv: float, tolerance: float = 0.1, most_up: float = 2.0, down_s: float = 300.0) -> None:
        self._target, self._tolerance, self._most_up = target_kv, tolerance, most_up
        self._highest = Highest(down_s)

    def desired(self, view: View) -> int:
        newest = view.newest
        if newest is None:
            return view.current
        ratio = newest.kv_use / self._target * max(view.ready, 1) / max(view.current, 1)
        wish = view.current
        if ratio > 1 + self._tolerance:
            wish = min(whole(view.current * ratio), whole(view.current * self._most_up))
        elif ratio < 1 - self._tolerance:
            wish = max(whole(view.current * ratio), view.current // 2)
        return self._highest.of(view.now_s, max(wish, 1))


class Predictor(StrEnum):
    """The one-step forecasts of the planner."""

    CONSTANT = "constant"
    ARIMA = "ARIMA"
    KALMAN = "Kalman"
    SEASONAL = "Prophet-like"


def forecast_next(predictor: Predictor, seen: Floats, step_s: float) -> float:
    """The next value after `seen`, at even steps."""
    if predictor is Predictor.CONSTANT or len(seen) < 8:
        return float(seen[-1])
    if predictor is Predictor.KALMAN:
        return _local_trend(seen[-60:])
    if predictor is Predictor.ARIMA:
        return _autoregression(seen[-240:])
    return _trend_and_season(seen, step_s)


def _local_trend(seen: Floats) -> float:
    """A steady-state Kalman filter of a local linear trend (fixed gains)."""
    level, trend = float(seen[0]), 0.0
    for value in seen[1:].tolist():
        ahead = level + trend
        level, trend = ahead + 0.5 * (value - ahead), trend + 0.1 * (value - ahead)
    return max(level + trend, 0.0)


def _autoregression(seen: Floats, order: int = 3) -> float:
    """ARIMA(3,1,0) by least squares on differences."""
    steps = np.diff(seen)
    rows = np.lib.stride_tricks.sliding_window_view(steps, order + 1)
    past, target = rows[:, :-1], rows[:, -1]
    gram = past.T @ past + 1e-6 * np.eye(order) * max(float((past**2).sum()), 1e-12)
    weights = np.linalg.solve(gram, past.T @ target)
    return max(float(seen[-1] + steps[-order:] @ weights), 0.0)


def _trend_and_season(seen: Floats, step_s: float) -> float:
    """The same time of the days before, moved by how today's last hour differs from theirs."""
    day, hour = round(DAY_S / step_s), max(round(3600 / step_s), 1)
    if len(seen) <= day + hour:
        return float(seen[-1])
    backs = list(range(day, len(seen) - hour, day))[:7]
    season = float(np.mean([seen[len(seen) - back] for back in backs]))
    then = float(np.mean([seen[len(seen) - back - hour : len(seen) - back].mean() for back in backs]))
    return max(season + float(seen[-hour:].mean()) - then, 0.0)


class DynamoPlanner:
    """Every 180 s: forecast of the next interval's rate ÷ the best rate that holds the SLA; a fast loop if set.

    `correction`: the planner's factor for what it measured to be slower than its profile.
    """

    def __init__(
        self,
        sizing: Sizing,
        record: Record,
        predictor: Predictor,
        correction: float,
        fast_loop: bool,
        interval_s: int = 180,
    ) -> None:
        self.name = f"Dynamo planner ({predictor.value}{', fast loop' if fast_loop else ''})"
        self.period_s = 15 if fast_loop else interval_s
        self._sizing, self._record, self._predictor = sizing, record, predictor
        self._correction, self._fast_loop, self._interval_s = correction, fast_loop, interval_s
        self._work = record.work(sizing.input_weight)

    def desired(self, view: View) -> int:
        if view.now_s % self._interval_s == 0:
            return self._planned(view)
        newest = view.newest
        if newest is None or not self._fast_loop:
            return view.current
        held = (newest.running + newest.waiting) * self._correction
        return max(view.current, whole(held / self._sizing.running))

    def _planned(self, view: View) -> int:
        known = self._record.known_until(view.now_s)
        every = self._interval_s // STEP_S
        first = max(known % every, known - every * 4800)
        if known - first < every:
            return view.current
        seen = self._work[first:known].reshape(-1, every).mean(axis=1)
        ahead = forecast_next(self._predictor, seen, self._interval_s)
        return max(whole(ahead * self._correction / self._sizing.work_per_s), 1)


class WvaQueueModel:
    """llm-d's variant autoscaler: ITL = α + β·batch and TTFT = γ + δ·tokens·batch give the largest batch that holds the
    targets, that batch a rate a replica, and the rate the number of replicas."""

    name = "llm-d WVA"
    period_s = 60

    def __init__(
        self, sizing: Sizing, profile: Profile, slo: Slo, headroom: float, window_s: float, down_s: float
    ) -> None:
        self._headroom, self._window_s = headroom, window_s
        self._rate = _queue_model_rate(sizing, profile, slo)
        self._highest = Highest(down_s)

    def desired(self, view: View) -> int:
        rates = view.rates(self._window_s)
        if rates is None:
            return view.current
        return self._highest.of(view.now_s, max(whole(rates.requests_per_s * self._headroom / self._rate), 1))


def _queue_model_rate(sizing: Sizing, profile: Profile, slo: Slo) -> float:
    """Requests/s of one replica at the largest batch whose linear ITL and TTFT meet the targets."""
    resident = sizing.input_tokens + sizing.output_tokens / 2
    # Each answer of n tokens brings one prompt, so an iteration carries batch·prompt/n prefill tokens on average.
    prefill = sizing.input_tokens / max(sizing.output_tokens, 1.0)
    each_s = profile.gamma_s * resident + profile.beta_s + profile.delta_s * prefill
    batch_itl = (slo.tpot_s - profile.alpha_s) / each_s
    # TTFT = own prefill + one prompt of each that came in the same iteration
    prefill_s = profile.request_s + profile.delta_s * sizing.input_tokens
    batch_ttft = max((slo.ttft_s - prefill_s) / (profile.delta_s * prefill), 1.0)
    batch = max(min(batch_itl, batch_ttft, profile.max_sequences), 1.0)
    itl_s = profile.alpha_s + each_s * batch
    return float(batch / (prefill_s + itl_s * sizing.output_tokens))
