"""SLAs on a fake API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from controllers.apply import Applier
from controllers.inference_service.caches import SERVICE_INDEX, TENANT_INDEX
from controllers.sla.reconciler import SlaReconciler
from controllers.wakes import of_service, wake
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import INFERENCE_SERVICES, SLAS, TENANTS, Object
from tests.controllers.running import Keys, running
from tests.fakes import FakeClient
from tests.waiting import eventually


@dataclass
class World:
    api: FakeClient = field(default_factory=FakeClient)
    queue: Keys = field(default_factory=Keys)

    def sla(self, **spec: Any) -> None:
        self.api.put(SLAS, {"metadata": {"namespace": "demo", "name": "fast"}, "spec": {"priority": "P1", **spec}})

    def service(self, name: str, **spec: Any) -> None:
        spec = {"model": "m", "accelerator": {"cpu": {}}, **spec}
        self.api.put(INFERENCE_SERVICES, {"metadata": {"namespace": "demo", "name": name}, "spec": spec})

    def status(self) -> Object:
        return (self.api.now(SLAS, "demo", "fast") or {}).get("status") or {}

    def conditions(self) -> dict[str, str]:
        return {one["type"]: one["reason"] for one in self.status().get("conditions") or []}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    services = Informer(world.api, INFERENCE_SERVICES, keep=lean, index=SERVICE_INDEX)
    slas = Informer(world.api, SLAS, keep=lean)
    tenants = Informer(world.api, TENANTS, keep=lean, index=TENANT_INDEX)
    recorder = Recorder(world.api, controller="test", instance="test")
    reconciler = SlaReconciler(slas, services, Applier(world.api), recorder)
    wake(services, world.queue, of_service(tenants))
    async with running(world.queue, [reconciler], [slas, services, tenants]):
        yield world


async def test_an_sla_says_its_budget_and_who_relies_on_it(world: World) -> None:
    world.sla(availability="99.9%", window="28d")
    world.service("chat", sla="fast")
    world.service("other")
    await eventually(lambda: world.status().get("services") == 1, "one service is counted")
    assert world.status()["errorBudget"] == "40m19s"
    assert world.status()["usedBy"] == ["chat"]
    assert world.conditions() == {"Ready": "Ready"}


async def test_contradicting_targets_stall_it_until_they_are_corrected(world: World) -> None:
    world.sla(targets={"ttft": "1s", "tpot": "1s", "e2e": "1500ms", "percentile": 99})
    await eventually(lambda: world.conditions() == {"Ready": "TargetsContradict", "Stalled": "TargetsContradict"}, "so")
    world.sla(targets={"ttft": "1s", "tpot": "50ms", "e2e": "10s", "percentile": 99})
    await eventually(lambda: world.conditions() == {"Ready": "Ready"}, "it is ready")
    assert world.status()["observedGeneration"] == 2


async def test_a_service_that_names_another_sla_is_no_longer_counted(world: World) -> None:
    world.sla()
    world.service("chat", sla="fast")
    await eventually(lambda: world.status().get("services") == 1, "one service is counted")
    world.service("chat", sla="slow")
    await eventually(lambda: world.status().get("services") == 0, "none is counted")
    writes, done = world.api.writes, world.queue.done
    world.service("more", sla="slow")
    await eventually(lambda: world.queue.done > done, "the queue moved")
    assert world.api.writes == writes
