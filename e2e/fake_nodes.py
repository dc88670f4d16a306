"""Nodes without machines, by the hundred: GPUs that are cut as they are asked, pods that run as soon as they are bound.

What KWOK is used for, and no more: a stand-in for kubelet, NVIDIA's MIG manager, and the device plugin or DRA driver
of each node. Never schedules, and never makes a pod or a claim: those are Kubernetes' own scheduler's and
controllers' to do. Nodes do not beat: their control plane runs without the node lifecycle controller.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from kube.api import Api
from kube.errors import Conflict, KubeError, NotFound
from kube.informer import Change, Informer
from kube.resources import CONFIG_MAPS, NODES, PODS, RESOURCE_SLICES, Object

MANAGER_NAMESPACE: Final = "gpu-operator"
CONFIG_MAP: Final = "foretide-mig-parted"
CONFIG, STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
BY_CLAIMS: Final = {"nvidia.com/gpu.deploy.device-plugin": "false"}
"""Label of nodes whose devices a DRA driver publishes."""
DRIVER: Final = "gpu.nvidia.com"
WORKERS: Final = 8
_HOST: Final = {"cpu": "128", "memory": "2Ti", "pods": "250"}


def gpu_node(name: str, gpus: int, labels: Mapping[str, str]) -> Object:
    """H100s, none of them cut."""
    told = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**told, "nvidia.com/gpu.count": str(gpus), **labels}},
    }


def device_classes() -> list[Object]:
    """The two that NVIDIA's chart brings and that workers claim."""
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": f"{kind}.nvidia.com"},
            "spec": {"selectors": [{"cel": {"expression": _of_kind(kind)}}]},
        }
        for kind in ("gpu", "mig")
    ]


def _of_kind(kind: str) -> str:
    return f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == '{kind}'"


def resource_slice(node: str, devices: Mapping[str, int], generation: int) -> Object:
    """What the DRA driver of a node publishes: so many devices of each profile, `gpu` for whole ones."""
    names = [kind for kind, count in sorted(devices.items()) for _ in range(count)]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpus"},
        "spec": {
            "driver": DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
            "devices": [_device(number, kind) for number, kind in enumerate(names)],
        },
    }


def _device(number: int, kind: str) -> Object:
    attributes = {"type": {"string": "gpu"}} if kind == "gpu" else {"type": {"string": "mig"}}
    if kind != "gpu":
        attributes["profile"] = {"string": kind}
    return {"name": f"device-{number}", "attributes": attributes}


@dataclass
class FakeNodes:
    """All that happens on the machines that are not there. `cuts` counts by node."""

    client: Api
    cuts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """What none of this should ever meet."""

    def __post_init__(self) -> None:
        self._work: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self._asked: dict[str, str] = {}
        self._offered: dict[str, Mapping[str, int]] = {}
        self._nodes = Informer(self.client, NODES, keep=lambda one: one)
        self._pods = Informer(self.client, PODS, keep=lambda one: one if one["spec"].get("nodeName") else None)
        self._nodes.on_change(self._node)
        self._pods.on_change(self._pod)

    async def add(self, name: str, gpus: int, labels: Mapping[str, str]) -> None:
        """Ready, with whole GPUs."""
        one = gpu_node(name, gpus, labels)
        await self.client.create(NODES, one)
        ready = {"type": "Ready", "status": "True", "reason": "Fake", "message": "There is no kubelet."}
        status = {"conditions": [ready], "capacity": _HOST, "allocatable": _HOST}
        await self.client.merge_patch(NODES, None, name, {"status": status}, subresource="status")
        # The API server taints new nodes until a controller that is not here sees them ready.
        await self.client.merge_patch(NODES, None, name, {"spec": {"taints": None}})
        await self._offer(one, {"gpu": gpus})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeNodes]:
        """Until the block ends."""
        tasks = [asyncio.create_task(one.run()) for one in (self._nodes, self._pods)]
        tasks += [asyncio.create_task(self._act()) for _ in range(WORKERS)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- what is seen ----------------------------------------------------------------------------------------
    def _node(self, change: Change[Object]) -> None:
        if change.new is None:
            return
        name, config = change.name, change.new["metadata"]["labels"].get(CONFIG, "")
        if config and self._asked.get(name) != config:
            self._asked[name] = config
            self._work.put_nowait(("cut", change.new))

    def _pod(self, change: Change[Object]) -> None:
        pod = change.new
        if pod is None:
            return
        if pod["metadata"].get("deletionTimestamp"):
            self._work.put_nowait(("end", pod))
        elif (pod.get("status") or {}).get("phase") == "Pending":
            self._work.put_nowait(("start", pod))

    # --- what is done ----------------------------------------------------------------------------------------
    async def _act(self) -> None:
        acts = {"cut": self._cut, "start": self._start, "end": self._end}
        while True:
            what, obj = await self._work.get()
            try:
                await acts[what](obj)
            except (NotFound, Conflict):
                continue  # It went meanwhile, or is another by now.
            except (KubeError, KeyError) as error:
                self.failures.append(f"{what} {obj['metadata']['name']}: {error!r}")

    async def _cut(self, node: Object) -> None:
        name = node["metadata"]["name"]
        self._check_empty(name)
        config = self._asked[name]
        await self._offer(node, await self._devices(config))
        self.cuts[name] += 1
        await self.client.merge_patch(NODES, None, name, {"metadata": {"labels": {STATE: "success"}}})

    def _check_empty(self, node: str) -> None:
        """The manager stops every client of a node."""
        held = [one["metadata"]["name"] for one in self._pods.items() if one["spec"]["nodeName"] == node]
        if held:
            self.failures.append(f"{node} was cut under {', '.join(held)}")

    async def _devices(self, config: str) -> Mapping[str, int]:
        """Of a whole node, as the manager's own configuration says it."""
        found = await self.client.get(CONFIG_MAPS, MANAGER_NAMESPACE, CONFIG_MAP)
        devices: Counter[str] = Counter()
        for part in yaml.safe_load(found["data"]["config.yaml"])["mig-configs"][config]:
            slices = part["mig-devices"] if part["mig-enabled"] else {"gpu": 1}
            devices.update({kind: count * len(part["devices"]) for kind, count in slices.items()})
        return devices

    async def _offer(self, node: Object, devices: Mapping[str, int]) -> None:
        name, before = node["metadata"]["name"], self._offered.get(node["metadata"]["name"], {})
        self._offered[name] = devices
        if node["metadata"]["labels"].items() >= BY_CLAIMS.items():
            made = resource_slice(name, devices, self.cuts[name] + 1)
            await self.client.apply(RESOURCE_SLICES, made, field_manager="fake-driver")
            return
        gone: dict[str, Any] = {_resource(kind): None for kind in before}
        amounts = gone | {_resource(kind): str(count) for kind, count in devices.items()}
        status = {"status": {"capacity": amounts, "allocatable": amounts}}
        await self.client.merge_patch(NODES, None, name, status, subresource="status")

    async def _start(self, pod: Object) -> None:
        meta, now = pod["metadata"], pod["metadata"]["creationTimestamp"]
        yes = [
            {"type": one, "status": "True", "lastTransitionTime": now}
            for one in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        containers = [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": one["image"],
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for one in pod["spec"]["containers"]
        ]
        status = {"phase": "Running", "startTime": now, "conditions": yes, "containerStatuses": containers}
        await self.client.merge_patch(PODS, meta["namespace"], meta["name"], {"status": status}, subresource="status")

    async def _end(self, pod: Object) -> None:
        meta = pod["metadata"]
        await self.client.delete(PODS, meta["namespace"], meta["name"], uid=meta["uid"], grace_period_s=0)


def _resource(kind: str) -> str:
    return "nvidia.com/gpu" if kind == "gpu" else f"nvidia.com/mig-{kind.replace('+me', '.me')}"


def claim_with_volume(namespace: str, name: str) -> list[Object]:
    """A claim that pods may name, and its volume, as long as nobody looks inside."""
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": namespace, "name": name},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": f"{namespace}-{name}",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    return [volume, claim]
