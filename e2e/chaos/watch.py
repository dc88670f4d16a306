"""The onlooker: follows pods, services, nodes and the leader at the API server, and each gateway's own numbers.

It only looks. What it saw is a list of signs with their times; whether a service is whole now is asked of the newest
looks. Its eyes are those of the cluster: where the API server is away, it sees nothing until it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp

from crds.contract import GATEWAY_ADMIN_PORT
from e2e.chaos.signs import (
    By,
    GatewayLook,
    ModelLook,
    NodeLook,
    PodLook,
    ServiceLook,
    Sign,
    gateway_looks,
    gateway_signs,
    model_look,
    model_signs,
    node_look,
    node_signs,
    pod_look,
    pod_signs,
    service_look,
    service_signs,
)
from e2e.install import SYSTEM
from kube.client import Client
from kube.informer import Change, Informer
from kube.resources import INFERENCE_SERVICES, LEASES, MODELS, NODES, PODS, Object

GATEWAY_EVERY_S: Final = 0.25
LEASE: Final = "foretide-operator"


class Onlooker:
    """`run` until cancelled; `synced` when everything was seen once."""

    def __init__(self, client: Client, session: aiohttp.ClientSession, namespace: str) -> None:
        self.signs: list[Sign] = []
        self._session, self._namespace = session, namespace
        self._gateways: dict[str, dict[str, GatewayLook]] = {}
        self.pods: Informer[PodLook] = Informer(client, PODS, pod_look, namespace=namespace)
        self.services: Informer[ServiceLook] = Informer(client, INFERENCE_SERVICES, service_look, namespace=namespace)
        self.models: Informer[ModelLook] = Informer(client, MODELS, model_look, namespace=namespace)
        self.nodes: Informer[NodeLook] = Informer(client, NODES, node_look)
        self.system: Informer[Object] = Informer(client, PODS, _whole, namespace=SYSTEM)
        self._leases: Informer[str] = Informer(
            client, LEASES, _holder, namespace=SYSTEM, field_selector=f"metadata.name={LEASE}"
        )
        self.pods.on_change(self._said(pod_signs))
        self.services.on_change(self._said(service_signs))
        self.models.on_change(self._said(model_signs))
        self.nodes.on_change(self._said(node_signs))
        self._leases.on_change(self._leader_changed)

    async def run(self) -> None:
        followed: list[Informer[Any]] = [self.pods, self.services, self.models, self.nodes, self.system, self._leases]
        async with asyncio.TaskGroup() as tasks:
            for one in followed:
                tasks.create_task(one.run())
            tasks.create_task(self._follow_gateways())

    async def synced(self) -> None:
        for one in (self.pods, self.services, self.models, self.nodes, self.system, self._leases):
            await one.synced.wait()

    # --- what was seen ----------------------------------------------------------------------------------------------
    def of(self, service: str, since_s: float) -> list[Sign]:
        """Signs of one service, from a time on."""
        return [one for one in self.signs if one.service == service and one.at_s >= since_s]

    def workers(self, service: str) -> list[PodLook]:
        """Those that are not on their way out, by name."""
        found = [pod for pod in self.pods.items() if pod.service == service and not pod.leaving and not pod.failed]
        return sorted(found, key=lambda pod: pod.name)

    def whole(self, service: str, n_workers: int) -> bool:
        """As many workers as wanted, all ready, no other; and every gateway sends to all of them."""
        workers = self.workers(service)
        ready = len(workers) == n_workers and all(pod.ready for pod in workers)
        views = [looks.get(service) for looks in self._gateways.values()]
        return ready and bool(views) and all(view is not None and view.ready == n_workers for view in views)

    def leader(self) -> str:
        """Pod of the leading operator; empty while there is none."""
        held = self._leases.get(SYSTEM, LEASE) or ""
        return held.split("_")[0]

    def system_pods(self, name: str) -> list[Object]:
        """Pods of one part of Foretide that are not on their way out."""
        return [
            pod
            for pod in self.system.items()
            if (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/name") == name
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def gateway_addresses(self) -> list[str]:
        return [ip for pod in self.system_pods("foretide-gateway") if (ip := pod["status"].get("podIP"))]

    # --- looking ----------------------------------------------------------------------------------------------------
    def _said(self, signs: Callable[[float, Any, Any], Sequence[Sign]]) -> Callable[[Change[Any]], None]:
        return lambda change: self.signs.extend(signs(time.monotonic(), change.old, change.new))

    def _leader_changed(self, change: Change[str]) -> None:
        if change.new and change.new != change.old:
            self.signs.append(Sign(time.monotonic(), By.LEADER, "", f"{change.new.split('_')[0]} leads"))

    async def _follow_gateways(self) -> None:
        while True:
            addresses = self.gateway_addresses()
            for gone in set(self._gateways) - set(addresses):
                del self._gateways[gone]
            await asyncio.gather(*(self._look_at(address) for address in addresses))
            await asyncio.sleep(GATEWAY_EVERY_S)

    async def _look_at(self, address: str) -> None:
        url = f"http://{address}:{GATEWAY_ADMIN_PORT}/metrics"
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
                page = await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return  # What it last said stands; a gateway that is gone leaves the list of pods.
        now_s, before = time.monotonic(), self._gateways.get(address, {})
        looks = gateway_looks(page, self._namespace)
        for service, look in looks.items():
            self.signs.extend(gateway_signs(now_s, service, before.get(service), look))
        self._gateways[address] = looks


def _whole(obj: Object) -> Object:
    return obj


def _holder(obj: Object) -> str:
    return str(obj.get("spec", {}).get("holderIdentity") or "")
