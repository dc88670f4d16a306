"""What controller manager, scheduler and kubelets would do to the Deployments and pods that the operator asks for.

`settle` makes a cluster at rest once: every wanted pod exists and is ready. After it `follow` only acknowledges new
generations and starts nothing, like a cluster whose nodes still pull an image: so the load of a measurement is the one
that the measurement makes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.control_plane.api import each
from benchmarks.control_plane.etcd import put_pods
from benchmarks.control_plane.fleet import node_of
from benchmarks.control_plane.scale import Scale
from crds.contract import LABEL_SERVICE
from kube.api import Api
from kube.errors import KubeError
from kube.informer import Change, Informer
from kube.resources import DEPLOYMENTS, Object

PEER_LABEL: Final = "peer.example.com/inference-service"
STARTED: Final = "2026-01-01T00:00:00Z"
POD_BYTES: Final = 5500
"""Size of a real worker pod as the API server returns it; shorter ones are filled up with an annotation."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watch shows of a Deployment."""

    namespace: str
    name: str
    service: str
    of_peer: bool
    replicas: int
    generation: int
    observed_generation: int
    ready: int
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, obj: Object) -> Seen | None:
        """None for Deployments of nobody we know."""
        meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
        labels = meta.get("labels") or {}
        service = labels.get(PEER_LABEL) or labels.get(LABEL_SERVICE)
        if service is None:
            return None
        return cls(
            meta["namespace"],
            meta["name"],
            service,
            PEER_LABEL in labels,
            spec.get("replicas", 1),
            meta.get("generation", 0),
            status.get("observedGeneration", 0),
            status.get("readyReplicas", 0),
            tuple(spec["template"]["spec"]["containers"][0].get("args") or ()),
        )


class StandIn:
    """Watches all Deployments. `pods` are those that `settle` made."""

    def __init__(self, client: Api, etcd_url: str, scale: Scale) -> None:
        self._client, self._etcd_url, self._scale = client, etcd_url, scale
        self.deployments: Informer[Seen] = Informer(client, DEPLOYMENTS, keep=Seen.of)
        self.pods: list[tuple[str, str]] = []
        self.problems: list[str] = []
        self._acknowledging: set[asyncio.Task[None]] = set()
        self._is_settled = False
        self.deployments.on_change(self._on_change)

    async def settle(self) -> None:
        """Make all pods that Deployments want, ready, and say so in their statuses."""
        deployments = await self._client.list(DEPLOYMENTS, label_selector=LABEL_SERVICE)
        pods: list[Object] = []
        for one in deployments:
            for at in range(one["spec"]["replicas"]):
                pods.append({**pod_of(one, at, len(pods), self._scale), **ready_status(len(pods))})
        self.pods = [(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods]
        await put_pods(self._etcd_url, pods)
        await each(deployments, self._all_ready)
        self._is_settled = True

    async def _all_ready(self, deployment: Object) -> None:
        meta, wanted = deployment["metadata"], deployment["spec"]["replicas"]
        await self._write_status(meta["namespace"], meta["name"], meta["generation"], wanted, wanted)

    def _on_change(self, change: Change[Seen]) -> None:
        new = change.new
        if new is None or not self._is_settled or new.generation == new.observed_generation:
            return
        task = asyncio.create_task(self._acknowledge(new))
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)

    async def _acknowledge(self, seen: Seen) -> None:
        try:
            await self._write_status(seen.namespace, seen.name, seen.generation, seen.ready, seen.ready)
        except KubeError as error:  # Said at the end: a lost acknowledgement makes the run's numbers doubtful.
            self.problems.append(str(error))

    async def _write_status(self, namespace: str, name: str, generation: int, replicas: int, ready: int) -> None:
        status = {
            "observedGeneration": generation,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": [
                _condition("Available", "MinimumReplicasAvailable"),
                _condition("Progressing", "NewReplicaSetAvailable"),
            ],
        }
        await self._client.merge_patch(DEPLOYMENTS, namespace, name, {"status": status}, subresource="status")


def pod_of(deployment: Object, at: int, number: int, scale: Scale) -> Object:
    """Worker `at` of a Deployment, `number` of the whole cluster, as the ReplicaSet controller would make it."""
    meta, template = deployment["metadata"], deployment["spec"]["template"]
    fingerprint = f"{number:010x}"
    spec = {**template["spec"], "nodeName": node_of(number % scale.nodes)}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": meta["namespace"],
            "name": f"{meta['name']}-{at:05x}",
            "generateName": f"{meta['name']}-",
            "labels": {**template["metadata"]["labels"], "pod-template-hash": fingerprint},
            "annotations": {**(template["metadata"].get("annotations") or {})},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }
    missing = POD_BYTES - _size_as_stored(pod)
    if missing > 0:
        pod["metadata"]["annotations"]["example.com/sidecar-state"] = "x" * missing
    return pod


def _size_as_stored(pod: Object) -> int:
    """Roughly: the status and defaults come on top."""
    return len(str(pod)) + 2300


def ready_status(number: int, *, ready: bool = True, beat: str = STARTED) -> dict[str, Any]:
    """Status of a running worker. `beat` is a moment that no plan reads."""
    address = f"10.{64 + number // 65025}.{number // 255 % 255}.{number % 255 + 1}"
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    waits_for_ready = ("Ready", "ContainersReady")
    conditions = [
        {
            "type": type_,
            "status": "True" if ready or type_ not in waits_for_ready else "False",
            "lastTransitionTime": STARTED,
            "lastProbeTime": beat,
        }
        for type_ in types
    ]
    container = {
        "name": "worker",
        "ready": ready,
        "started": True,
        "restartCount": 0,
        "image": "foretide/worker-cpu:dev",
        "imageID": f"sha256:{'7b' * 32}",
        "containerID": f"containerd://{number:064x}",
        "state": {"running": {"startedAt": STARTED}},
    }
    return {
        "status": {
            "phase": "Running",
            "conditions": conditions,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": "192.0.2.10",
            "startTime": STARTED,
            "qosClass": "Burstable",
            "containerStatuses": [container],
        }
    }


def _condition(type_: str, reason: str) -> dict[str, str]:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": "Written by the benchmark.",
        "lastTransitionTime": STARTED,
        "lastUpdateTime": STARTED,
    }
