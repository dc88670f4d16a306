"""The CapacityForecast of each service, over the API server in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from controllers.apply import Applier
from controllers.capacity_forecast.board import ForecastBoard
from controllers.capacity_forecast.cold_starts import ColdStarts
from controllers.capacity_forecast.reconciler import CapacityForecastReconciler
from controllers.history.interface import Array, Counts, HistoryUnavailable, ServiceId, empty
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.plans.capacity import profile_of
from controllers.plans.limits import Limit
from controllers.runtime.interface import Key
from controllers.wakes import forecast_of, wake
from forecasting.cost import Prices
from forecasting.standing import Schedule
from kube.informer import Informer, lean
from kube.resources import CAPACITY_FORECASTS, INFERENCE_SERVICES, MODELS, SLAS, Object
from tests.controllers.capacity_forecast.test_board import Inline
from tests.controllers.inference_service.harness import inference_service, model, put
from tests.controllers.running import Keys, running
from tests.fakes import FakeClient
from tests.gen import service_spec
from tests.waiting import eventually

NS = "demo"
CHAT = ServiceId(NS, "chat")
NOW_S = 1_800_000_000.0 // 600 * 600
MODEL = model(NS)
PROFILE = profile_of(NS, service_spec(), None)
SCALING = {"max": 9, "tokensPerSecond": 100}


class Steady:
    """A source in which 480 requests a second came, each of one output token; away when told."""

    name = "Store"
    away = False

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        if self.away:
            raise HistoryUnavailable("The embedded history cannot be read.")
        out = empty(start_s, end_s, step_s)
        for column, rate in zip(out.columns, (480, 480, 0, 480), strict=True):
            column[:] = rate * step_s + 0.0 * np.arange(len(column))
        return out

    async def arrivals(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Array:
        return (await self.read(service, start_s, end_s, step_s)).arrivals


USUAL = Prices()


@dataclass
class World:
    client: FakeClient
    keys: Keys
    source: Steady
    board: ForecastBoard
    forecasts: Informer[Object]
    services: Informer[Object]
    capacities: dict[str, float]
    limits: list[Limit]
    reconciler: Callable[[], CapacityForecastReconciler]
    """Another leader's."""

    def status(self) -> dict[str, Any]:
        return (self.forecasts.get(NS, "chat") or {}).get("status") or {}

    def ready(self) -> tuple[str, str] | None:
        return next(((one["status"], one["reason"]) for one in self.status().get("conditions") or ()), None)

    def beside(self) -> list[tuple[str, str]]:
        """Conditions beside Ready."""
        return [(one["type"], one["reason"]) for one in (self.status().get("conditions") or ())[1:]]

    async def look(self) -> None:
        await self.board.look()


@asynccontextmanager
async def world(prices: Prices = USUAL) -> AsyncIterator[World]:
    client, keys, source = FakeClient(), Keys(), Steady()
    services = Informer(client, INFERENCE_SERVICES, keep=lean)
    forecasts = Informer(client, CAPACITY_FORECASTS, keep=lean)
    models, slas = Informer(client, MODELS, keep=lean), Informer(client, SLAS, keep=lean)
    board = ForecastBoard(source, Inline(), keys, Schedule(600, 600, 86_400), clock=lambda: NOW_S)
    capacities: dict[str, float] = {}
    limits: list[Limit] = []
    cold_starts = ColdStarts(StoreThread(Store(None)), lambda *_: None)
    reconciler = partial(
        CapacityForecastReconciler,
        services,
        models,
        slas,
        forecasts,
        board,
        cold_starts,
        capacities,
        Applier(client),
        lambda _: prices,
        lambda _: tuple(limits),
    )
    wake(services, keys, forecast_of)
    async with running(keys, [reconciler()], [forecasts], [services, models, slas]):
        yield World(client, keys, source, board, forecasts, services, capacities, limits, reconciler)


async def test_a_service_that_scales_has_one_that_belongs_to_it_and_says_what_comes() -> None:
    async with world() as it:
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling=SCALING))
        await eventually(lambda: it.ready() == ("False", "Pending"), "the object", 20)
        assert it.beside() == [("Reconciling", "Pending")]
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.ready() == ("True", "Calibrated"), "the forecast", 20)
        assert it.beside() == []
        forecast, status = it.forecasts.get(NS, "chat"), it.status()
        assert forecast
        service = it.services.get(NS, "chat")
        assert service
        assert forecast["metadata"]["ownerReferences"][0]["uid"] == service["metadata"]["uid"]
        assert forecast["spec"] == {"service": "chat"}
        assert (status["load"], status["source"], status["leadTime"]) == ("480.0", "Store", "5m")
        assert status["history"] == "1d in steps of 10m, 0% missing"
        assert 5 <= status["plannedReplicas"] <= 6
        assert [one["ahead"] for one in status["horizons"]] == ["10m", "30m", "1h", "2h"]
        assert 400 < float(status["horizons"][0]["p50"]) < 560
        assert status["peak"].split()[0] in ("5", "6")
        assert status["provision"] in (9, 10), "480 tok/s × 1.5 ÷ 100, of the forecast a little more, and one"
        cost = status["cost"]
        assert cost["reserved"] + cost["onDemand"] + cost["spot"] in (5, 6)
        assert cost["reserved"] >= 4, "most of what is always there is reserved"
        assert 2 < float(cost["perHour"]) < 4, "less than five workers on demand"
        assert "reserved (pays when used over 60% of the time" in cost["message"]


async def test_a_price_beyond_all_others_is_shown_as_the_most_that_the_status_holds() -> None:
    async with world(Prices(on_demand=9e14, reserved=9e14, spot=9e14)) as it:
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling=SCALING))
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.ready() == ("True", "Calibrated"), "the forecast", 20)
        assert it.status()["cost"]["perHour"] == "999999999999.000"


async def test_replanning_after_it_was_written_writes_nothing() -> None:
    async with world() as it:
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling=SCALING))
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.ready() == ("True", "Calibrated"), "the forecast", 20)
        await eventually(lambda: not it.keys.waiting, "nothing waits", 20)
        writes, done = it.client.writes, it.keys.done
        it.keys.add(Key("CapacityForecast", NS, "chat"))
        await eventually(lambda: it.keys.done > done, "another look", 20)
        assert it.client.writes == writes


async def test_an_operator_that_just_started_does_not_wipe_what_the_last_one_said() -> None:
    async with world() as it:
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling=SCALING))
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.ready() == ("True", "Calibrated"), "the forecast", 20)
        said = it.status()
        it.board.forget(CHAT)
        done = it.keys.done
        it.keys.add(Key("CapacityForecast", NS, "chat"))
        await eventually(lambda: it.keys.done > done, "another look", 20)
        assert it.status() == said


async def test_a_source_that_is_away_is_told_there_too() -> None:
    async with world() as it:
        it.source.away = True
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling=SCALING))
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.ready() == ("False", "HistoryUnavailable"), "the reason", 20)
        assert it.beside() == [("Reconciling", "HistoryUnavailable")]


async def test_a_plan_stays_within_quota_and_pool_says_whose_limit_it_is_and_the_pool_is_asked_for_all() -> None:
    async with world() as it:
        it.limits += [
            Limit(4, "Tenant 'acme': quota of 4 replicas", "QuotaExceeded"),
            Limit(3, "GPUPool 'h100': room for 3 of 5 workers", "PoolExhausted", of_pool=True),
        ]
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling=SCALING))
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.ready() == ("True", "Calibrated"), "the forecast", 20)
        status = it.status()
        assert (status["plannedReplicas"], status["wantedReplicas"]) == (3, 4)
        assert status["limitedBy"].startswith("GPUPool 'h100': room for 3 of 5 workers, so 3 of the ")
        assert status["limitedBy"].endswith(" at the lead time")


async def test_without_a_known_capacity_there_are_loads_and_no_workers() -> None:
    async with world() as it:
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling={"max": 9}))
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.status().get("horizons"), "the forecast", 20)
        assert "plannedReplicas" not in it.status()
        assert "peak" not in it.status()
        it.capacities[PROFILE] = 160.0
        await it.look()
        it.keys.add(Key("CapacityForecast", NS, "chat"))
        await eventually(lambda: it.status().get("capacity") == "160.0", "what was learned", 20)
        assert 3 <= it.status()["plannedReplicas"] <= 4
        it.capacities.clear()
        await it.reconciler().reconcile(Key("CapacityForecast", NS, "chat"))
        assert it.capacities == {PROFILE: 160.0}, "a new leader begins with it"


async def test_what_was_learned_of_a_model_says_nothing_of_a_later_one_of_the_same_name() -> None:
    async with world() as it:
        await put(it.client, MODELS, MODEL)
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling={"max": 9}))
        it.board.follow(CHAT, 300.0)
        await it.look()
        await eventually(lambda: it.status().get("horizons"), "the forecast", 20)
        it.capacities[profile_of(NS, service_spec(), it.client.now(MODELS, NS, "m"))] = 160.0

        def because() -> str | None:
            it.keys.add(Key("CapacityForecast", NS, "chat"))
            return it.status().get("capacityReason")

        await eventually(lambda: because() == "seen at work", "what was learned", 20)
        it.client.remove(MODELS, NS, "m")
        await put(it.client, MODELS, MODEL)
        await eventually(lambda: because() == "not known yet", "nothing is known", 20)
        assert len(it.capacities) == 1


async def test_one_that_is_not_ours_is_left_alone_and_ours_goes_when_scaling_does() -> None:
    async with world() as it:
        await put(it.client, INFERENCE_SERVICES, inference_service(NS, scaling=SCALING))
        await eventually(it.ready, "the object", 20)
        patch = {"spec": {"scaling": None, "replicas": 1}}
        await it.client.merge_patch(INFERENCE_SERVICES, NS, "chat", patch)
        await eventually(lambda: it.forecasts.get(NS, "chat") is None, "it is gone", 20)
        foreign = {
            "apiVersion": "foretide.dev/v1alpha1",
            "kind": "CapacityForecast",
            "metadata": {"namespace": NS, "name": "chat"},
            "spec": {"service": "chat"},
        }
        done = it.keys.done
        await put(it.client, CAPACITY_FORECASTS, foreign)
        await eventually(lambda: it.keys.done > done, "a look at it", 20)
        assert it.forecasts.get(NS, "chat")
