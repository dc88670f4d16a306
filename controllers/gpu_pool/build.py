"""What the process of GPUPools watches and runs. Constructs and connects; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controllers.apply import Applier
from controllers.gpu_pool.observe import Caches
from controllers.gpu_pool.reconciler import GpuPoolReconciler, same_for_plans
from controllers.runtime.interface import Assembly, Key, Marker
from controllers.settings import Settings
from controllers.wakes import wake
from kube.api import Api
from kube.events import Recorder
from kube.informer import Change
from kube.resources import GPU_POOLS, Object


def build_pools(client: Api, settings: Settings, queue: Marker, recorder: Recorder) -> Assembly:
    """Everything connected, nothing started."""
    place = (settings.gpu_pools.manager_namespace, settings.gpu_pools.config_map)
    caches = Caches.of(client, *place)
    reconciler = GpuPoolReconciler(client, caches, Applier(client), recorder, place)

    def every_pool(_: Change[Any] | None = None) -> Iterable[Key]:
        return [Key(GPU_POOLS.kind, None, name) for _, name in caches.pools.places()]

    def all_pools() -> None:
        for key in every_pool():
            queue.add(key)

    def of_node(change: Change[Any]) -> Iterable[Key]:
        return [] if same_for_plans(change.old, change.new) else every_pool(change)

    def of_demand(change: Change[Any]) -> Iterable[Key]:
        old, new = ((one or {}).get("spec") for one in (change.old, change.new))
        same = old == new and _wished(change.old) == _wished(change.new)
        return [] if same else every_pool(change)

    def of_tenant(change: Change[Any]) -> Iterable[Key]:
        """Who is served first changes with what was borrowed; most changes of a Tenant are other ones."""
        sides = [(one["spec"], (one.get("status") or {}).get("fairShare")) for one in (change.old, change.new) if one]
        return [] if len(sides) == 2 and sides[0] == sides[1] else every_pool(change)

    def of_pool(change: Change[Any]) -> Iterable[Key]:
        """A pool that comes, goes or selects other nodes takes some from others, or leaves some to them."""
        old, new = ((one or {}).get("spec") for one in (change.old, change.new))
        return [] if old == new else every_pool()

    wake(caches.pools, queue, of_pool)
    wake(caches.nodes, queue, of_node)
    wake(caches.tenants, queue, of_tenant)
    for demand in (caches.services, caches.slas, caches.forecasts):
        wake(demand, queue, of_demand)
    wake(caches.pods, queue, every_pool)
    wake(caches.configs, queue, every_pool)
    for device in (caches.slices, caches.claims, caches.classes):
        wake(device, queue, every_pool)
        device.on_presence(all_pools)
    return Assembly(
        owned={GPU_POOLS.kind: caches.pools},
        children=(
            caches.services,
            caches.slas,
            caches.forecasts,
            caches.tenants,
            caches.nodes,
            caches.pods,
            caches.configs,
            caches.slices,
            caches.claims,
            caches.classes,
        ),
        reconcilers=(reconciler,),
    )


def _wished(obj: Object | None) -> list[object]:
    """Of a service or a CapacityForecast: what its status says that pools are asked for."""
    status: Mapping[str, Any] = (obj or {}).get("status") or {}
    fields = ("desiredReplicas", "plannedReplicas", "wantedReplicas", "slice", "allocation")
    return [*map(status.get, fields), (status.get("scaling") or {}).get("wantedReplicas")]
