"""`profile: auto` over the API server in memory: from pools, nodes and the Model to workers, and what it follows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controllers.inference_service.profiles import idle_worker
from controllers.plans.snapshot import Load, Worker
from kube.resources import DEPLOYMENTS, GPU_POOLS, INFERENCE_SERVICES, MODELS, NODES, SLAS, Object
from tests.controllers.inference_service.harness import (
    READY_MODEL,
    Operator,
    inference_service,
    model,
    put,
    until,
)
from tests.controllers.inference_service.pooled import NS, SETTINGS, Pooled, pooled
from tests.fakes import FakeClient
from tests.gen import snapshot, with_workers
from tests.plans.mig.pool_world import node

WHOLE = {
    "accelerator": "gpu 1",
    "measured": "2026-11-26T10:00:00Z",
    "alphaUs": "7000",
    "betaUs": "15",
    "gammaUs": "0.039",
    "deltaUs": "33",
    "requestUs": "8000",
    "kvTokens": 400_000,
    "maxSequences": 256,
    "chunkTokens": 2048,
}


class World(Pooled):
    async def pool(self, *unmet: Object, **spec: Any) -> None:
        await self.put_pool({"unmet": list(unmet)} if unmet else None, **spec)

    async def model(self, size_bytes: int, *profiles: dict[str, Any]) -> None:
        status = {**READY_MODEL, "sizeBytes": size_bytes, "format": "safetensors", "profiles": list(profiles)}
        await put(self.client, MODELS, model(NS), status)

    async def until(self, profile: str | None) -> None:
        await self.wait(lambda: self.chosen() == profile, f"{profile}")

    def chosen(self) -> str | None:
        found: str | None = (self.operator.status(NS, "chat").get("slice") or {}).get("profile")
        return found

    async def devices(self) -> set[str]:
        """Of every Deployment."""
        limits = [
            one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
            for one in await self.client.list(DEPLOYMENTS, NS)
        ]
        return {name for one in limits for name in one if name.startswith("nvidia.com/")}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with pooled(World, FakeClient()) as world:
        yield world


def service(**spec: Any) -> Object:
    return inference_service(NS, accelerator={"mig": {"profile": "auto"}}, **spec)


async def test_a_service_waits_for_a_pool_and_then_runs_on_the_smallest_slice_that_holds_its_model(
    world: World,
) -> None:
    await world.model(13_500_000_000)
    await put(world.client, INFERENCE_SERVICES, service())
    no_slices = ("True", "NoSlicesOffered")
    await until(lambda: world.operator.condition(NS, "chat", "Stalled") == no_slices, "it says what is missing")
    await world.pool()
    world.client.put(NODES, node("n0"))
    await world.until("1g.20gb")
    await until(
        lambda: world.operator.status(NS, "chat").get("replicaStatus") == "1/1",
        "the worker is ready",
        world.kubernetes.act,
        world.kubelet.act,
    )
    assert await world.devices() == {"nvidia.com/mig-1g.20gb"}
    smaller = world.operator.status(NS, "chat")["slice"]["smaller"]
    assert [one["profile"] for one in smaller] == ["1g.10gb"]
    assert "> 9 GB" in smaller[0]["reason"]


async def test_a_pool_that_cannot_be_read_stops_no_service(world: World) -> None:
    await world.model(13_500_000_000)
    unreadable = {"nodeSelector": {"pool": "other"}, "allocation": "ofTomorrow"}
    world.client.put(GPU_POOLS, {"metadata": {"name": "a-later"}, "spec": unreadable})
    await world.pool()
    world.client.put(NODES, node("n0"))
    await put(world.client, INFERENCE_SERVICES, service())
    await world.until("1g.20gb")


async def test_a_choice_outlives_its_operator_its_pool_and_new_numbers(world: World) -> None:
    await world.model(1_000_000_000, WHOLE)
    sla: Object = {"apiVersion": "foretide.dev/v1alpha1", "kind": "SLA", "metadata": {"namespace": NS, "name": "fast"}}
    await put(world.client, SLAS, sla | {"spec": {"priority": "P2", "targets": {"tpot": "30ms"}}})
    await world.pool()
    world.client.put(NODES, node("n0"))
    await put(world.client, INFERENCE_SERVICES, service(sla="fast"))
    await world.until("3g.40gb")
    before = world.operator.status(NS, "chat")["slice"]
    await world.model(1_000_000_000, WHOLE | {"alphaUs": "100"})
    await world.client.delete(GPU_POOLS, None, "gpus")
    async with Operator(world.client, settings=SETTINGS).running() as successor:
        await until(
            lambda: successor.status(NS, "chat").get("replicaStatus") == "1/1" and successor.is_idle(),
            "the successor has looked",
            world.kubernetes.act,
            world.kubelet.act,
        )
        assert successor.status(NS, "chat")["slice"] == before
        assert await world.devices() == {"nvidia.com/mig-3g.40gb"}


async def test_what_a_pool_offers_newly_wakes_the_services_that_choose(world: World) -> None:
    await world.model(1_000_000_000)
    await world.pool(profiles=["7g.80gb"])
    world.client.put(NODES, node("n0"))
    await put(world.client, INFERENCE_SERVICES, service())
    await world.until("7g.80gb")
    first = world.operator.status(NS, "chat")["currentRevision"]
    await world.pool(profiles=["1g.10gb", "7g.80gb"])
    await world.until("1g.10gb")
    assert world.operator.status(NS, "chat")["currentRevision"] != first


async def test_a_pool_that_is_short_wakes_the_services_that_it_limits_and_lets_them_go_on_later(world: World) -> None:
    await world.model(1_000_000_000)
    await world.pool(capacityClass="reserved")
    world.client.put(NODES, node("n0"))
    scaling = {"min": 3, "max": 9}
    obj = inference_service(NS, accelerator={"mig": {"profile": "1g.10gb"}}, scaling=scaling)
    await put(world.client, INFERENCE_SERVICES, obj)
    await until(lambda: world.operator.status(NS, "chat").get("desiredReplicas") == 3, "its minimum")
    short = {"service": f"{NS}/chat", "profile": "1g.10gb", "wanted": 3, "served": 1}
    await world.pool(short, capacityClass="reserved")
    limited = ("True", "PoolExhausted")
    await until(lambda: world.operator.condition(NS, "chat", "ScalingLimited") == limited, "it says who limits it")
    assert world.operator.status(NS, "chat")["desiredReplicas"] == 1
    assert world.operator.status(NS, "chat")["scaling"]["wantedReplicas"] == 3
    await world.pool({**short, "service": "demo/other"}, capacityClass="reserved")
    await until(lambda: world.operator.status(NS, "chat").get("desiredReplicas") == 3, "it goes on")
    assert world.operator.condition(NS, "chat", "ScalingLimited") is None


def test_a_worker_of_an_earlier_revision_is_not_measured_for_the_present_one() -> None:
    """It may run on another slice."""
    seen = snapshot(status={"currentRevision": "new"}, loads={"a": Load(0, 0.0), "b": Load(0, 0.0)})
    old, new = (Worker(*one, ready=True, ip=f"10.1.0.{one[0]}") for one in (("a", "old"), ("b", "new")))
    assert idle_worker(with_workers(seen, workers=(old, new))) == "10.1.0.b"
    assert idle_worker(with_workers(seen, workers=(old,))) is None
