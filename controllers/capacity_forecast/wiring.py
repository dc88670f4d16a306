"""Puts history, forecasts and their record together. Starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from controllers.capacity_forecast.board import ForecastBoard
from controllers.capacity_forecast.cold_starts import ColdStarts
from controllers.capacity_forecast.decisions import DecisionLog
from controllers.capacity_forecast.goodput import Goodput
from controllers.capacity_forecast.pool import ForecastPool
from controllers.history.interface import HistorySource, ServiceId
from controllers.history.prometheus import PrometheusHistory
from controllers.history.store import Limits, Store
from controllers.history.thread import StoreThread
from controllers.plans.capacity import profile_of
from controllers.plans.carried import MeanLengths
from controllers.plans.mig.chosen import spec_of
from controllers.runtime.interface import Background, Key, Marker
from controllers.settings import Settings
from forecasting.policy import Judged, ScalingDecision
from forecasting.standing import Forecasted, Schedule
from kube.informer import Informer
from kube.resources import Object


@dataclass(frozen=True, slots=True)
class Insight:
    """What is known beyond the moment: a `Foresight` for the controller of InferenceServices."""

    store: StoreThread
    source: HistorySource
    pool: ForecastPool
    board: ForecastBoard
    cold_starts: ColdStarts
    decisions: DecisionLog
    goodput: Goodput
    background: tuple[Background, ...] = field(default_factory=tuple)

    def follow(self, key: Key, lead_time_s: float) -> None:
        self.board.follow(ServiceId.of(key), lead_time_s)

    def forget(self, key: Key) -> None:
        self.board.forget(ServiceId.of(key))
        self.decisions.forget(ServiceId.of(key))

    def view(self, key: Key) -> Forecasted | None:
        return self.board.view(ServiceId.of(key))

    def lengths(self, key: Key) -> MeanLengths | None:
        return self.board.lengths(ServiceId.of(key))

    def is_awaited(self, key: Key) -> bool:
        return self.board.is_awaited(ServiceId.of(key))

    def judged(self, key: Key) -> Judged | None:
        return self.goodput.judged(ServiceId.of(key))

    def lead_time_s(self, profile: str) -> float:
        return self.cold_starts.lead_time_s(profile)

    def record(self, key: Key, decision: ScalingDecision) -> None:
        self.decisions.record(ServiceId.of(key), decision)


def wire_insight(settings: Settings, queue: Marker, services: Informer[Object], models: Informer[Object]) -> Insight:
    """Opens the store; everything else waits for its loop."""
    history, asked = settings.history, settings.forecasting
    path = None if history.path is None else Path(history.path) / "history.sqlite"
    store = StoreThread(Store(path, Limits(history.retention_days * 86_400.0, history.max_bytes)))
    source: HistorySource = PrometheusHistory(history.prometheus_url) if history.prometheus_url else store
    pool = ForecastPool(asked.processes, asked.timeout_s)
    schedule = Schedule(asked.step_s, asked.refresh_s, asked.history_days * 86_400.0)
    board = ForecastBoard(source, pool, queue, schedule, at_once=2 * asked.processes)
    cold_starts, decisions = ColdStarts(store, _profiles(services, models)), DecisionLog(store)
    background = (
        Background("the forecasts", lambda: _forecasting(board, pool)),
        Background("the cold starts", cold_starts.run),
        Background("the record of decisions", decisions.run),
    )
    return Insight(store, source, pool, board, cold_starts, decisions, Goodput(), background)


async def _forecasting(board: ForecastBoard, pool: ForecastPool) -> None:
    """No process outlives the loop that uses it."""
    try:
        await board.run()
    finally:
        await pool.close()


def _profiles(services: Informer[Object], models: Informer[Object]) -> Callable[[str, str], str | None]:
    def profile(namespace: str, name: str) -> str | None:
        service = services.get(namespace, name)
        if service is None:
            return None
        spec = spec_of(service)
        return profile_of(namespace, spec, models.get(namespace, spec.model))

    return profile
