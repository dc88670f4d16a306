"""GPUPools on a fake API server, beside a stand-in of NVIDIA's MIG manager and a scheduler's side of the Nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from controllers.gpu_pool.remembered import Remembered
from controllers.plans.mig.demand import Plan, PlanSettings, Unit, Want
from controllers.plans.mig.faults import Quarantine
from controllers.plans.mig.geometry import family, resource_name
from controllers.runtime.interface import Key
from crds.contract import ANNOTATION_QUARANTINE
from kube.resources import (
    CAPACITY_FORECASTS,
    CONFIG_MAPS,
    GPU_POOLS,
    INFERENCE_SERVICES,
    NODES,
    PODS,
    SLAS,
    TENANTS,
    Object,
)
from tests.controllers.running import Keys, running_pools
from tests.fakes import FakeClient
from tests.plans.mig.pool_world import node
from tests.waiting import eventually


@dataclass
class World:
    api: FakeClient = field(default_factory=FakeClient)
    queue: Keys = field(default_factory=Keys)

    def pool(self, **spec: Any) -> None:
        self.api.put(GPU_POOLS, {"metadata": {"name": "gpus"}, "spec": {"nodeSelector": {"pool": "gpus"}, **spec}})

    def node(self, name: str, **slices: int) -> None:
        self.api.put(NODES, node(name, 1, "NVIDIA-H100-80GB-HBM3", **slices))

    def service(self, name: str, profile: str, replicas: int, **spec: Any) -> None:
        wanted = {"model": "m", "accelerator": {"mig": {"profile": profile}}, "replicas": replicas, **spec}
        self.api.put(INFERENCE_SERVICES, {"metadata": {"namespace": "demo", "name": name}, "spec": wanted})

    def now(self, name: str) -> Object:
        return self.api.now(NODES, None, name) or {}

    def status(self, pool: str = "gpus") -> Object:
        return (self.api.now(GPU_POOLS, None, pool) or {}).get("status") or {}

    def conditions(self) -> dict[str, str]:
        return {one["type"]: one["reason"] for one in self.status().get("conditions") or []}

    def asked(self, name: str) -> str:
        return str(self.now(name)["metadata"]["labels"].get("nvidia.com/mig.config", ""))

    def manager_cuts(self, name: str) -> None:
        """What the MIG manager does: reads its configuration, cuts, and says success."""
        config = self.api.now(CONFIG_MAPS, "gpu-operator", "foretide-mig-parted") or {}
        entry = yaml.safe_load(config["data"]["config.yaml"])["mig-configs"][self.asked(name)]
        devices: dict[str, str] = {}
        for part in entry:
            for profile, count in (part["mig-devices"] if part["mig-enabled"] else {"gpu": 1}).items():
                devices[resource_name(profile)] = str(count * len(part["devices"]))
        one = self.now(name)
        one["status"]["allocatable"] = devices
        one["metadata"]["labels"]["nvidia.com/mig.config.state"] = "success"
        self.api.put(NODES, one)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with running_pools(world.api, world.queue):
        yield world


async def test_a_node_is_cut_as_services_want_and_the_status_says_why(world: World) -> None:
    world.node("n0")
    world.service("chat", "1g.10gb", 5, sla="fast")
    world.api.put(SLAS, {"metadata": {"namespace": "demo", "name": "fast"}, "spec": {"priority": "P1"}})
    world.pool()
    await eventually(lambda: world.asked("n0") != "", "the manager is asked")
    assert world.now("n0")["spec"]["unschedulable"] is True
    assert world.conditions()["Reconciling"] == "Repartitioning"
    world.manager_cuts("n0")
    await eventually(lambda: world.conditions().get("Ready") == "AsPlanned", "the pool is as planned")
    assert not world.now("n0")["spec"].get("unschedulable")
    status = world.status()
    assert (status["layout"], status["served"], status["gpus"]) == ("2g.20gb + 5×1g.10gb", "5/5", 1)
    assert "5 of 5 workers get a slice on 1 GPUs" in status["reason"]
    assert status["profiles"][1] == {"profile": "1g.10gb", "slices": 5, "used": 0, "wanted": 5}


async def test_a_service_that_leaves_the_choice_to_us_is_counted_with_what_was_chosen(world: World) -> None:
    world.node("n0")
    world.service("chat", "auto", 5)
    world.pool()
    await eventually(lambda: world.conditions().get("Ready") == "AsPlanned", "the pool is as planned")
    assert (world.asked("n0"), world.status()["served"]) == ("", "0/0")
    service = world.api.now(INFERENCE_SERVICES, "demo", "chat") or {}
    chosen = {"slice": {"profile": "1g.10gb", "fits": True, "inputs": "a", "reason": "small"}}
    world.api.put(INFERENCE_SERVICES, service | {"status": chosen})
    await eventually(lambda: world.asked("n0") != "", "the manager is asked")
    world.manager_cuts("n0")
    await eventually(lambda: world.status()["served"] == "5/5", "its slices are there")


async def test_a_service_counts_in_a_pool_that_may_cut_its_profile(world: World) -> None:
    world.node("n0", m1g_10gb=7)
    elsewhere = node("n1", 1, "NVIDIA-H100-80GB-HBM3")
    elsewhere["metadata"]["labels"]["pool"] = "large"
    world.api.put(NODES, elsewhere)
    large = {"nodeSelector": {"pool": "large"}, "profiles": ["7g.80gb"]}
    world.api.put(GPU_POOLS, {"metadata": {"name": "a-first"}, "spec": large})
    world.service("chat", "1g.10gb", 5)
    world.pool()
    await eventually(lambda: world.status().get("served") == "5/5", "the pool that may cut it serves it")


async def test_a_service_counts_with_what_it_calls_for_and_not_with_what_the_pool_left_it(world: World) -> None:
    world.node("n0", m3g_40gb=2)
    spec = {"model": "m", "accelerator": {"mig": {"profile": "3g.40gb"}}, "scaling": {"min": 1, "max": 9}}
    limited = {"desiredReplicas": 2, "scaling": {"policy": "reactive", "wantedReplicas": 6}}
    service = {"metadata": {"namespace": "demo", "name": "chat"}, "spec": spec, "status": limited}
    world.api.put(INFERENCE_SERVICES, service)
    world.pool()
    await eventually(lambda: world.status().get("served") == "2/6", "all six are counted")
    assert world.status()["unmet"] == [{"service": "demo/chat", "profile": "3g.40gb", "wanted": 6, "served": 2}]


async def test_a_rise_behind_a_limit_is_looked_at_when_it_comes(world: World) -> None:
    world.node("n0", m3g_40gb=2)
    spec = {"model": "m", "accelerator": {"mig": {"profile": "3g.40gb"}}, "scaling": {"min": 1, "max": 9}}
    service = {"metadata": {"namespace": "demo", "name": "chat"}, "spec": spec, "status": {"desiredReplicas": 2}}
    world.api.put(INFERENCE_SERVICES, service)
    world.pool()
    await eventually(lambda: world.status().get("served") == "2/2", "it has what it wants")
    limited: dict[str, Any] = {"desiredReplicas": 2, "scaling": {"policy": "reactive", "wantedReplicas": 4}}
    world.api.put(INFERENCE_SERVICES, service | {"status": limited})
    await eventually(lambda: world.status().get("served") == "2/4", "what it calls for now")
    foretold = {"plannedReplicas": 2, "wantedReplicas": 6}
    forecast = {"metadata": {"namespace": "demo", "name": "chat"}, "spec": {"service": "chat"}, "status": foretold}
    world.api.put(CAPACITY_FORECASTS, forecast)
    await eventually(lambda: world.status().get("served") == "2/6", "what is foretold")
    world.api.put(CAPACITY_FORECASTS, forecast | {"status": foretold | {"wantedReplicas": 8}})
    await eventually(lambda: world.status().get("served") == "2/8", "what is foretold now")
    limited["scaling"] = {"policy": "reactive", "wantedReplicas": 9}
    world.api.put(INFERENCE_SERVICES, service | {"status": limited})
    await eventually(lambda: world.status().get("served") == "2/9", "more than is foretold")


async def test_a_service_on_shared_gpus_counts_in_the_pool_that_shares_so(world: World) -> None:
    one = node("n0", 1, "Tesla-T4")
    shared = {"sharing-strategy": "time-slicing", "replicas": "4", "memory": "15360"}
    one["metadata"]["labels"] |= {f"nvidia.com/gpu.{key}": value for key, value in shared.items()}
    one["status"]["allocatable"] = {"nvidia.com/gpu.shared": "4"}
    world.api.put(NODES, one)
    on = {"shared": {"strategy": "timeSlicing", "gigabytes": 4}}
    wanted = {"model": "m", "accelerator": on, "replicas": 3}
    world.api.put(INFERENCE_SERVICES, {"metadata": {"namespace": "demo", "name": "chat"}, "spec": wanted})
    limits = {"nvidia.com/gpu.shared": "1"}
    spec = {"nodeName": "n0", "containers": [{"name": "c", "resources": {"limits": limits}}]}
    labels = {"foretide.dev/inference-service": "chat"}
    world.api.put(PODS, {"metadata": {"namespace": "demo", "name": "w", "labels": labels}, "spec": spec})
    world.pool()
    share = {"strategy": "timeSlicing", "replicas": 4, "gigabytes": 4, "shares": 4, "used": 1}
    await eventually(lambda: world.status().get("sharing") == [share], "the share in use is counted")
    await eventually(lambda: world.status()["served"] == "3/3", "the service is counted")
    await eventually(lambda: world.conditions().get("Ready") == "AsPlanned", "a shared node is as planned")


async def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.node("n0", m1g_10gb=7)
    world.service("chat", "1g.10gb", 5)
    world.pool()
    await eventually(lambda: world.conditions().get("Ready") == "AsPlanned", "the pool is as planned")
    writes, done = world.api.writes, world.queue.done
    world.queue.add(Key(GPU_POOLS.kind, None, "gpus"))
    await eventually(lambda: world.queue.done > done, "it was looked at again")
    assert world.api.writes == writes


async def test_workers_that_found_no_other_place_are_drained_and_pods_of_others_are_not(world: World) -> None:
    world.node("n0", m1g_10gb=7)
    world.node("n1", m1g_10gb=7)
    for name, labels, where in (("w", {"foretide.dev/inference-service": "old"}, "n0"), ("x", {}, "n1")):
        limits = {"nvidia.com/mig-1g.10gb": "1"}
        spec = {"nodeName": where, "containers": [{"name": "c", "resources": {"limits": limits}}]}
        world.api.put(PODS, {"metadata": {"namespace": "demo", "name": name, "labels": labels}, "spec": spec})
    world.service("large", "3g.40gb", 2)
    world.pool(repartition={"moveTimeout": "1ms"})
    await eventually(lambda: world.asked("n0") != "", "the manager is asked")
    assert world.api.now(PODS, "demo", "w") is None
    assert world.api.now(PODS, "demo", "x") is not None
    assert world.asked("n1") == ""


async def test_a_pool_that_goes_lets_a_node_come_to_its_end_first(world: World) -> None:
    world.node("n0")
    world.service("chat", "1g.10gb", 5)
    world.pool()
    await eventually(lambda: world.asked("n0") != "", "the manager is asked")
    await world.api.delete(GPU_POOLS, None, "gpus")
    assert world.api.now(GPU_POOLS, None, "gpus") is not None
    world.manager_cuts("n0")
    await eventually(lambda: world.api.now(GPU_POOLS, None, "gpus") is None, "the pool is gone")
    assert not world.now("n0")["spec"].get("unschedulable")


async def test_a_node_out_of_use_that_leaves_its_pool_comes_back_when_its_time_is_over(world: World) -> None:
    world.node("n0")
    over = Quarantine(0.0, 1.0, 119, "GPU-1", 1, cordoned=True)
    one = world.now("n0")
    one["metadata"]["labels"] |= {"pool": "repair", "foretide.dev/evacuate": "true"}
    one["metadata"].setdefault("annotations", {})[ANNOTATION_QUARANTINE] = over.dump()
    one["spec"]["unschedulable"] = True
    world.api.put(NODES, one)
    world.pool()
    await eventually(lambda: not world.now("n0")["spec"].get("unschedulable"), "it is used again")
    assert "foretide.dev/evacuate" not in world.now("n0")["metadata"]["labels"]


async def test_what_another_release_wrote_stops_no_pool_but_its_own(world: World) -> None:
    elsewhere = node("n1", 1, "NVIDIA-H100-80GB-HBM3")
    elsewhere["metadata"]["labels"]["pool"] = "later"
    world.node("n0", m1g_10gb=7)
    world.api.put(NODES, elsewhere)
    unreadable = {"nodeSelector": {"pool": "later"}, "allocation": "ofTomorrow"}
    world.api.put(GPU_POOLS, {"metadata": {"name": "a-later"}, "spec": unreadable})
    world.service("chat", "1g.10gb", 5)
    world.service("tomorrow", "1g.10gb", 3, rollout="ofTomorrow")
    held = world.api.now(INFERENCE_SERVICES, "demo", "tomorrow") or {}
    world.api.put(INFERENCE_SERVICES, held | {"status": {"desiredReplicas": 2}})
    world.pool()
    await eventually(lambda: world.status().get("served") == "7/7", "who cannot be read keeps what it has")
    await eventually(lambda: bool(world.status("a-later")), "the other says why it does not")
    told = {one["type"]: (one["status"], one["reason"]) for one in world.status("a-later")["conditions"]}
    assert told == {"Ready": ("False", "NotUnderstood"), "Stalled": ("True", "NotUnderstood")}
    assert "spec.allocation" in world.status("a-later")["conditions"][0]["message"]
    assert world.asked("n1") == ""
    await world.api.delete(GPU_POOLS, None, "a-later")
    await eventually(lambda: world.api.now(GPU_POOLS, None, "a-later") is None, "it may go all the same")


async def test_two_pools_never_share_a_node_and_a_service_counts_once(world: World) -> None:
    world.node("n0", m1g_10gb=7)
    world.service("chat", "1g.10gb", 9)
    world.pool()
    world.api.put(GPU_POOLS, {"metadata": {"name": "later"}, "spec": {"nodeSelector": {"nvidia.com/gpu.count": "1"}}})
    await eventually(lambda: world.conditions().get("DemandMet") == "TooFewSlices", "the first pool counts it")
    await eventually(lambda: world.status("later").get("gpus") == 0, "the second has a status")
    assert world.status("later")["served"] == "0/0"


async def test_a_pool_that_comes_or_goes_is_noticed_by_the_one_that_has_its_nodes_otherwise(world: World) -> None:
    world.node("n0", m1g_10gb=7)
    world.service("chat", "1g.10gb", 5)
    world.pool()
    await eventually(lambda: world.conditions().get("Ready") == "AsPlanned", "the node is the pool's")
    world.api.put(GPU_POOLS, {"metadata": {"name": "earlier"}, "spec": {"nodeSelector": {"pool": "gpus"}}})
    await eventually(lambda: world.status().get("gpus") == 0, "the first by name has it now")
    assert world.conditions()["Ready"] == "NoNodes"
    await world.api.delete(GPU_POOLS, None, "earlier")
    await eventually(lambda: world.status().get("gpus") == 1, "it is the other's again")


async def test_a_node_whose_labels_change_on_the_way_is_brought_to_its_end(world: World) -> None:
    world.node("n0")
    world.service("chat", "1g.10gb", 5)
    world.pool()
    await eventually(lambda: world.asked("n0") != "", "the manager is asked")
    one = world.now("n0")
    del one["metadata"]["labels"]["pool"]
    world.api.put(NODES, one)
    world.manager_cuts("n0")
    await eventually(lambda: not world.now("n0")["spec"].get("unschedulable"), "the node is used again")


def test_the_solver_is_asked_again_only_when_the_question_has_changed() -> None:
    solver, one = Remembered(), family("H100-80")
    unit = Unit("n0", {one.name: 1}, ((("gpu", 1),),))

    def asked(replicas: int) -> Plan:
        return solver([Want("demo/chat", "1g.10gb", replicas)], [unit], {one.name: one}, PlanSettings())

    assert asked(3) is asked(3)
    assert solver.solved == 1
    assert asked(4).served[0].replicas == 4
    assert solver.solved == 2


async def test_of_too_few_slices_who_has_borrowed_least_for_its_weight_is_served_first(world: World) -> None:
    def tenants(demo: str, late: str) -> None:
        for namespace, average in (("demo", demo), ("late", late)):
            told = {
                "cohort": "lab",
                "halfLife": "24h",
                "sampledAt": "2026-01-01T00:00:00Z",
                "average": {"migGigabytes": average},
            }
            spec = {"namespaces": [namespace], "quota": {"migGigabytes": 0}, "borrowing": {"cohort": "lab"}}
            tenant = {"metadata": {"name": namespace}, "spec": spec, "status": {"fairShare": told}}
            world.api.put(TENANTS, tenant)

    def unmet() -> list[tuple[str, int]]:
        return [(one["service"], one["served"]) for one in world.status().get("unmet") or ()]

    world.node("n0")
    tenants("30.000", "10.000")
    for namespace in ("demo", "late"):
        spec = {"model": "m", "accelerator": {"mig": {"profile": "1g.10gb"}}, "replicas": 6}
        world.api.put(INFERENCE_SERVICES, {"metadata": {"namespace": namespace, "name": "chat"}, "spec": spec})
    world.pool()
    await eventually(lambda: unmet() == [("demo/chat", 1)], "who borrowed less has its slices")
    tenants("10.000", "20.000")
    await eventually(lambda: unmet() == [("late/chat", 1)], "after a while it is the other's turn")
