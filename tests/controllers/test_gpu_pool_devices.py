"""A GPUPool whose devices are given by ResourceClaims, on a fake API server: slices and claims are what it sees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from kube.resources import (
    DEVICE_CLASSES,
    GPU_POOLS,
    INFERENCE_SERVICES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Object,
)
from tests.controllers.running import Keys, running_pools
from tests.fakes import FakeClient
from tests.plans.mig.device_world import claim, device_class, resource_slice
from tests.plans.mig.pool_world import node
from tests.waiting import eventually


@dataclass
class World:
    api: FakeClient = field(default_factory=FakeClient)
    queue: Keys = field(default_factory=Keys)

    def classes(self) -> None:
        for name in ("gpu.nvidia.com", "mig.nvidia.com"):
            self.api.put(DEVICE_CLASSES, device_class(name))

    def pool(self, name: str = "gpus", **spec: Any) -> None:
        wanted = {"nodeSelector": {"pool": "gpus"}, "allocation": "resourceClaims", **spec}
        self.api.put(GPU_POOLS, {"metadata": {"name": name}, "spec": wanted})

    def node(self, name: str, *kinds: str) -> None:
        """Without a device plugin; its driver publishes these devices."""
        one = node(name)
        one["status"]["allocatable"] = {"cpu": "4"}
        self.api.put(NODES, one)
        self.publish(name, kinds)

    def publish(self, name: str, kinds: Sequence[str]) -> None:
        self.api.put(RESOURCE_SLICES, resource_slice(name, kinds))

    def service(self, profile: str, replicas: int, **status: Any) -> None:
        spec = {"model": "m", "accelerator": {"mig": {"profile": profile}}, "replicas": replicas}
        place = {"namespace": "demo", "name": "chat"}
        self.api.put(INFERENCE_SERVICES, {"metadata": place, "spec": spec, "status": status})

    def pod(self, name: str, device: int, service: str | None = "chat") -> None:
        labels = {"foretide.dev/inference-service": service} if service else {}
        meta = {"namespace": "demo", "name": name, "uid": f"uid-{name}", "labels": labels}
        named = [{"name": "accelerator", "resourceClaimName": f"{name}-claim"}]
        self.api.put(PODS, {"metadata": meta, "spec": {"nodeName": "n0", "resourceClaims": named, "containers": []}})
        pods = {name: f"uid-{name}"}
        self.api.put(RESOURCE_CLAIMS, claim("demo", f"{name}-claim", "n0", [device], pods))

    def status(self, name: str = "gpus") -> Object:
        return (self.api.now(GPU_POOLS, None, name) or {}).get("status") or {}

    def ready(self) -> str:
        return next((one["reason"] for one in self.status().get("conditions") or () if one["type"] == "Ready"), "")

    def node_now(self) -> Object:
        return self.api.now(NODES, None, "n0") or {}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with running_pools(world.api, world.queue):
        yield world


async def test_a_node_is_cut_and_used_again_when_its_driver_publishes_the_slices(world: World) -> None:
    world.classes()
    world.node("n0", "gpu")
    world.service("1g.10gb", 7)
    world.pool()
    await eventually(
        lambda: "nvidia.com/mig.config" in (world.node_now().get("metadata") or {}).get("labels", {}), "it is asked"
    )
    one = world.node_now()
    one["metadata"]["labels"]["nvidia.com/mig.config.state"] = "success"
    world.api.put(NODES, one)
    assert world.ready() != "AsPlanned"
    world.publish("n0", ["1g.10gb"] * 7)
    await eventually(lambda: world.ready() == "AsPlanned", "the slices are published")
    assert not world.node_now()["spec"].get("unschedulable")
    assert (world.status()["layout"], world.status()["served"]) == ("7×1g.10gb", "7/7")


async def test_devices_that_claims_hold_are_used_and_a_strangers_claim_keeps_the_node_as_it_is(world: World) -> None:
    world.classes()
    world.node("n0", "3g.40gb", "3g.40gb")
    world.service("3g.40gb", 1)
    world.pod("w0", 0)
    world.pool()
    await eventually(lambda: world.status().get("profiles", [{}])[0].get("used") == 1, "the claim is seen")
    world.pod("stranger", 1, service=None)
    world.service("1g.10gb", 7)
    await eventually(lambda: "stranger" in world.status()["nodes"][0].get("message", ""), "it is left alone")
    assert "nvidia.com/mig.config" not in world.node_now()["metadata"]["labels"]


async def test_a_missing_device_class_is_named_until_it_is_there(world: World) -> None:
    world.node("n0", "gpu")
    world.pool()
    await eventually(lambda: world.ready() == "NoDeviceClass", "it says what is missing")
    world.classes()
    await eventually(lambda: world.ready() == "AsPlanned", "the pool is ready")


async def test_a_node_whose_driver_publishes_nothing_is_named(world: World) -> None:
    world.classes()
    one = node("n0")
    one["status"]["allocatable"] = {"cpu": "4"}
    world.api.put(NODES, one)
    world.pool()
    await eventually(lambda: world.ready() == "NodeUnusable", "the node is unusable")
    assert "no ResourceSlice" in world.status()["conditions"][0]["message"]


async def test_a_service_counts_where_its_workers_can_get_their_devices(world: World) -> None:
    world.classes()
    world.node("n0", *["1g.10gb"] * 7)
    plugin = node("n1", m1g_10gb=7)
    plugin["metadata"]["labels"]["pool"] = "plugin"
    world.api.put(NODES, plugin)
    world.pool("a-plugin", nodeSelector={"pool": "plugin"}, allocation="devicePlugin")
    world.service("1g.10gb", 3, allocation="resourceClaims")
    world.pool()
    await eventually(lambda: world.status().get("served") == "3/3", "the pool that gives by claims serves it")
    await eventually(lambda: world.status("a-plugin").get("served") == "0/0", "the other one does not")
