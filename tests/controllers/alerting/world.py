"""The alerting controller around a fake API server, with a real store and a real courier."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controllers.alerting.wiring import Wired, wire_alerting
from controllers.alerting.wishes import WishBoard
from controllers.apply import Applier
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.inference_service.caches import SERVICE_INDEX, TENANT_INDEX, own_caches
from controllers.settings import Settings
from controllers.wakes import by_namespace
from kube.api import Api
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import ALERT_POLICIES, GPU_POOLS, INFERENCE_SERVICES, MODELS, SECRETS, SLAS, TENANTS, Object
from tests.controllers.running import Keys, running
from tests.fakes import FakeClient

SYSTEM = "foretide-system"
DOWN = {"name": "down", "severity": "P0", "metric": "unservable", "threshold": {"above": "0"}}
SETTINGS = Settings.model_validate(
    {"alerting": {"webhook_secret": "token", "allow_private_networks": ["127.0.0.1/32"]}}
)


@dataclass
class World:
    """What stays when an operator goes: the API server and the disk."""

    disk: Path
    api: FakeClient = field(default_factory=FakeClient)
    settings: Settings = SETTINGS
    wishes: WishBoard = field(default_factory=WishBoard)

    def service(self, name: str = "chat", *, servable: bool = True, **status: Any) -> None:
        condition = {"type": "Servable", "status": "True" if servable else "False", "reason": "x", "message": ""}
        spec = {"model": "m", "accelerator": {"cpu": {}}}
        meta = {"namespace": "demo", "name": name}
        self.api.put(
            INFERENCE_SERVICES, {"metadata": meta, "spec": spec, "status": {"conditions": [condition], **status}}
        )

    def policy(self, *receivers: dict[str, Any], name: str = "watch", namespace: str = "demo", **spec: Any) -> None:
        plain: dict[str, Any] = {"rules": [DOWN], "receivers": list(receivers), "grouping": {"wait": "1s"}}
        plain |= {"interval": "5s"}
        self.api.put(ALERT_POLICIES, {"metadata": {"namespace": namespace, "name": name}, "spec": plain | spec})

    def secret(self, name: str, labelled: bool = True, namespace: str = "demo", **data: str) -> None:
        labels = {"foretide.dev/alert-receiver": "true"} if labelled else {}
        values = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.api.put(SECRETS, {"metadata": {"namespace": namespace, "name": name, "labels": labels}, "data": values})

    def status(self, name: str = "watch", namespace: str = "demo") -> Object:
        return (self.api.now(ALERT_POLICIES, namespace, name) or {}).get("status") or {}

    def deliveries(self) -> list[Object]:
        """Of the newest incident, those of which something came."""
        found: list[Object] = next((one["deliveries"] for one in self.status().get("incidents") or ()), [])
        return [one for one in found if "said" in one or one["attempts"]]

    def reasons(self) -> dict[str, str]:
        return {one["type"]: one["reason"] for one in self.status().get("conditions") or []}

    @asynccontextmanager
    async def operator(self, disk: Path | None = None, client: Api | None = None) -> AsyncIterator[Wired]:
        """One operator's life as the leader; `client` stands for another API server than the fake one."""
        client, queue = client or self.api, Keys()
        services = Informer(client, INFERENCE_SERVICES, keep=lean, index=SERVICE_INDEX)
        models = Informer(client, MODELS, keep=lean, index={"by_namespace": by_namespace})
        slas, tenants = Informer(client, SLAS, keep=lean), Informer(client, TENANTS, keep=lean, index=TENANT_INDEX)
        policies = Informer(client, ALERT_POLICIES, keep=lean, index={"by_namespace": by_namespace})
        pools = Informer(client, GPU_POOLS, keep=lean)
        around = own_caches(
            client,
            system_namespace=SYSTEM,
            gateway_admin_service="x",
            services=services,
            models=models,
            slas=slas,
            tenants=tenants,
            pools=pools,
        )
        store = StoreThread(Store(disk or self.disk))
        recorder = Recorder(client, controller="test", instance="test")
        wired = wire_alerting(
            client,
            self.settings,
            queue,
            recorder,
            Applier(client),
            policies=policies,
            around_services=around,
            store=store,
            source=store,
            wishes=self.wishes,
        )
        others: Iterable[Informer[Any]] = (services, models, slas, tenants, pools, *around.own)
        try:
            async with running(queue, [wired.reconciler], [policies], others, wired.background):
                yield wired
        finally:
            await store.close()
