"""What this controller watches, and how much of each object it keeps.

Pods are ten times as many as everything else together, so of a pod only what plans read is kept. Deployments and the
other children are kept whole: the applier compares them field by field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controllers.plans.healing.objects import node_facts, seconds_between, worker_of
from controllers.plans.healing.values import NodeFacts
from controllers.plans.interruption import notice_of
from controllers.plans.mig.geometry import LABEL_COUNT
from controllers.plans.mig.offers import GpuNode
from controllers.plans.snapshot import Worker
from crds import contract
from crds.inference_service import Allocation
from kube.api import Api
from kube.informer import Informer, lean
from kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HORIZONTAL_POD_AUTOSCALERS,
    HTTP_ROUTES,
    INFERENCE_POOLS,
    INFERENCE_SERVICES,
    NETWORK_POLICIES,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Object,
)

BY_SERVICE = "by_service"
BY_NAMESPACE = "by_namespace"
BY_MODEL = "by_model"
BY_SLA = "by_sla"
BY_NODE = "by_node"
LABEL_HOSTNAME = "kubernetes.io/hostname"
"""The kubelet gives it to every node; workers are spread by it."""


@dataclass(frozen=True, slots=True)
class PodEntry:
    """A worker pod as it is held."""

    namespace: str
    service: str
    worker: Worker
    uid: str = ""
    cold_start_s: float | None = None
    """From its creation until it was ready; None before, and after a restart of its container."""


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """Who else sets the number of a service's workers."""

    namespace: str
    service: str
    who: str
    """`HorizontalPodAutoscaler 'x'`, or the ScaledObject that made it."""


@dataclass(frozen=True, slots=True)
class Caches:
    """Everything that is read. The first five belong to the kinds of ours and are shared with other controllers."""

    services: Informer[Object]
    models: Informer[Object]
    slas: Informer[Object]
    tenants: Informer[Object]
    pools: Informer[Object]
    deployments: Informer[Object]
    surroundings: Mapping[str, Informer[Object]]
    """The other children, by kind."""
    pods: Informer[PodEntry]
    gateways: Informer[frozenset[str]]
    """EndpointSlices of the gateways' admin Service, as addresses that are ready."""
    autoscalers: Informer[Autoscaler]
    """HorizontalPodAutoscalers that scale an InferenceService."""
    evacuating: Informer[str]
    """Names of the nodes that will be cut anew or taken away."""
    gpu_nodes: Informer[GpuNode]
    """Nodes whose GPUs can be cut into slices."""
    nodes: Informer[NodeFacts]
    """How all nodes are."""
    optional: Mapping[str, Informer[Object]] = field(default_factory=dict)
    """Children of kinds that the cluster need not know, by kind; part of `surroundings`."""

    @property
    def optional_kinds(self) -> frozenset[str]:
        """Those of them that it knows."""
        return frozenset(kind for kind, informer in self.optional.items() if informer.present)

    def gives_claims(self) -> bool:
        """Whether the devices of any pool are given by ResourceClaims."""
        return any(one["spec"].get("allocation") == Allocation.RESOURCE_CLAIMS for one in self.pools.items())

    @property
    def own(self) -> tuple[Informer[Any], ...]:
        """Those that no other controller runs."""
        return (
            self.deployments,
            *self.surroundings.values(),
            self.pods,
            self.gateways,
            self.autoscalers,
            self.evacuating,
            self.gpu_nodes,
            self.nodes,
        )


def service_place(namespace: str | None, name: str) -> str:
    """Key of every index that leads to one InferenceService, Model or SLA."""
    return f"{namespace}/{name}"


def _namespace_of(obj: Object) -> Iterable[str]:
    return (obj["metadata"]["namespace"],)


def _model_of(obj: Object) -> Iterable[str]:
    return (service_place(obj["metadata"]["namespace"], obj["spec"]["model"]),)


def _sla_of(obj: Object) -> Iterable[str]:
    sla = obj["spec"].get("sla")
    return (service_place(obj["metadata"]["namespace"], sla),) if sla else ()


def _namespaces_of_tenant(obj: Object) -> Iterable[str]:
    return obj["spec"].get("namespaces") or ()


def evacuating_name(node: Object) -> str | None:
    """Of a node whose workers should move; None for any other."""
    meta = node["metadata"]
    marked = (meta.get("labels") or {}).get(contract.LABEL_EVACUATE) == "true"
    return str(meta["name"]) if marked or notice_of(node) is not None else None


SERVICE_INDEX = {BY_NAMESPACE: _namespace_of, BY_MODEL: _model_of, BY_SLA: _sla_of}
TENANT_INDEX = {BY_NAMESPACE: _namespaces_of_tenant}


def child_service(obj: Mapping[str, Any]) -> str | None:
    """Name of the InferenceService that an object belongs to, by its label."""
    name: str | None = (obj["metadata"].get("labels") or {}).get(contract.LABEL_SERVICE)
    return name


def _service_of_child(obj: Object) -> Iterable[str]:
    name = child_service(obj)
    return (service_place(obj["metadata"]["namespace"], name),) if name else ()


def _service_of_pod(entry: PodEntry) -> Iterable[str]:
    return (service_place(entry.namespace, entry.service),)


def _node_of_pod(entry: PodEntry) -> Iterable[str]:
    return (entry.worker.node,) if entry.worker.node else ()


def _service_of_autoscaler(one: Autoscaler) -> Iterable[str]:
    return (service_place(one.namespace, one.service),)


def own_caches(
    client: Api,
    *,
    system_namespace: str,
    gateway_admin_service: str,
    services: Informer[Object],
    models: Informer[Object],
    slas: Informer[Object],
    tenants: Informer[Object],
    pools: Informer[Object],
    with_routes: bool = False,
) -> Caches:
    """Informers of the children beside those of our kinds; nothing is started."""
    ours = f"{contract.LABEL_MANAGED_BY}={contract.MANAGED_BY},{contract.LABEL_SERVICE}"
    kinds = (SERVICE_ACCOUNTS, NETWORK_POLICIES, SERVICES, POD_DISRUPTION_BUDGETS)
    optional = {
        one.kind: Informer(
            client, one, keep=lean, label_selector=ours, index={BY_SERVICE: _service_of_child}, optional=True
        )
        for one in (RESOURCE_CLAIM_TEMPLATES, *((INFERENCE_POOLS, HTTP_ROUTES) if with_routes else ()))
    }
    return Caches(
        services=services,
        models=models,
        slas=slas,
        tenants=tenants,
        pools=pools,
        deployments=Informer(
            client, DEPLOYMENTS, keep=lean, label_selector=ours, index={BY_SERVICE: _service_of_child}
        ),
        surroundings={one.kind: Informer(client, one, keep=lean, label_selector=ours) for one in kinds} | optional,
        pods=Informer(
            client,
            PODS,
            keep=pod_entry,
            label_selector=contract.LABEL_SERVICE,
            index={BY_SERVICE: _service_of_pod, BY_NODE: _node_of_pod},
        ),
        gateways=Informer(
            client,
            ENDPOINT_SLICES,
            keep=ready_addresses,
            namespace=system_namespace,
            label_selector=f"kubernetes.io/service-name={gateway_admin_service}",
        ),
        autoscalers=Informer(
            client, HORIZONTAL_POD_AUTOSCALERS, keep=autoscaler, index={BY_SERVICE: _service_of_autoscaler}
        ),
        evacuating=Informer(
            # Every node may get a notice; `false` is nobody's mark, and keeps the node out.
            client,
            NODES,
            keep=evacuating_name,
            label_selector=f"{contract.LABEL_EVACUATE}!=false",
        ),
        gpu_nodes=Informer(client, NODES, keep=GpuNode.of, label_selector=LABEL_COUNT),
        nodes=Informer(client, NODES, keep=node_facts, label_selector=LABEL_HOSTNAME),
        optional=optional,
    )


def gateway_addresses(caches: Caches) -> frozenset[str]:
    """Of all gateway replicas that are ready."""
    return frozenset().union(*caches.gateways.items())


def ready_addresses(slice_: Object) -> frozenset[str]:
    """Addresses that take requests now."""
    return frozenset(
        address
        for endpoint in slice_.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or ()
    )


def autoscaler(obj: Object) -> Autoscaler | None:
    """What is kept of a HorizontalPodAutoscaler; None for those of other kinds. KEDA has one, too."""
    meta, target = obj["metadata"], obj["spec"].get("scaleTargetRef") or {}
    group = str(target.get("apiVersion", "")).partition("/")[0]
    if (group, target.get("kind")) != (contract.GROUP, INFERENCE_SERVICES.kind):
        return None
    scaled_object = next((one for one in meta.get("ownerReferences") or () if one.get("kind") == "ScaledObject"), None)
    kind, name = ("ScaledObject", scaled_object["name"]) if scaled_object else (obj["kind"], meta["name"])
    return Autoscaler(meta["namespace"], str(target.get("name", "")), f"{kind} '{name}'")


def pod_entry(pod: Object) -> PodEntry | None:
    """What is kept of a pod; None for one that has ended and only waits to be collected."""
    meta, status = pod["metadata"], pod.get("status") or {}
    labels = meta.get("labels") or {}
    if status.get("phase") in ("Failed", "Succeeded") or contract.LABEL_SERVICE not in labels:
        return None
    worker = worker_of(pod)
    cold_start_s = seconds_between(worker.created, worker.ready_since)
    return PodEntry(
        meta["namespace"],
        labels[contract.LABEL_SERVICE],
        worker,
        uid=meta.get("uid", ""),
        cold_start_s=cold_start_s if worker.ready and not worker.restarts else None,
    )
