"""Scaling over the API server in memory: to zero and back, ahead of a load, beside others, within a quota."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from controllers.history.interface import ServiceId
from controllers.inference_service.worker_profile import WorkerProfile
from controllers.plans.carried import MeanLengths
from controllers.plans.snapshot import Demanded
from controllers.runtime.interface import Key
from forecasting.policy import LoadForecast, ScalingDecision
from forecasting.standing import Forecasted
from kube.resources import HORIZONTAL_POD_AUTOSCALERS, INFERENCE_SERVICES, MODELS, SLAS, TENANTS, Object
from tests.controllers.inference_service.harness import (
    FakePorts,
    Kubernetes,
    MemoryKubelet,
    Operator,
    ground,
    inference_service,
    put,
    revisions,
    tenant,
    until,
)
from tests.fakes import FakeClient

NS = "demo"
CHAT = ServiceId(NS, "chat")


@dataclass
class Oracle:
    """A `Foresight` whose word is the test's."""

    said: Forecasted | None = None
    mean: MeanLengths | None = None
    awaited: bool = False
    followed: set[Key] = field(default_factory=set)
    decisions: list[ScalingDecision] = field(default_factory=list)

    def follow(self, key: Key, lead_time_s: float) -> None:
        self.followed.add(key)

    def forget(self, key: Key) -> None:
        self.followed.discard(key)

    def view(self, key: Key) -> Forecasted | None:
        return self.said

    def judged(self, key: Key) -> None:
        return None

    def is_awaited(self, key: Key) -> bool:
        return self.awaited

    def lengths(self, key: Key) -> MeanLengths | None:
        return self.mean

    def lead_time_s(self, profile: str) -> float:
        return 300.0

    def record(self, key: Key, decision: ScalingDecision) -> None:
        self.decisions.append(decision)


@dataclass
class World:
    client: FakeClient
    operator: Operator
    oracle: Oracle
    kubernetes: Kubernetes
    kubelet: MemoryKubelet

    @property
    def ports(self) -> FakePorts:
        return self.operator.ports

    async def until(self, condition: Any, what: str) -> None:
        await until(condition, what, self.kubernetes.act, self.kubelet.act, self._answer)

    async def _answer(self) -> None:
        """Every worker that has an address holds nothing, unless the test says otherwise."""
        for entry in self.operator.caches.pods.items():
            if entry.worker.ip:
                self.ports.held.setdefault(entry.worker.ip, 0)

    async def workers(self, number: int) -> None:
        """Until that many are wanted and ready."""
        want = f"{number}/{number}"
        await self.until(lambda: self.status().get("replicaStatus") == want, f"{want}; it is {self.status()}")

    def status(self) -> dict[str, Any]:
        return self.operator.status(NS, "chat")

    def foretell(self, work_per_s: float, *, trusted: bool = True) -> None:
        now_s = self.operator.wall_s()
        forecast = LoadForecast(now_s, 600.0, (0.5, 0.95), ((work_per_s, work_per_s),) * 24, calibrated=trusted)
        self.oracle.said = Forecasted(forecast, trusted, "Calibrated" if trusted else "CoverageLost", "as it is")
        self.operator.queue.add(Key("InferenceService", NS, "chat"))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("controllers.inference_service.loads.PERIOD_S", 0.02)
    monkeypatch.setattr("controllers.inference_service.demand.PERIOD_S", 0.02)
    client, oracle = FakeClient(), Oracle()
    await ground(client, NS)
    async with Operator(client, foresight=oracle).running() as operator:
        yield World(client, operator, oracle, Kubernetes(client, NS), MemoryKubelet(client, NS))


def scaled(**scaling: Any) -> Object:
    return inference_service(NS, scaling={"max": 5, "min": 1, "targetConcurrency": 4} | scaling)


async def test_a_service_sleeps_when_idle_and_a_waiting_request_wakes_it(world: World) -> None:
    world.ports.demanded = {CHAT: Demanded(0, 0, 0.0)}
    await put(world.client, INFERENCE_SERVICES, scaled(min=0, idlePeriod="50ms", scaleDownDelay="50ms"))
    await world.workers(1)
    world.ports.demanded = {CHAT: Demanded(0, 0, 60.0)}
    await world.workers(0)
    assert world.operator.condition(NS, "chat", "Servable") == ("False", "NoReadyWorkers")
    assert world.status()["scaling"]["lastDecision"]["reason"] == "Idle"
    world.ports.demanded = {CHAT: Demanded(2, 2, 0.0)}
    await world.until(lambda: world.status().get("desiredReplicas") == 1, "the request wakes it")
    world.ports.demanded = {CHAT: Demanded(0, 0, 0.0)}
    await world.until(lambda: ("Normal", "ScaledUp") in {note[:2] for note in world.operator.told.notes}, "an Event")
    assert any("0 → 1 replicas: 0 running + 2 waiting ÷ 4 each" in note[2] for note in world.operator.told.notes)


async def test_a_predictive_service_grows_before_the_load_and_a_reactive_one_does_not(world: World) -> None:
    await put(world.client, INFERENCE_SERVICES, scaled(policy="reactive", tokensPerSecond=100))
    await world.workers(1)
    world.foretell(400.0)
    decisions = len(world.oracle.decisions)
    await world.until(lambda: len(world.oracle.decisions) > decisions + 5, "more decisions")
    assert world.status()["desiredReplicas"] == 1
    await put(world.client, INFERENCE_SERVICES, scaled(policy="predictive", tokensPerSecond=100))
    await world.workers(4)
    assert world.operator.condition(NS, "chat", "ForecastTrusted") == ("True", "Calibrated")
    assert "p95 load 400 tok/s" in world.status()["scaling"]["lastDecision"]["message"]


@pytest.mark.parametrize("work_per_s", [float("nan"), float("inf"), -1e9, 1e15, 1000 * 400.0])
async def test_a_wild_forecast_moves_nothing(world: World, work_per_s: float) -> None:
    await put(world.client, INFERENCE_SERVICES, scaled(policy="predictive", tokensPerSecond=100))
    await world.workers(1)
    world.foretell(work_per_s)
    await world.until(lambda: world.oracle.decisions[-1].forecast_ignored, "the forecast is looked at")
    assert world.oracle.decisions[-1].replicas == 1
    assert await revisions(world.client, NS) == {world.status()["currentRevision"]: 1}


async def test_a_forecast_that_loses_its_calibration_is_told_once_and_regained(world: World) -> None:
    await put(world.client, INFERENCE_SERVICES, scaled(policy="predictive", tokensPerSecond=100))
    await world.workers(1)
    world.foretell(100.0)
    trusted = ("True", "Calibrated")
    await world.until(lambda: world.operator.condition(NS, "chat", "ForecastTrusted") == trusted, "trust")
    world.foretell(400.0, trusted=False)
    lost = ("False", "CoverageLost")
    await world.until(lambda: world.operator.condition(NS, "chat", "ForecastTrusted") == lost, "no trust")
    assert world.status()["scaling"]["policy"] == "reactive"
    assert [note[1] for note in world.operator.told.notes].count("ForecastDemoted") == 1
    assert world.status()["desiredReplicas"] == 1
    world.foretell(400.0)
    await world.workers(4)


async def test_advice_is_written_and_nothing_else(world: World) -> None:
    service = inference_service(
        NS, replicas=2, scaling={"max": 9, "policy": "advisory", "tokensPerSecond": 100, "targetConcurrency": 4}
    )
    await put(world.client, INFERENCE_SERVICES, service)
    await world.workers(2)
    world.foretell(500.0)
    await world.until(lambda: world.status()["scaling"].get("advisedReplicas") == 5, "advice")
    assert (world.status()["desiredReplicas"], world.status()["scaling"]["policy"]) == (2, "advisory")


async def test_beside_another_autoscaler_the_number_is_left_alone_until_it_goes(world: World) -> None:
    await put(world.client, INFERENCE_SERVICES, scaled(policy="predictive", tokensPerSecond=100))
    await world.workers(1)
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "namespace": NS,
            "name": "keda-hpa-chat",
            "ownerReferences": [{"kind": "ScaledObject", "name": "c"}],
        },
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "foretide.dev/v1alpha1", "kind": "InferenceService", "name": "chat"},
        },
    }
    await put(world.client, HORIZONTAL_POD_AUTOSCALERS, hpa)
    held = ("True", "OtherAutoscaler")
    await world.until(lambda: world.operator.condition(NS, "chat", "ScalingHeld") == held, "held")
    world.foretell(400.0)
    assert world.status()["desiredReplicas"] == 1
    await world.client.delete(HORIZONTAL_POD_AUTOSCALERS, NS, "keda-hpa-chat")
    await world.workers(4)
    assert world.operator.condition(NS, "chat", "ScalingHeld") is None


async def test_a_quota_bounds_what_a_forecast_asks_for_and_says_so(world: World) -> None:
    await put(world.client, TENANTS, tenant(NS, replicas=2))
    await put(world.client, INFERENCE_SERVICES, scaled(policy="predictive", tokensPerSecond=100))
    await world.workers(1)
    world.foretell(400.0)
    await world.workers(2)
    assert world.operator.condition(NS, "chat", "Stalled") == ("True", "QuotaExceeded")


async def test_an_idle_worker_is_measured_once_and_its_targets_bound_what_it_carries(world: World) -> None:
    sla = {"metadata": {"namespace": NS, "name": "fast"}, "spec": {"priority": "P1", "targets": {"tpot": "50ms"}}}
    await put(world.client, SLAS, {"apiVersion": "foretide.dev/v1alpha1", "kind": "SLA"} | sla)
    world.ports.profile = WorkerProfile(7e-3, 15e-6, 39e-9, 33e-6, 8e-3, 400_000, 256, 2048)
    world.oracle.mean = MeanLengths(1000.0, 200.0)
    await put(world.client, INFERENCE_SERVICES, scaled(policy="predictive"))
    await world.client.merge_patch(INFERENCE_SERVICES, NS, "chat", {"spec": {"sla": "fast"}})
    await world.workers(1)
    model = world.operator.caches.models.get(NS, "m")
    assert model
    found = world.operator.wired.profiles.measured
    await world.until(lambda: found(model["metadata"]["uid"]), "a measurement")
    assert len(world.ports.measured) == 1, "one worker, once"
    profile = found(model["metadata"]["uid"])[0]
    assert (profile.accelerator, float(profile.gamma_us)) == ("cpu 1", 0.039)
    # As the controller of Models does it.
    await world.client.merge_patch(MODELS, NS, "m", {"status": {"profiles": [profile.dump()]}}, subresource="status")
    world.foretell(9000.0)
    await world.workers(2)
    assert "the most with TPOT ≤ 50 ms for 99%" in world.status()["scaling"]["lastDecision"]["message"]
    assert not found(model["metadata"]["uid"]), "it is in the status now"
    assert len(world.ports.measured) == 1


async def test_a_worker_that_does_not_measure_itself_is_left_alone_for_a_while(world: World) -> None:
    await put(world.client, INFERENCE_SERVICES, scaled(policy="reactive"))
    await world.workers(1)
    await world.until(lambda: world.ports.measured, "it was asked")
    decisions = len(world.oracle.decisions)
    await world.until(lambda: len(world.oracle.decisions) > decisions + 5, "more looks")
    assert len(world.ports.measured) == 1


async def test_a_service_that_scales_no_more_is_followed_no_more(world: World) -> None:
    await put(world.client, INFERENCE_SERVICES, scaled(policy="predictive"))
    await world.workers(1)
    assert world.oracle.followed == {Key("InferenceService", NS, "chat")}
    await world.client.merge_patch(INFERENCE_SERVICES, NS, "chat", {"spec": {"scaling": None, "replicas": 1}})
    await world.until(lambda: not world.oracle.followed, "it is forgotten")
