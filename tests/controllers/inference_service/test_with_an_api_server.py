"""The controller against a real API server whose own controllers make pods, endpoints and the end of things.

No kubelet: the tests write what one would. What is proved here is what the server in memory cannot promise: that every
manifest is valid as it stands, that defaults written by the server are no reason to write again, and that the order of
the end holds with real garbage collection.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from controllers.settings import Settings as OperatorSettings
from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.gateway_api import http_route_crd, inference_pool_crd
from kube.backoff import Backoff
from kube.client import Client
from kube.connection import Connection
from kube.errors import AlreadyExists
from kube.resources import (
    DEPLOYMENTS,
    GPU_POOLS,
    HTTP_ROUTES,
    INFERENCE_POOLS,
    INFERENCE_SERVICES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    Object,
    Resource,
)
from tests.controllers.inference_service.harness import (
    CHILDREN,
    Kubelet,
    Operator,
    ground,
    inference_service,
    put,
    revisions,
    until,
)
from tests.plans.mig.pool_world import node
from tests.waiting import eventually, eventually_told

pytestmark = pytest.mark.apiserver
MANIFESTS = Path(__file__).parents[3] / "crds" / "manifests"


def kubectl(server: ControlPlane, *arguments: str) -> None:
    command = [str(tools.kubectl()), "--kubeconfig", str(server.kubeconfig), *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlane]:
    """With a controller manager: Deployments make pods, and owners that go take their children along."""
    with ControlPlane(settings=Settings(controller_manager=True)) as running:
        kubectl(running, "apply", "-f", str(MANIFESTS))
        kubectl(running, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        yield running


@dataclass
class World:
    client: Client
    operator: Operator
    kubelet: Kubelet
    namespace: str
    writes_before: int

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await until(condition, what, self.kubelet.act)

    async def condition(self, type_: str, status: str, reason: str) -> None:
        await self.until(
            lambda: self.operator.condition(self.namespace, "chat", type_) == (status, reason),
            f"{type_} {status} {reason}",
        )

    async def settled(self) -> None:
        """Until all workers serve: the first one that answers makes the service servable while others still start."""
        await self.condition("Ready", "True", "WorkersReady")
        await self.condition("Servable", "True", "ProbeAnswered")
        await self.idle()

    async def idle(self) -> None:
        await self.until(self.operator.is_idle, "the operator has nothing to do")

    async def gone(self, *others: Resource) -> None:
        """Until nothing is left of the service and of `others`, which the garbage collector takes in any order."""

        async def nothing_left() -> bool:
            await self.kubelet.act()
            rest = [one for kind in others for one in await self.client.list(kind, self.namespace)]
            return not rest and not await self.left()

        await eventually_told(nothing_left, "nothing is left of the service")

    async def left(self) -> list[Object]:
        return [obj for one in (*CHILDREN, PODS, INFERENCE_SERVICES) for obj in await self._ours(one)]

    async def _ours(self, resource: Resource) -> list[Object]:
        selector = None if resource is INFERENCE_SERVICES else "foretide.dev/inference-service"
        return await self.client.list(resource, self.namespace, label_selector=selector)


@contextlib.asynccontextmanager
async def connections_end() -> AsyncIterator[None]:
    """A TLS connection that is cut off in the middle of an answer needs a few turns of the loop to end."""
    sockets = vars(asyncio.get_running_loop())["_selector"].get_map()
    before = len(sockets)
    yield
    await eventually(lambda: len(sockets) <= before, "all connections end")


@contextlib.asynccontextmanager
async def running(
    server: ControlPlane, namespace: str, settings: OperatorSettings | None = None
) -> AsyncIterator[World]:
    async with connections_end(), Client(Connection.from_environment(server.kubeconfig)) as client:
        for name in (namespace, "foretide-system"):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            with contextlib.suppress(AlreadyExists):
                await client.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        await ground(client, namespace)
        writes = client.writes
        async with Operator(client, settings=settings).running() as operator:
            yield World(client, operator, Kubelet(client, namespace), namespace, writes)


async def test_from_apply_to_servable_and_back_to_nothing(server: ControlPlane) -> None:
    async with running(server, "isvc-life") as world:
        await put(world.client, INFERENCE_SERVICES, inference_service(world.namespace, replicas=2))
        await world.condition("Servable", "True", "ProbeAnswered")
        await world.condition("Ready", "True", "WorkersReady")
        status = world.operator.status(world.namespace, "chat")
        assert (status["replicaStatus"], status["selector"]) == ("2/2", "foretide.dev/inference-service=chat")

        await world.client.delete(INFERENCE_SERVICES, world.namespace, "chat")
        await world.gone()


async def test_a_rollout_and_a_revert_on_real_deployments(server: ControlPlane) -> None:
    async with running(server, "isvc-rollout") as world:
        await put(world.client, INFERENCE_SERVICES, inference_service(world.namespace, replicas=2))
        await world.condition("Ready", "True", "WorkersReady")
        (old,) = await revisions(world.client, world.namespace)
        edited = inference_service(world.namespace, replicas=2, engine={"maxNumSeqs": 4})
        await put(world.client, INFERENCE_SERVICES, edited)
        await world.until(
            lambda: world.operator.status(world.namespace, "chat")["currentRevision"] != old, "the edit is seen"
        )
        await world.condition("Ready", "True", "WorkersReady")
        assert (await revisions(world.client, world.namespace))[old] == 0
        await put(world.client, INFERENCE_SERVICES, inference_service(world.namespace, replicas=2))
        await world.until(
            lambda: world.operator.status(world.namespace, "chat")["currentRevision"] == old, "the revert is seen"
        )
        await world.condition("Ready", "True", "WorkersReady")
        assert (await revisions(world.client, world.namespace))[old] == 2


async def test_nothing_is_written_when_nothing_changes_and_not_after_a_restart(server: ControlPlane) -> None:
    async with running(server, "isvc-quiet") as world:
        await put(world.client, INFERENCE_SERVICES, inference_service(world.namespace, replicas=2))
        await world.settled()
        before = await _wanted(world)
    async with running(server, "isvc-quiet") as world:
        await world.until(lambda: world.operator.ports.probes, "the first probe after the restart")
        await world.idle()
        assert await _wanted(world) == before
        assert world.client.writes == world.writes_before


async def _wanted(world: World) -> dict[str, Object]:
    """All that the operator may write, without what Kubernetes' own controllers write into the same objects."""
    return {f"{obj['kind']} {obj['metadata']['name']}": _without_others(obj) for obj in await world.left()}


def _without_others(obj: Object) -> Object:
    ours = INFERENCE_SERVICES.kind == obj["kind"]
    metadata = {k: v for k, v in obj["metadata"].items() if ours or k not in ("resourceVersion", "managedFields")}
    return {k: v for k, v in obj.items() if ours or k != "status"} | {"metadata": metadata}


async def test_the_scale_subresource_moves_the_workers(server: ControlPlane) -> None:
    async with running(server, "isvc-scale") as world:
        await put(world.client, INFERENCE_SERVICES, inference_service(world.namespace, replicas=1))
        await world.condition("Ready", "True", "WorkersReady")
        kubectl(server, "-n", world.namespace, "scale", "inferenceservice/chat", "--replicas=3")
        await world.until(
            lambda: world.operator.status(world.namespace, "chat")["replicaStatus"] == "3/3", "three workers"
        )
        (deployment,) = await world.client.list(DEPLOYMENTS, world.namespace)
        assert deployment["spec"]["replicas"] == 3


async def test_pool_and_route_come_with_their_kinds_stand_still_and_go_with_the_service(
    server: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kube.informer.ABSENT", Backoff(first_s=0.1, factor=1.0, most_s=0.1))
    settings = OperatorSettings.model_validate({"gateway_api": {"parents": [{"name": "edge", "namespace": "ingress"}]}})
    async with running(server, "isvc-routes", settings) as world:
        await put(world.client, INFERENCE_SERVICES, inference_service(world.namespace))
        await world.condition("Ready", "True", "WorkersReady")
        for number, crd in enumerate((http_route_crd(), inference_pool_crd())):
            file = tmp_path / f"{number}.yaml"
            file.write_text(yaml.safe_dump(crd))
            kubectl(server, "apply", "--server-side", "-f", str(file))
        surroundings = world.operator.caches.surroundings
        await world.until(lambda: surroundings["HTTPRoute"].get(world.namespace, "chat-worker"), "a route")
        await world.until(lambda: surroundings["InferencePool"].get(world.namespace, "chat-worker"), "a pool")
        await world.settled()
    async with running(server, "isvc-routes", settings) as world:
        await world.until(lambda: world.operator.ports.probes, "the first probe after the restart")
        await world.idle()
        assert world.client.writes == world.writes_before
        await world.client.delete(INFERENCE_SERVICES, world.namespace, "chat")
        await world.gone(HTTP_ROUTES, INFERENCE_POOLS)


async def test_workers_claim_devices_and_the_templates_go_with_the_service(server: ControlPlane) -> None:
    settings = OperatorSettings.model_validate({"images": {"worker_gpu": "foretide/worker-gpu:dev"}})
    one = node("claims-gpu")
    meta = {"name": "claims-gpu", "labels": one["metadata"]["labels"] | {"pool": "claims"}}
    pool: Object = {"apiVersion": "foretide.dev/v1alpha1", "kind": "GPUPool", "metadata": {"name": "claims"}}
    spec = {"nodeSelector": {"pool": "claims"}, "allocation": "resourceClaims"}
    on = {"mig": {"profile": "1g.10gb"}}
    async with running(server, "isvc-claims", settings) as world:
        await put(world.client, NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        await put(world.client, GPU_POOLS, pool | {"spec": spec})
        await put(world.client, INFERENCE_SERVICES, inference_service(world.namespace, accelerator=on, replicas=2))
        await world.condition("Ready", "True", "WorkersReady")
        (template,) = await world.client.list(RESOURCE_CLAIM_TEMPLATES, world.namespace)
        # Kubernetes' own controller makes a claim of it for each pod.
        claims = await _claims(world, 2)
        assert [one["spec"] for one in claims] == [template["spec"]["spec"]] * 2
        await world.settled()
    async with running(server, "isvc-claims", settings) as world:
        await world.until(lambda: world.operator.ports.probes, "the first probe after the restart")
        await world.idle()
        assert world.client.writes == world.writes_before
        await world.client.delete(INFERENCE_SERVICES, world.namespace, "chat")
        await world.gone(RESOURCE_CLAIM_TEMPLATES)
        await world.client.delete(GPU_POOLS, None, "claims")
        await world.client.delete(NODES, None, "claims-gpu")


async def _claims(world: World, count: int) -> list[Object]:
    async with asyncio.timeout(60):
        while len(found := await world.client.list(RESOURCE_CLAIMS, world.namespace)) < count:
            await world.kubelet.act()
            await asyncio.sleep(0.05)
    return found
