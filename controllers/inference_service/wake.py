"""Who wakes an InferenceService: everything that its snapshot is made of. Marks keys; reads nothing but names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from controllers.inference_service.caches import (
    BY_MODEL,
    BY_NAMESPACE,
    BY_NODE,
    BY_SLA,
    Autoscaler,
    Caches,
    PodEntry,
    child_service,
    service_place,
)
from controllers.inference_service.reconciler import KIND
from controllers.plans.claims import asks_of
from controllers.plans.fallbacks import named_fallbacks
from controllers.plans.healing.values import NodeFacts
from controllers.plans.limits import told_by
from controllers.plans.mig.offers import GpuNode
from controllers.runtime.interface import Key, Marker
from crds.conditions import SERVABLE
from crds.inference_service import AUTO
from kube.informer import Change
from kube.resources import Object


def wake_services(caches: Caches, queue: Marker, over_quota: Callable[[], Iterable[Key]]) -> None:
    """Register the listeners. An InferenceService's own changes mark it already (`controllers.runtime`)."""
    waker = _Waker(caches, queue, over_quota)
    caches.deployments.on_change(waker.child)
    for informer in caches.surroundings.values():
        informer.on_change(waker.child)
    caches.pods.on_change(waker.pod)
    caches.models.on_change(waker.model)
    caches.slas.on_change(waker.sla)
    caches.tenants.on_change(waker.tenant)
    caches.services.on_change(waker.sibling)
    caches.gateways.on_change(waker.gateway)
    caches.autoscalers.on_change(waker.autoscaler)
    caches.evacuating.on_change(waker.evacuation)
    caches.nodes.on_change(waker.node)
    caches.pools.on_change(waker.pool)
    caches.gpu_nodes.on_change(waker.offers)
    for optional in caches.optional.values():
        optional.on_presence(waker.all_services)


class _Waker:
    def __init__(self, caches: Caches, queue: Marker, over_quota: Callable[[], Iterable[Key]]) -> None:
        self._caches, self._queue, self._over_quota = caches, queue, over_quota

    def child(self, change: Change[Object]) -> None:
        """The label may have been taken away by hand, so both sides of the change count."""
        for side in (change.old, change.new):
            name = child_service(side) if side else None
            if name:
                self._queue.add(Key(KIND, change.namespace, name))

    def pod(self, change: Change[PodEntry]) -> None:
        self._queue.add(Key(KIND, change.value.namespace, change.value.service))

    def model(self, change: Change[Object]) -> None:
        self._all(BY_MODEL, service_place(change.namespace, change.name))

    def sla(self, change: Change[Object]) -> None:
        self._all(BY_SLA, service_place(change.namespace, change.name))

    def tenant(self, change: Change[Object]) -> None:
        """Namespaces that it had or has; what its cohort has to lend, and who has borrowed most of it."""
        sides = [side for side in (change.old, change.new) if side]
        same = len(sides) == 2 and sides[0]["spec"] == sides[1]["spec"]
        if same and _fair_share(sides[0]) == _fair_share(sides[1]):
            return
        for namespace in set() if same else {name for side in sides for name in side["spec"].get("namespaces") or ()}:
            self._all(BY_NAMESPACE, namespace)
        for key in self._over_quota():
            self._queue.add(key)

    def autoscaler(self, change: Change[Autoscaler]) -> None:
        """It may have been pointed at another service."""
        for side in (change.old, change.new):
            if side:
                self._queue.add(Key(KIND, side.namespace, side.service))

    def evacuation(self, change: Change[str]) -> None:
        """A node will be cut anew, or is again as others: the services with a worker on it."""
        self._of_node(change.name)

    def node(self, change: Change[NodeFacts]) -> None:
        """It went, came back, or has less than it needs."""
        self._of_node(change.name)

    def _of_node(self, name: str) -> None:
        for entry in self._caches.pods.by(BY_NODE, name):
            self._queue.add(Key(KIND, entry.namespace, entry.service))

    def pool(self, change: Change[Object]) -> None:
        """What it may be cut into, and which services it has too little for."""
        if change.old is None or change.new is None or change.old["spec"] != change.new["spec"]:
            self._choosing()
        before, after = told_by(change.old), told_by(change.new)
        for place in {place for place, _ in before.items() ^ after.items()}:
            namespace, _, name = place.partition("/")
            self._queue.add(Key(KIND, namespace, name))

    def offers(self, change: Change[GpuNode]) -> None:
        """A node of another kind, or in another pool; most changes of a Node are neither."""
        if change.old != change.new:
            self._choosing()

    def _choosing(self) -> None:
        """The services whose MIG profile is ours to choose, or whose devices another pool may give in another way."""
        claims = self._caches.gives_claims()
        for service in self._caches.services.items():
            on = service["spec"]["accelerator"]
            claimed = (service.get("status") or {}).get("allocation")
            asks = claims and ("mig" in on or "gpu" in on)
            if (on.get("mig") or {}).get("profile") == AUTO or claimed or asks:
                self._queue.add(Key.of(service))

    def sibling(self, change: Change[Object]) -> None:
        """What one service gives back, another may be waiting for; and others may name it as their fallback."""
        asked = [asks_of(one) for one in (change.old, change.new) if one]
        if len(asked) != 2 or asked[0] != asked[1]:
            for key in self._over_quota():
                self._queue.add(key)
        sides = [named_fallbacks(one["spec"]) for one in (change.old, change.new) if one]
        if len(sides) == 2 and sides[0] == sides[1]:
            return
        for service in self._caches.services.by(BY_NAMESPACE, change.namespace or ""):
            if service["metadata"]["name"] != change.name and named_fallbacks(service["spec"]):
                self._queue.add(Key.of(service))

    def all_services(self) -> None:
        """What stands beside each of them may be another."""
        for service in self._caches.services.items():
            self._queue.add(Key.of(service))

    def gateway(self, change: Change[Any]) -> None:
        """Those that serve are probed through the new gateways at their next turn; those that do not, now."""
        del change
        for service in self._caches.services.items():
            if not _is_servable(service):
                self._queue.add(Key.of(service))

    def _all(self, index: str, place: str) -> None:
        for service in self._caches.services.by(index, place):
            self._queue.add(Key.of(service))


def _fair_share(tenant: Object) -> Any:
    return (tenant.get("status") or {}).get("fairShare")


def _is_servable(service: Object) -> bool:
    conditions = (service.get("status") or {}).get("conditions") or ()
    return any(one["type"] == SERVABLE and one["status"] == "True" for one in conditions)
