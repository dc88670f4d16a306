"""Observe: a frozen PoolSnapshot of one GPUPool, from caches only.

A node counts in one pool, the first by name whose selector it matches; a service in one pool, the first by name with a
node that the service's own selector matches. So no slice and no worker is counted twice. What was stored under another
release's rules changes nothing: such a service wants what it has, such a pool keeps its nodes and serves nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from controllers.plans.fair_share import turn_of
from controllers.plans.mig.chosen import is_auto, spec_of
from controllers.plans.mig.claims import profile_of
from controllers.plans.mig.demand import Want
from controllers.plans.mig.devices import ClaimView, SliceView, holders, missing_api, published, with_devices
from controllers.plans.mig.faults import is_out
from controllers.plans.mig.geometry import WHOLE_GPU
from controllers.plans.mig.leaving import read_leaving
from controllers.plans.mig.offers import allowed_by, matches, pool_specs
from controllers.plans.mig.pool import PoolSnapshot
from controllers.plans.mig.records import GpuPod, NodeView
from controllers.plans.mig.sharing import ShareWant
from controllers.plans.tenancy import Tenant, demand_of, owner_of
from controllers.reading import readable
from crds.contract import LABEL_SERVICE
from crds.gpu_pool import GPUPoolSpec
from crds.inference_service import Allocation, InferenceServiceSpec
from crds.reading import unread_of
from kube.api import Api
from kube.informer import Informer, lean
from kube.resources import (
    CAPACITY_FORECASTS,
    CONFIG_MAPS,
    DEVICE_CLASSES,
    GPU_POOLS,
    INFERENCE_SERVICES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    SLAS,
    TENANTS,
    Object,
)

_Service = tuple[Object, InferenceServiceSpec]
_Nodes = Mapping[str, list[NodeView]]
_Pools = Mapping[str, GPUPoolSpec]
"""By name of the pool."""


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _gpu_pod(pod: Object) -> GpuPod | None:
    return GpuPod.of(pod, LABEL_SERVICE)


def _namespaces(tenant: Object) -> Iterable[str]:
    return tenant["spec"].get("namespaces") or ()


@dataclass(frozen=True, slots=True)
class Caches:
    """Everything that is read."""

    pools: Informer[Object]
    services: Informer[Object]
    slas: Informer[Object]
    forecasts: Informer[Object]
    nodes: Informer[NodeView]
    pods: Informer[GpuPod]
    configs: Informer[Object]
    tenants: Informer[Object]
    slices: Informer[SliceView]
    claims: Informer[ClaimView]
    classes: Informer[str]
    """Names of DeviceClasses. The last three are of an API that a cluster need not serve."""

    @classmethod
    def of(cls, client: Api, manager_namespace: str, config_map: str) -> Caches:
        """Nothing is started."""
        return cls(
            pools=Informer(client, GPU_POOLS, keep=lean),
            services=Informer(client, INFERENCE_SERVICES, keep=readable),
            slas=Informer(client, SLAS, keep=readable),
            forecasts=Informer(client, CAPACITY_FORECASTS, keep=lean),
            nodes=Informer(client, NODES, keep=NodeView.of),
            pods=Informer(client, PODS, keep=_gpu_pod),
            configs=Informer(
                client,
                CONFIG_MAPS,
                keep=lean,
                namespace=manager_namespace,
                field_selector=f"metadata.name={config_map}",
            ),
            tenants=Informer(client, TENANTS, keep=readable, index={"by_namespace": _namespaces}),
            slices=Informer(client, RESOURCE_SLICES, keep=SliceView.of, optional=True),
            claims=Informer(client, RESOURCE_CLAIMS, keep=ClaimView.of, optional=True),
            classes=Informer(client, DEVICE_CLASSES, keep=_name, optional=True),
        )


class Observer:
    """Makes snapshots. Keeps nothing."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches

    def snapshot(self, pool: Object) -> PoolSnapshot:
        """Of the pool as the cache shows it. Raises ValidationError for a spec that cannot be read, unless it goes."""
        deleting = bool(pool["metadata"].get("deletionTimestamp"))
        spec = _spec_of(pool, deleting)
        nodes = self._nodes_by_pool()
        readable = pool_specs(self._caches.pools.items())
        services = self._services()
        mine = tuple(sorted(nodes[pool["metadata"]["name"]], key=lambda one: one.name))
        mine, pods = self._devices(mine) if spec.allocation is Allocation.RESOURCE_CLAIMS else (mine, self._plugged())
        names = {one.name for one in mine}
        return PoolSnapshot(
            name=pool["metadata"]["name"],
            generation=pool["metadata"].get("generation", 0),
            spec=spec,
            nodes=mine,
            pods=tuple(
                sorted(
                    (pod for pod in pods if pod.node in names),
                    key=lambda pod: (pod.namespace, pod.name),
                )
            ),
            wants=tuple(self._wants(pool["metadata"]["name"], services, nodes, readable)),
            deleting=deleting,
            share_wants=tuple(self._share_wants(pool["metadata"]["name"], services, nodes, readable)),
            missing_api=self._missing_api() if spec.allocation is Allocation.RESOURCE_CLAIMS else None,
        )

    def _plugged(self) -> Iterable[GpuPod]:
        """Pods whose devices the device plugin gave."""
        return (pod for pod in self._caches.pods.items() if pod.slices or pod.shares)

    def _devices(self, nodes: tuple[NodeView, ...]) -> tuple[tuple[NodeView, ...], Iterable[GpuPod]]:
        """Nodes and pods as ResourceSlices and ResourceClaims say they are."""
        by_pool = published(self._caches.slices.items())
        pods = holders(self._caches.claims.items(), self._caches.pods.items(), by_pool)
        return tuple(with_devices(one, by_pool) for one in nodes), pods

    def _missing_api(self) -> tuple[str, str] | None:
        serves = self._caches.slices.present and self._caches.claims.present
        return missing_api(serves, self._caches.classes.items())

    def all_nodes(self) -> list[NodeView]:
        """Of every pool and none: the manager's configuration is one for all."""
        return self._caches.nodes.items()

    def _nodes_by_pool(self) -> dict[str, list[NodeView]]:
        pools = sorted(self._caches.pools.items(), key=lambda one: str(one["metadata"]["name"]))
        found: dict[str, list[NodeView]] = {one["metadata"]["name"]: [] for one in pools}
        for node in self._caches.nodes.items():
            mine = next((one for one in pools if _selects(one, node.labels)), None)
            if mine is not None:
                found[mine["metadata"]["name"]].append(node)
            elif pools and node.record is not None:
                # Its labels changed on the way: any pool may bring it to its end, and none may count on it.
                found[pools[0]["metadata"]["name"]].append(replace(node, problem=_left(node)))
            elif pools and (is_out(node) or read_leaving(node.interruption) is not None):
                found[pools[0]["metadata"]["name"]].append(replace(node, problem=_left(node), family=None, now=()))
        return found

    def _services(self) -> list[_Service]:
        """The oldest first."""
        return [(one, spec_of(one)) for one in sorted(self._caches.services.items(), key=_created)]

    def _wants(self, pool: str, services: Iterable[_Service], nodes: _Nodes, pools: _Pools) -> Iterable[Want]:
        for service, spec in services:
            want = self._want(service, spec)
            if want is not None and _pool_of(service, want, nodes, pools) == pool:
                yield want

    def _share_wants(
        self, pool: str, services: Iterable[_Service], nodes: _Nodes, pools: _Pools
    ) -> Iterable[ShareWant]:
        for service, spec in services:
            want = self._share_want(service, spec)
            if want is not None and _pool_of_share(service, want, nodes, pools) == pool:
                yield want

    def _share_want(self, service: Object, spec: InferenceServiceSpec) -> ShareWant | None:
        meta = service["metadata"]
        on = spec.accelerator.shared
        if meta.get("deletionTimestamp") or on is None:
            return None
        return ShareWant(
            service=f"{meta['namespace']}/{meta['name']}",
            strategy=on.strategy,
            gigabytes=on.gigabytes,
            replicas=self._replicas(service, spec),
            priority=self._priority(meta["namespace"], spec.sla),
            turn=self._turn(meta["namespace"], "sharedGigabytes"),
        )

    def _want(self, service: Object, spec: InferenceServiceSpec) -> Want | None:
        meta = service["metadata"]
        on = spec.accelerator
        profile = profile_of(on)
        if meta.get("deletionTimestamp") or profile is None or is_auto(spec):
            return None
        return Want(
            service=f"{meta['namespace']}/{meta['name']}",
            profile=profile,
            replicas=self._replicas(service, spec),
            priority=self._priority(meta["namespace"], spec.sla),
            gpus=on.gpu.count if on.gpu else 1,
            turn=self._turn(meta["namespace"], *(("migGigabytes", "migSlices") if on.mig else ("gpus",))),
        )

    def _replicas(self, service: Object, spec: InferenceServiceSpec) -> int:
        """Now, or when a new worker would be ready. Of a service that cannot be read nobody knows what it will want."""
        now, meta = self._now(service, spec), service["metadata"]
        return now if unread_of(service) else max(now, self._planned(meta["namespace"], meta["name"]))

    def _now(self, service: Object, spec: InferenceServiceSpec) -> int:
        """What it wants, whatever this pool has: else a limit of the pool's would lower what the pool is asked for."""
        status: Mapping[str, Any] = service.get("status") or {}
        wanted = (status.get("scaling") or {}).get("wantedReplicas")
        return demand_of(spec, status.get("desiredReplicas") if wanted is None else wanted).replicas

    def _planned(self, namespace: str, name: str) -> int:
        """Workers that the forecast calls for when a new one would be ready, within the Tenant's quota."""
        status: Mapping[str, Any] = (self._caches.forecasts.get(namespace, name) or {}).get("status") or {}
        return int(status.get("wantedReplicas") or status.get("plannedReplicas") or 0)

    def _turn(self, namespace: str, *lines: str) -> float:
        claiming = [Tenant.of(one) for one in self._caches.tenants.by("by_namespace", namespace)]
        return turn_of(owner_of(namespace, claiming), (*lines, "replicas"))

    def _priority(self, namespace: str, sla: str | None) -> int:
        found = self._caches.slas.get(namespace, sla) if sla else None
        return int(found["spec"]["priority"].removeprefix("P")) if found else 3


def _left(node: NodeView) -> str:
    return f"Node '{node.name}' left its pool while it was cut anew or out of use; this comes to its end first."


def _spec_of(pool: Object, deleting: bool) -> GPUPoolSpec:
    """As it is written; a pool that goes needs no more of it than its nodes, and must not wait for a person."""
    try:
        return GPUPoolSpec.model_validate(pool["spec"])
    except ValidationError:
        if not deleting:
            raise
        return GPUPoolSpec.model_construct(node_selector={})


def _selects(pool: Object, labels: Mapping[str, str]) -> bool:
    """Whether a pool's selector matches; one that cannot be read, or says nothing, matches no node."""
    selector = pool["spec"].get("nodeSelector")
    return isinstance(selector, dict) and bool(selector) and matches(selector, labels)


def _allowed(service: Object, nodes: _Nodes, pools: _Pools) -> dict[str, list[NodeView]]:
    """By pool, of those that can be read: the nodes that the service's own selector matches."""
    selector = service["spec"].get("nodeSelector") or {}
    return {
        name: [one for one in found if matches(selector, one.labels)]
        for name, found in sorted(nodes.items())
        if name in pools
    }


def _pool_of(service: Object, want: Want, nodes: _Nodes, pools: _Pools) -> str | None:
    """The first pool by name with a node that may run it, those first that give devices as its workers get them; else
    the first with a node that its selector allows."""
    allowed = _allowed(service, nodes, pools)
    claimed = Allocation((service.get("status") or {}).get("allocation") or Allocation.DEVICE_PLUGIN)
    able = [
        name
        for name, found in sorted(allowed.items(), key=lambda one: pools[one[0]].allocation is not claimed)
        if _may_cut(pools[name], want.profile) and any(_has(one, want.profile) for one in found)
    ]
    rest = [name for name, found in allowed.items() if found]
    return next(iter([*able, *rest]), None)


def _pool_of_share(service: Object, want: ShareWant, nodes: _Nodes, pools: _Pools) -> str | None:
    """The first pool by name with a share that holds the worker; else the first with a node for its selector."""
    allowed = _allowed(service, nodes, pools)
    able = [
        name
        for name, found in allowed.items()
        if any(one.share is not None and one.share.holds(want.strategy, want.gigabytes) for one in found)
    ]
    return next(iter([*able, *(name for name, found in allowed.items() if found)]), None)


def _may_cut(pool: GPUPoolSpec, profile: str) -> bool:
    allowed = allowed_by(pool)
    return profile == WHOLE_GPU or allowed is None or profile in allowed


def _has(node: NodeView, profile: str) -> bool:
    return node.family is not None and (profile == WHOLE_GPU or node.family.profile(profile) is not None)


def _created(service: Object) -> tuple[str, str, str]:
    meta = service["metadata"]
    return meta.get("creationTimestamp", ""), meta["namespace"], meta["name"]
