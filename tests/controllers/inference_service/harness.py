"""The controller of InferenceServices running over an API server (in memory or real), and what stands around it.

`Operator` is informers, queue, workers and the controller. `Kubernetes` does for the server in memory what the
Deployment, ReplicaSet and garbage controllers do; `Kubelet` starts and ends pods, on either server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from controllers.apply import Applier
from controllers.history.interface import ServiceId
from controllers.inference_service.admin_ports import ProbeAnswer
from controllers.inference_service.caches import SERVICE_INDEX, TENANT_INDEX, own_caches
from controllers.inference_service.foresight import Foresight, Shortsighted
from controllers.inference_service.quality_report import Answers
from controllers.inference_service.reconciler import KIND
from controllers.inference_service.wiring import Wired, wire_inference_service
from controllers.inference_service.worker_profile import WorkerProfile
from controllers.inference_service.worker_report import WorkerReport
from controllers.plans.snapshot import Demanded
from controllers.runtime.interface import Key
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.workers import Workers
from controllers.settings import Settings
from crds.contract import LABEL_REVISION, LABEL_SERVICE
from kube.api import Api
from kube.errors import Conflict, NotFound
from kube.events import Recorder
from kube.informer import Change, Informer, lean
from kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    GPU_POOLS,
    INFERENCE_SERVICES,
    MODELS,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SLAS,
    TENANTS,
    Object,
    Resource,
)
from tests.waiting import eventually_told

CHILDREN = (DEPLOYMENTS, SERVICE_ACCOUNTS, NETWORK_POLICIES, SERVICES, POD_DISRUPTION_BUDGETS)


class FakePorts:
    """Gateways that answer, and workers that hold what `held` says by address."""

    def __init__(self) -> None:
        self.answer = ProbeAnswer(True)
        self.held: dict[str, int] = {}
        self.demanded: dict[ServiceId, Demanded] = {}
        self.probes: list[tuple[str, str, str]] = []
        self.pages: dict[str, str] = {}
        self.objections: dict[str, bytes] = {}
        self.completions: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda revision, body: None
        self.profile: WorkerProfile | None = None
        self.answers: dict[str, Answers] = {}
        self.measured: list[str] = []

    async def probe(self, gateway: str, namespace: str, service: str) -> ProbeAnswer:
        self.probes.append((gateway, namespace, service))
        return self.answer

    async def worker_report(self, worker: str) -> WorkerReport | None:
        held = self.held.get(worker)
        return None if held is None else WorkerReport(running=held)

    async def worker_answers(self, worker: str) -> Answers | None:
        return self.answers.get(worker)

    async def worker_profile(self, worker: str) -> WorkerProfile | None:
        self.measured.append(worker)
        return self.profile

    async def demand(self, gateway: str) -> dict[ServiceId, Demanded] | None:
        """Everything of clients is in the first gateway."""
        return dict(self.demanded) if gateway == "10.9.0.1" else {one: Demanded(0, 0, 1e6) for one in self.demanded}

    async def endpoints(self, gateway: str) -> bytes | None:
        return self.objections.get(gateway, b"{}")

    async def gateway_page(self, gateway: str) -> str | None:
        return self.pages.get(gateway)

    async def ask_revision(
        self, gateway: str, namespace: str, service: str, revision: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        return self.completions(revision, body)

    async def close(self) -> None:
        return None


class Told(Recorder):
    """Events as a list."""

    def __init__(self, client: Api) -> None:
        super().__init__(client, controller="foretide.dev/operator", instance="test")
        self.notes: list[tuple[str, str, str]] = []

    def normal(self, regarding: Any, reason: str, message: str, *, action: str = "Reconcile") -> None:
        self.notes.append(("Normal", reason, message))

    def warning(self, regarding: Any, reason: str, message: str, *, action: str = "Reconcile") -> None:
        self.notes.append(("Warning", reason, message))


class Operator:
    """One run of the operator, as far as this controller goes."""

    def __init__(
        self,
        client: Api,
        ports: FakePorts | None = None,
        settings: Settings | None = None,
        foresight: Foresight | None = None,
    ) -> None:
        self.client, self.ports = client, ports or FakePorts()
        self.settings = settings or Settings.model_validate({})
        self.told = Told(client)
        self.queue = ReconcileQueue()
        self.services = Informer(client, INFERENCE_SERVICES, keep=lean, index=SERVICE_INDEX)
        self.caches = own_caches(
            client,
            system_namespace=self.settings.namespace,
            gateway_admin_service=self.settings.gateway_admin_service,
            services=self.services,
            models=Informer(client, MODELS, keep=lean),
            slas=Informer(client, SLAS, keep=lean),
            tenants=Informer(client, TENANTS, keep=lean, index=TENANT_INDEX),
            pools=Informer(client, GPU_POOLS, keep=lean),
            with_routes=bool(self.settings.gateway_api.parents),
        )
        self.wired: Wired = wire_inference_service(
            client,
            self.settings,
            self.queue,
            self.told,
            Applier(client),
            self.caches,
            self.ports,
            foresight or Shortsighted(),
        )
        self.services.on_change(self._wake)

    def _wake(self, change: Change[Object]) -> None:
        self.queue.add(Key(KIND, change.namespace, change.name))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Operator]:
        caches = self.caches
        informers = (self.services, caches.models, caches.slas, caches.tenants, caches.pools, *caches.own)
        workers = Workers(self.queue, {KIND: self.wired.reconciler}, Metrics(), limit=8)
        tasks = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            for informer in informers:
                await asyncio.wait_for(informer.synced.wait(), 30)
            tasks.append(asyncio.create_task(workers.run()))
            tasks += [asyncio.ensure_future(one.run()) for one in self.wired.background]
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await workers.drain(2.0)

    def wall_s(self) -> float:
        return time.time()

    def status(self, namespace: str, name: str) -> dict[str, Any]:
        obj = self.services.get(namespace, name)
        return (obj.get("status") or {}) if obj else {}

    def condition(self, namespace: str, name: str, type_: str) -> tuple[str, str] | None:
        for one in self.status(namespace, name).get("conditions") or ():
            if one["type"] == type_:
                return one["status"], one["reason"]
        return None

    def is_idle(self) -> bool:
        """Nothing waits and nothing is in work; a look after a while may be due later."""
        return self.queue.depth == 0 and self.queue.longest_work_s() is None


class Kubelet:
    """Starts every pod at once, unless `fails` says how its container ends; lets a leaving pod go when `lets_go`."""

    def __init__(self, client: Api, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self.fails: Callable[[Object], dict[str, Any] | None] = lambda pod: None
        self.lets_go: Callable[[Object], bool] = lambda pod: True
        self.ready_at_once = True
        self._addresses = iter(range(10, 250))

    async def act(self) -> None:
        for pod in await self._client.list(PODS, self._namespace, label_selector=LABEL_SERVICE):
            with contextlib.suppress(NotFound, Conflict):
                await self._see_to(pod)

    async def _see_to(self, pod: Object) -> None:
        meta = pod["metadata"]
        if meta.get("deletionTimestamp"):
            if self.lets_go(pod):
                await self._client.delete(PODS, self._namespace, meta["name"], uid=meta["uid"], grace_period_s=0)
            return
        if (pod.get("status") or {}).get("podIP"):
            return
        await self._client.merge_patch(
            PODS, self._namespace, meta["name"], {"status": self._started(pod)}, subresource="status"
        )

    def _started(self, pod: Object) -> dict[str, Any]:
        failure = self.fails(pod)
        ready = "False" if failure or not self.ready_at_once else "True"
        container = {"name": "worker", "image": "x", "imageID": "x", "ready": ready == "True", "restartCount": 0}
        return {
            "phase": "Running",
            "podIP": f"10.1.0.{next(self._addresses)}",
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [container | (failure or {"state": {"running": {}}})],
        }


class Kubernetes:
    """Deployments make pods, and what has lost its owner goes: for the server in memory."""

    def __init__(self, client: Api, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._made = 0

    async def act(self) -> None:
        await self._collect()
        pods = await self._client.list(PODS, self._namespace)
        for deployment in await self._client.list(DEPLOYMENTS, self._namespace):
            with contextlib.suppress(NotFound, Conflict):
                await self._bring_to(deployment, [pod for pod in pods if _owner(pod) == deployment["metadata"]["uid"]])

    async def _bring_to(self, deployment: Object, pods: list[Object]) -> None:
        staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        surplus = len(staying) - deployment["spec"]["replicas"]
        for pod in sorted(staying, key=_deletion_order)[: max(0, surplus)]:
            await self._let_leave(pod)
        for _ in range(-surplus):
            await self._client.create(PODS, self._pod(deployment))
        status = {"observedGeneration": deployment["metadata"]["generation"]}
        if (deployment.get("status") or {}) != status:
            await self._client.merge_patch(
                DEPLOYMENTS, self._namespace, deployment["metadata"]["name"], {"status": status}, subresource="status"
            )

    def _pod(self, deployment: Object) -> Object:
        self._made += 1
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        owner = {"kind": "Deployment", "name": meta["name"], "uid": meta["uid"], "controller": True}
        return {
            "metadata": {
                **template["metadata"],
                "name": f"{meta['name']}-{self._made}",
                "namespace": self._namespace,
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
        }

    async def _let_leave(self, pod: Object) -> None:
        """Deleted, and held until its kubelet lets it go."""
        going = {"deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": ["test/kubelet"]}
        await self._client.merge_patch(PODS, self._namespace, pod["metadata"]["name"], {"metadata": going})

    async def _collect(self) -> None:
        living = {
            obj["metadata"]["uid"]
            for resource in (INFERENCE_SERVICES, DEPLOYMENTS)
            for obj in await self._client.list(resource, self._namespace)
        }
        for resource in (*CHILDREN, PODS):
            for obj in await self._client.list(resource, self._namespace):
                owner, meta = _owner(obj), obj["metadata"]
                if owner is None or owner in living or meta.get("deletionTimestamp"):
                    continue
                if resource is PODS:
                    await self._let_leave(obj)
                else:
                    await self._client.delete(resource, self._namespace, meta["name"])


class MemoryKubelet(Kubelet):
    """On the server in memory a pod that drains is held by a finalizer; letting it go is taking that away."""

    async def _see_to(self, pod: Object) -> None:
        meta = pod["metadata"]
        if not meta.get("deletionTimestamp"):
            await super()._see_to(pod)
        elif self.lets_go(pod):
            await self._client.merge_patch(PODS, self._namespace, meta["name"], {"metadata": {"finalizers": []}})


def _owner(obj: Object) -> str | None:
    return next((one["uid"] for one in obj["metadata"].get("ownerReferences") or () if one.get("controller")), None)


def _deletion_order(pod: Object) -> tuple[bool, int]:
    """As a ReplicaSet orders: not ready first, then by cost."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    annotations = pod["metadata"].get("annotations") or {}
    return ready, int(annotations.get("controller.kubernetes.io/pod-deletion-cost", "0"))


async def until(
    condition: Callable[[], object], what: str, *actors: Callable[[], Awaitable[None]], within_s: float = 60.0
) -> None:
    """Lets the actors act again and again until `condition()` is true; fails with `what` when it is not in time."""

    async def acted() -> object:
        holds = condition()
        for act in () if holds else actors:
            await act()
        return holds

    await eventually_told(acted, what, within_s)


# --- objects -----------------------------------------------------------------------------------------------------


def inference_service(namespace: str, name: str = "chat", **spec: Any) -> Object:
    return {
        "apiVersion": "foretide.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"model": "m", "accelerator": {"cpu": {}}, "rollout": {"drainTimeout": "30s"}} | spec,
    }


def model(namespace: str, name: str = "m") -> Object:
    return {
        "apiVersion": "foretide.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"source": f"https://models.example/{name}.gguf", "digest": "sha256:" + "1" * 64},
    }


READY_MODEL = {
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Cached",
            "message": "1 of 1 nodes hold a verified copy.",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ]
}


def tenant(namespace: str, **quota: int) -> Object:
    spec: dict[str, Any] = {"namespaces": [namespace]}
    return {
        "apiVersion": "foretide.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": f"tenant-of-{namespace}"},
        "spec": spec | ({"quota": quota} if quota else {}),
    }


def gateway_slice(system_namespace: str = "foretide-system") -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": system_namespace,
            "name": "foretide-gateway-admin-1",
            "labels": {"kubernetes.io/service-name": "foretide-gateway-admin"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.9.0.1"], "conditions": {"ready": True}},
            {"addresses": ["10.9.0.2"], "conditions": {"ready": True}},
            {"addresses": ["10.9.0.3"], "conditions": {"ready": False}},
        ],
        "ports": [{"name": "admin", "port": 8081, "protocol": "TCP"}],
    }


async def put(client: Api, resource: Resource, obj: Object, status: dict[str, Any] | None = None) -> None:
    """As a person applies it, and, for a Model, as its own controller reports on it."""
    await client.apply(resource, obj, field_manager="person")
    if status is not None:
        meta = obj["metadata"]
        await client.merge_patch(
            resource, meta.get("namespace"), meta["name"], {"status": status}, subresource="status"
        )


async def ground(client: Api, namespace: str) -> None:
    """Everything that a service needs besides itself."""
    await put(client, MODELS, model(namespace), READY_MODEL)
    await put(client, TENANTS, tenant(namespace))
    await put(client, ENDPOINT_SLICES, gateway_slice())


async def revisions(client: Api, namespace: str) -> dict[str, int]:
    """Replicas by revision, oldest first."""
    found = await client.list(DEPLOYMENTS, namespace)
    return {one["metadata"]["labels"][LABEL_REVISION]: one["spec"]["replicas"] for one in found}
