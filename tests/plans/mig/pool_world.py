"""A pool in memory: nodes, pods, a scheduler without wit, and a MIG manager that may be late, fail, or lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from controllers.plans.mig.configs import layouts_of, mig_configs
from controllers.plans.mig.demand import Want
from controllers.plans.mig.geometry import resource_name
from controllers.plans.mig.layouts import layout
from controllers.plans.mig.pool import PoolPlan, PoolSnapshot, plan_pool
from controllers.plans.mig.records import LABEL_CONFIG, LABEL_STATE, GpuPod, NodeView
from crds.gpu_pool import GPUPoolSpec
from tests.fake_objects import merge_patch


class Manager(StrEnum):
    """How the MIG manager of a node behaves the next time that it is asked."""

    GOOD = "good"
    FAILS = "fails"
    SILENT = "silent"
    LIES = "lies"
    """Says `success`; the devices are as before."""


def node(name: str, gpus: int = 1, product: str = "NVIDIA-H100-80GB-HBM3", **slices: int) -> dict[str, Any]:
    """A node with whole GPUs, or with the slices named: `m1g_10gb=7`."""
    named = {resource_name(key[1:].replace("_", ".")): str(count) for key, count in slices.items()}
    return {
        "metadata": {
            "name": name,
            "labels": {"pool": "gpus", "nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus)},
            "annotations": {},
        },
        "spec": {},
        "status": {
            "allocatable": named or {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@dataclass
class World:
    nodes: dict[str, dict[str, Any]]
    wants: list[Want]
    spec: GPUPoolSpec = field(default_factory=lambda: GPUPoolSpec(node_selector={"pool": "gpus"}))
    pods: dict[str, GpuPod] = field(default_factory=dict)
    behaviour: dict[str, list[Manager]] = field(default_factory=dict)
    now_s: float = 1_800_000_000.0
    asked: Counter[str] = field(default_factory=Counter)
    seen_config: dict[str, str] = field(default_factory=dict)
    moved: bool = True
    """Workers find another place by themselves when their node is to be cut."""

    def views(self) -> tuple[NodeView, ...]:
        found = [NodeView.of(one) for _, one in sorted(self.nodes.items())]
        return tuple(one for one in found if one is not None)

    def snapshot(self, deleting: bool = False) -> PoolSnapshot:
        return PoolSnapshot("gpus", 1, self.spec, self.views(), tuple(self.pods.values()), tuple(self.wants), deleting)

    def plan(self, deleting: bool = False) -> PoolPlan:
        return plan_pool(self.snapshot(deleting), self.now_s)

    def step(self, dt_s: float = 10.0, deleting: bool = False) -> PoolPlan:
        """Plan, apply, then everybody else acts for a while. Nothing is remembered between two steps."""
        plan = self.plan(deleting)
        for move in plan.moves:
            if move.patch is not None:
                merge_patch(self.nodes[move.node], move.patch)
            for pod in move.drain:
                self.pods.pop(pod.name, None)
        self.everybody_else()
        self.now_s += dt_s
        return plan

    def everybody_else(self) -> None:
        for name, one in self.nodes.items():
            if one["metadata"]["labels"].get("foretide.dev/evacuate") == "true" and self.moved:
                self.pods = {key: pod for key, pod in self.pods.items() if pod.node != name or pod.service is None}
            self._manager(name, one)

    def _manager(self, name: str, one: dict[str, Any]) -> None:
        labels = one["metadata"]["labels"]
        config = labels.get(LABEL_CONFIG, "")
        if not config or self.seen_config.get(name) == config:
            return
        self.seen_config[name] = config
        self.asked[name] += 1
        assert not [pod for pod in self.pods.values() if pod.node == name], "the manager stops all clients of a node"
        assert one["spec"].get("unschedulable"), "a pod could come at any time"
        queue = self.behaviour.get(name) or []
        act = queue.pop(0) if queue else Manager.GOOD
        if act is Manager.SILENT:
            labels[LABEL_STATE] = "pending"
        elif act is Manager.FAILS:
            labels[LABEL_STATE] = "failed"
        else:
            labels[LABEL_STATE] = "success"
        if act is Manager.GOOD:
            one["status"]["allocatable"] = self._devices(config, int(labels["nvidia.com/gpu.count"]))

    def _devices(self, config: str, gpus: int) -> dict[str, str]:
        entry = mig_configs(layouts_of(self.views()))["mig-configs"][config]
        found: Counter[str] = Counter()
        for part in entry:
            count = gpus if part["devices"] == "all" else len(part["devices"])
            slices = part["mig-devices"] if part["mig-enabled"] else {"gpu": 1}
            found.update({name: amount * count for name, amount in slices.items()})
        return {resource_name(name): str(amount) for name, amount in found.items()}

    def run(self, steps: int = 60, dt_s: float = 10.0) -> None:
        for _ in range(steps):
            self.step(dt_s)

    def gives(self, name: str) -> Counter[str]:
        view = next(one for one in self.views() if one.name == name)
        return Counter(dict(view.now))

    def usable(self, name: str) -> bool:
        return not self.nodes[name]["spec"].get("unschedulable")

    def put(self, name: str, node_name: str, service: str | None = "s", **slices: int) -> None:
        held = layout({key[1:].replace("_", "."): count for key, count in slices.items()})
        self.pods[name] = GpuPod("demo", name, f"uid-{name}", node_name, held, service)
