"""Models, SLAs and Tenants with two node agents against a real API server and its controllers: apply by field owner,
binding of volumes, finalizers, quantities as the server spells them, and no writes once all is said."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controllers.apply import Applier
from controllers.guard import AddressGuard
from controllers.inference_service.caches import SERVICE_INDEX, TENANT_INDEX
from controllers.model.wiring import wire_model
from controllers.model_cache.agent import Agent
from controllers.model_cache.report import Reporter
from controllers.model_cache.sources import Access
from controllers.model_cache.store import Store
from controllers.model_cache.views import Views
from controllers.plans.keyring import key_hash
from controllers.plans.model_manifests import Agents, persistent_volume
from controllers.plans.model_volume import model_volume
from controllers.runtime.interface import Key, Reconciler
from controllers.settings import Settings
from controllers.sla.reconciler import SlaReconciler
from controllers.tenant import keyring
from controllers.tenant.wiring import wire_tenant
from controllers.wakes import by_namespace, of_service, wake
from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from e2e.cluster.controlplane import Settings as ControlPlaneSettings
from kube.client import Client
from kube.connection import Connection
from kube.errors import AlreadyExists, NotFound
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import (
    INFERENCE_SERVICES,
    MODELS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    RESOURCE_QUOTAS,
    SECRETS,
    SLAS,
    TENANTS,
    Object,
    Resource,
)
from tests.controllers.model_cache.files import WebServer, gguf, serving, sha256
from tests.controllers.running import Keys, running
from tests.plans.test_carried import H100
from tests.waiting import eventually, eventually_told, quiet_for

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).parents[3]
LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.1/32")])
SYSTEM = "foretide-system"
KEY = "first-key-0123456789"
Holds = Callable[[Object | None], bool]


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlane]:
    """With the controllers that bind volumes and collect what has no owner."""
    with ControlPlane(settings=ControlPlaneSettings(controller_manager=True)) as running:
        kubectl = [str(tools.kubectl()), "--kubeconfig", str(running.kubeconfig)]
        manifests = ["-f", str(ROOT / "crds" / "manifests")]
        subprocess.run([*kubectl, "apply", "--server-side", *manifests], check=True, capture_output=True, timeout=60)
        subprocess.run([*kubectl, "wait", "--for=condition=Established", *manifests], check=True, capture_output=True)
        yield running


@dataclass
class World:
    """The API server and the words to ask it."""

    client: Client
    queue: Keys
    roots: dict[str, Path]
    agents: dict[str, Agent]

    async def put(self, resource: Resource, namespace: str | None, name: str, **fields: Any) -> Object:
        meta = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
        manifest = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **fields}
        return await self.client.apply(resource, manifest, field_manager="a-person")

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        try:
            return await self.client.get(resource, namespace, name)
        except NotFound:
            return None

    async def until(
        self, resource: Resource, namespace: str | None, name: str, holds: Callable[[Object | None], bool], what: str
    ) -> Object | None:
        """The object for which `holds` becomes true within 90 s: Kubernetes binds again what was unbound every 15 s."""
        found: Object | None = None

        async def look() -> bool:
            nonlocal found
            found = await self.get(resource, namespace, name)
            return holds(found)

        await eventually_told(look, lambda: f"{what}; now {json.dumps(found)}", 90)
        return found

    async def stays_quiet(self) -> None:
        """Nothing is written any more, although everything is looked at again."""
        before = await quiet_for(lambda: self.client.writes, 1.0)
        done, keys = self.queue.done, []
        for resource in (MODELS, SLAS, TENANTS):
            keys += [Key.of(one) for one in await self.client.list(resource)]
        for key in keys:
            self.queue.add(key)
        await eventually(lambda: self.queue.done >= done + len(keys), "everything was looked at again")
        assert await quiet_for(lambda: self.client.writes, 1.0) == before


@pytest.fixture
async def world(server: ControlPlane, tmp_path: Path) -> AsyncIterator[World]:
    async with Client(Connection.from_environment(server.kubeconfig)) as client:
        for name in (SYSTEM, "demo"):
            with contextlib.suppress(AlreadyExists):
                await client.create(NAMESPACES, {"metadata": {"name": name}})
        world = World(client, Keys(), {}, {})
        for name in ("node-1", "node-2"):
            await world.put(NODES, None, name, metadata={"labels": {"kubernetes.io/os": "linux"}})
        async with _control(world), _agent(world, "node-1", tmp_path), _agent(world, "node-2", tmp_path):
            yield world


@contextlib.asynccontextmanager
async def _control(world: World) -> AsyncIterator[None]:
    client, queue = world.client, world.queue
    services = Informer(client, INFERENCE_SERVICES, keep=lean, index=SERVICE_INDEX)
    models = Informer(client, MODELS, keep=lean, index={"by_namespace": by_namespace})
    slas = Informer(client, SLAS, keep=lean)
    tenants = Informer(client, TENANTS, keep=lean, index=TENANT_INDEX)
    applier, recorder = Applier(client), Recorder(client, controller="test", instance="test")
    of_models = wire_model(
        client,
        Settings(),
        queue,
        recorder,
        applier,
        services=services,
        models=models,
        measured=lambda uid: [H100],
    )
    of_tenants = wire_tenant(client, Settings(), queue, recorder, applier, services=services, tenants=tenants)
    of_slas = SlaReconciler(slas, services, applier, recorder)
    wake(services, queue, of_service(tenants))
    reconcilers: list[Reconciler] = [of_models.reconciler, of_tenants.reconciler, of_slas]
    others = [*of_models.caches, *of_tenants.caches]
    async with running(queue, reconcilers, [services, models, slas, tenants], others, of_tenants.background):
        yield


@contextlib.asynccontextmanager
async def _agent(world: World, name: str, folder: Path) -> AsyncIterator[None]:
    views, root = Views.following(world.client, name), folder / name
    reporter = Reporter(world.client, views, time.monotonic)
    agent = Agent(
        views,
        Store(root, keep_free_percent=0),
        reporter,
        Access(LOOPBACK),
        10**9,
        time.monotonic,
        time.time,
        random.Random(1),
    )
    world.roots[name], world.agents[name] = root, agent
    tasks = [asyncio.ensure_future(one.run()) for one in views.informers().values()]
    tasks.append(asyncio.ensure_future(agent.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def condition(obj: Object | None, type_: str = "Ready") -> str:
    found = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((f"{one['status']} {one['reason']}" for one in found if one["type"] == type_), "")


def is_gone(obj: Object | None) -> bool:
    return obj is None


def is_ready(obj: Object | None) -> bool:
    return condition(obj) == "True Ready"


def is_bound(claim: Object | None) -> bool:
    return claim is not None and claim.get("status", {}).get("phase") == "Bound"


def is_cached(model: Object | None, copies: int) -> bool:
    return model is not None and condition(model) == "True Cached" and model["status"]["cached"] == f"{copies}/{copies}"


def nodes(model: Object | None) -> list[str]:
    """Sorted: each node's agent owns its own entry, so they stand in the order of their first writes."""
    return sorted(str(one["name"]) for one in ((model or {}).get("status") or {}).get("nodes") or [])


def uid(obj: Object | None) -> str | None:
    return obj["metadata"]["uid"] if obj else None


def knows(keyring: Object | None, *keys: str) -> bool:
    """Whether the gateways know exactly these keys of Tenant `acme`."""
    data = (keyring or {}).get("data") or {}
    if "keyring.json" not in data:
        return False
    pepper, hashes = base64.b64decode(data["pepper"]), json.loads(base64.b64decode(data["keyring.json"]))
    return bool(hashes.get("acme", []) == sorted(key_hash(pepper, key) for key in keys))


async def test_a_model_from_apply_to_bound_claim_to_nothing_left(world: World) -> None:
    content = gguf()
    async with serving(WebServer(content)) as web:
        await world.put(MODELS, "demo", "m", spec={"source": f"{web.url}/m.gguf", "digest": sha256(content)})
        model = await world.until(MODELS, "demo", "m", lambda one: is_cached(one, 2), "both nodes hold it")
        assert model is not None
        assert nodes(model) == ["node-1", "node-2"]
        assert model["status"]["state"] == "Cached"
        assert model["status"]["profiles"] == [H100.dump()], "what a worker measured, beside the agents' own items"
        await world.until(PERSISTENT_VOLUME_CLAIMS, "demo", "m-model", is_bound, "the claim is bound")
        for root in world.roots.values():
            assert (root / "demo" / "m" / "m.gguf").read_bytes() == content
        await world.stays_quiet()

        await world.client.delete(NODES, None, "node-2")
        await world.until(MODELS, "demo", "m", lambda one: nodes(one) == ["node-1"], "its entry is out")
        await world.stays_quiet()

        await world.client.delete(MODELS, "demo", "m")
        await world.until(MODELS, "demo", "m", is_gone, "the model is gone")
        volume = model_volume("demo", "m", f"{web.url}/m.gguf").volume_name or ""
        assert await world.get(PERSISTENT_VOLUMES, None, volume) is None
        assert await world.get(PERSISTENT_VOLUME_CLAIMS, "demo", "m-model") is None


async def test_a_claim_that_a_person_deleted_is_made_and_bound_again(world: World) -> None:
    async with serving(WebServer(gguf())) as web:
        await world.put(MODELS, "demo", "again", spec={"source": f"{web.url}/m.gguf"})
        first = await world.until(PERSISTENT_VOLUME_CLAIMS, "demo", "again-model", is_bound, "the claim is bound")
        assert first is not None
        await world.client.delete(PERSISTENT_VOLUME_CLAIMS, "demo", "again-model")
        await world.until(
            PERSISTENT_VOLUME_CLAIMS,
            "demo",
            "again-model",
            lambda one: is_bound(one) and uid(one) != uid(first),
            "a new claim is bound",
        )
        await world.client.delete(MODELS, "demo", "again")
        await world.until(MODELS, "demo", "again", is_gone, "the model is gone")


async def test_a_volume_made_for_other_nodes_stays_as_it_is_and_stops_nothing(world: World) -> None:
    async with serving(WebServer(gguf())) as web:
        source = f"{web.url}/m.gguf"
        elsewhere = Agents(Settings().model_cache.path, {"cache": "yes"})
        before = persistent_volume(
            {"metadata": {"namespace": "demo", "name": "kept"}}, model_volume("demo", "kept", source), elsewhere
        )
        await Applier(world.client).ensure(before, None)
        await world.put(MODELS, "demo", "kept", spec={"source": source})
        await world.until(PERSISTENT_VOLUME_CLAIMS, "demo", "kept-model", is_bound, "the claim is bound")
        await world.until(MODELS, "demo", "kept", lambda one: condition(one) != "", "its state is said")
        await world.stays_quiet()
        found = await world.get(PERSISTENT_VOLUMES, None, before["metadata"]["name"])
        assert found is not None
        assert found["spec"]["nodeAffinity"] == before["spec"]["nodeAffinity"]
        await world.client.delete(MODELS, "demo", "kept")
        await world.until(MODELS, "demo", "kept", is_gone, "the model is gone")


async def test_a_tenant_with_keys_and_quota_and_an_sla_say_all_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_EVERY_S", 3600.0)
    secret = {"data": {"one": base64.b64encode(KEY.encode()).decode()}, "type": "Opaque"}
    labels = {"labels": {"foretide.dev/api-key": "true"}}
    await world.put(SECRETS, SYSTEM, "acme-key", metadata=labels, **secret)
    quota = {"cpu": "0.5", "memory": "1024Mi", "replicas": 10}
    spec = {"namespaces": ["demo"], "apiKeys": [{"secret": "acme-key"}], "quota": quota}
    await world.put(TENANTS, None, "acme", spec=spec)
    await world.put(SLAS, "demo", "fast", spec={"priority": "P1", "availability": "99.9%", "window": "28d"})
    await world.until(TENANTS, None, "acme", is_ready, "the tenant is ready")
    sla = await world.until(SLAS, "demo", "fast", is_ready, "the SLA is ready")
    assert sla is not None
    assert sla["status"]["errorBudget"] == "40m19s"
    assert await world.get(RESOURCE_QUOTAS, "demo", "foretide-tenant")
    assert await world.get(NETWORK_POLICIES, "demo", "foretide-workers")
    await world.until(SECRETS, SYSTEM, "foretide-keyring", lambda one: knows(one, KEY), "the gateways know the key")
    await world.stays_quiet()
    await world.client.delete(SECRETS, SYSTEM, "acme-key")
    await world.until(SECRETS, SYSTEM, "foretide-keyring", lambda one: knows(one), "the gateways know no key")
    await world.client.delete(TENANTS, None, "acme")
    await world.until(NETWORK_POLICIES, "demo", "foretide-workers", is_gone, "the policy is collected")
