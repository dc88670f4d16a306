"""One object that cannot be read, in the whole operator: the others go on, it keeps what it has, and it says why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from controllers.build import build
from controllers.settings import Settings
from kube.errors import Invalid, Unavailable
from kube.events import Recorder
from kube.resources import (
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    MODELS,
    NAMESPACES,
    NODES,
    SLAS,
    TENANTS,
    Object,
    Resource,
)
from tests.controllers.running import Keys, running
from tests.fakes import FakeClient
from tests.waiting import eventually

DIGEST = "sha256:" + "a" * 64


class Told(Recorder):
    """Events as a list."""

    def __init__(self, client: FakeClient) -> None:
        super().__init__(client, controller="test", instance="test")
        self.notes: list[tuple[str, str, str]] = []

    def normal(self, regarding: Any, reason: str, message: str, *, action: str = "Reconcile") -> None:
        self.notes.append((regarding["kind"], regarding["metadata"]["name"], reason))

    warning = normal


@dataclass
class World:
    """Namespace `demo` of Tenant `acme` with Model `m`, SLA `fast` and the service `chat`."""

    api: FakeClient = field(default_factory=FakeClient)
    queue: Keys = field(default_factory=Keys)
    told: Told = field(init=False)

    def __post_init__(self) -> None:
        self.told = Told(self.api)
        self.api.put(NAMESPACES, {"metadata": {"name": "demo"}})
        self.api.put(NODES, {"metadata": {"name": "n0"}})
        self.api.put(
            TENANTS, {"metadata": {"name": "acme"}, "spec": {"namespaces": ["demo"], "quota": {"replicas": 5}}}
        )
        copy = {"name": "n0", "state": "Cached", "bytes": 9, "totalBytes": 9, "digest": DIGEST, "format": "gguf"}
        source = {"source": "https://models.example/m.gguf"}
        self.put(MODELS, "m", source, {"nodes": [copy]})
        self.put(SLAS, "fast", {"priority": "P1", "targets": {"ttft": "1s"}})
        self.service("chat", replicas=2, sla="fast")

    def put(self, resource: Resource, name: str, spec: Any, status: Any = None) -> None:
        obj = {"metadata": {"namespace": "demo", "name": name}, "spec": spec}
        self.api.put(resource, obj | ({"status": status} if status else {}))

    def service(self, name: str, **spec: Any) -> None:
        self.put(INFERENCE_SERVICES, name, {"model": "m", "accelerator": {"cpu": {}}, **spec})

    def edit(self, resource: Resource, name: str, **spec: Any) -> None:
        """As a person does, with everything else as it stands; None takes a field away."""
        obj = self.object(resource, name)
        changed = {key: value for key, value in (obj["spec"] | spec).items() if value is not None}
        self.api.put(resource, obj | {"spec": changed})

    def object(self, resource: Resource, name: str) -> Object:
        found = self.api.now(resource, "demo" if resource.namespaced else None, name)
        assert found is not None
        return found

    def status(self, resource: Resource, name: str) -> dict[str, Any]:
        return dict(self.object(resource, name).get("status") or {})

    def reason(self, resource: Resource, name: str, type_: str = "Ready") -> str:
        found = self.status(resource, name).get("conditions") or ()
        return next((str(one["reason"]) for one in found if one["type"] == type_), "")

    def message(self, resource: Resource, name: str) -> str:
        found = self.status(resource, name).get("conditions") or ()
        return next((str(one["message"]) for one in found if one["type"] == "Ready"), "")

    def workers(self, service: str) -> dict[str, int]:
        """By Deployment."""
        prefix = f"{service}-"
        found = self.api.all(DEPLOYMENTS)
        return {
            one["metadata"]["name"]: one["spec"]["replicas"]
            for one in found
            if one["metadata"]["name"].startswith(prefix)
        }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    assembly = build(world.api, Settings(), world.queue, world.told)
    async with running(world.queue, assembly.reconcilers, assembly.owned.values(), assembly.children):
        await eventually(lambda: sum(world.workers("chat").values()) == 2, "chat has its workers")
        await eventually(lambda: world.status(INFERENCE_SERVICES, "chat").get("desiredReplicas") == 2, "and says so")
        yield world


def times_told(world: World, kind: str, name: str) -> int:
    return world.told.notes.count((kind, name, "NotUnderstood"))


async def test_a_service_that_cannot_be_read_keeps_its_workers_and_counts_for_the_others(world: World) -> None:
    before, told = world.workers("chat"), world.status(INFERENCE_SERVICES, "chat")
    world.edit(INFERENCE_SERVICES, "chat", routing={"policy": "ofTomorrow"}, replicas=1)
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") == "NotUnderstood", "it says why")
    assert "spec.routing.policy is 'ofTomorrow'" in world.message(INFERENCE_SERVICES, "chat")
    world.service("other", replicas=4)
    await eventually(lambda: sum(world.workers("other").values()) == 3, "another has what is left of the quota")
    assert world.workers("chat") == before
    after = world.status(INFERENCE_SERVICES, "chat")
    for decided in ("desiredReplicas", "currentRevision", "tenant", "url"):
        assert after[decided] == told[decided], "what was decided last stays"
    assert world.reason(INFERENCE_SERVICES, "chat", "Servable"), "and so does what is said of its gateway"
    assert times_told(world, "InferenceService", "chat") == 1
    world.edit(INFERENCE_SERVICES, "chat", routing=None)
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") != "NotUnderstood", "mended, it says so")
    await eventually(lambda: world.status(INFERENCE_SERVICES, "chat")["desiredReplicas"] == 1, "and is planned again")


async def test_a_service_that_cannot_be_read_can_be_deleted(world: World) -> None:
    world.edit(INFERENCE_SERVICES, "chat", model=7, accelerator="fast")
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") == "NotUnderstood", "it says why")
    await world.api.delete(INFERENCE_SERVICES, "demo", "chat")
    await eventually(lambda: world.api.now(INFERENCE_SERVICES, "demo", "chat") is None, "it is gone")


async def test_a_model_that_cannot_be_read_takes_no_worker_away_and_its_services_say_so(world: World) -> None:
    before = world.workers("chat")
    nodes = world.status(MODELS, "m")["nodes"]
    world.edit(MODELS, "m", format="ofTomorrow")
    await eventually(lambda: world.reason(MODELS, "m") == "NotUnderstood", "it says why")
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") == "ModelNotUnderstood", "its service says so")
    assert "spec.format is 'ofTomorrow'" in world.message(INFERENCE_SERVICES, "chat")
    assert world.workers("chat") == before
    assert world.status(MODELS, "m")["nodes"] == nodes
    assert times_told(world, "Model", "m") == 1
    world.edit(MODELS, "m", format=None)
    await eventually(lambda: world.reason(MODELS, "m") != "NotUnderstood", "mended, it is judged again")
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") != "ModelNotUnderstood", "and so is its service")
    assert world.workers("chat") == before


async def test_a_part_of_a_models_status_that_cannot_be_read_stops_nobody(world: World) -> None:
    obj = world.object(MODELS, "m")
    world.api.put(MODELS, obj | {"status": obj["status"] | {"profiles": [{"accelerator": "cpu 1"}], "size": 7}})
    world.edit(INFERENCE_SERVICES, "chat", replicas=3)
    await eventually(lambda: sum(world.workers("chat").values()) == 3, "its services are planned")
    await eventually(lambda: world.status(MODELS, "m").get("size") == "9 B", "and what is ours is written anew")


async def test_services_of_an_sla_that_cannot_be_read_say_so(world: World) -> None:
    world.edit(SLAS, "fast", targets={"ttft": "0.5s"})
    await eventually(lambda: world.reason(SLAS, "fast") == "NotUnderstood", "it says why")
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") == "SLANotUnderstood", "its service says so")
    assert "spec.targets.ttft is '0.5s'" in world.message(INFERENCE_SERVICES, "chat")
    assert times_told(world, "SLA", "fast") == 1
    world.edit(INFERENCE_SERVICES, "chat", replicas=3)
    await eventually(lambda: sum(world.workers("chat").values()) == 3, "and is planned all the same")
    world.edit(SLAS, "fast", targets={"ttft": "500ms"})
    await eventually(lambda: world.reason(SLAS, "fast") == "Ready", "it is mended")
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") != "SLANotUnderstood", "for its service, too")


async def test_services_of_a_tenant_whose_quota_cannot_be_read_keep_what_they_have(world: World) -> None:
    before = world.workers("chat")
    world.edit(TENANTS, "acme", quota={"replicas": "five"})
    await eventually(lambda: world.reason(TENANTS, "acme") == "NotUnderstood", "it says why")
    world.edit(INFERENCE_SERVICES, "chat", replicas=4)
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") == "TenantNotUnderstood", "the service says so")
    assert world.workers("chat") == before
    assert times_told(world, "Tenant", "acme") == 1
    world.api.put(NAMESPACES, {"metadata": {"name": "lab"}})
    world.api.put(TENANTS, {"metadata": {"name": "other"}, "spec": {"namespaces": ["lab"]}})
    await eventually(lambda: world.reason(TENANTS, "other") == "Ready", "another Tenant is looked after")
    world.edit(TENANTS, "acme", quota={"replicas": 5})
    await eventually(lambda: sum(world.workers("chat").values()) == 4, "mended, they are planned again")


def cannot_be_converted() -> Unavailable:
    """What the API server answers to an apply of an object that has a string where its schema has a number."""
    return Unavailable("failed to convert new object to smd typed", status_code=500, reason="")


async def test_an_object_to_which_nothing_can_be_applied_says_so_all_the_same_and_nothing_of_it_is_left(
    world: World,
) -> None:
    told = world.status(TENANTS, "acme")
    world.api.fail_next("apply", TENANTS, cannot_be_converted())
    world.edit(TENANTS, "acme", weight="many")
    await eventually(lambda: world.reason(TENANTS, "acme") == "NotUnderstood", "it says why")
    assert "spec.weight is 'many'" in world.message(TENANTS, "acme")
    assert world.status(TENANTS, "acme")["replicas"] == told["replicas"]
    world.edit(TENANTS, "acme", weight=2)
    await eventually(lambda: world.reason(TENANTS, "acme") == "Ready", "mended, it says so")
    await eventually(lambda: not world.reason(TENANTS, "acme", "Stalled"), "and nothing is left of what it said")
    assert times_told(world, "Tenant", "acme") == 1


async def test_an_object_whose_status_cannot_be_written_is_told_by_an_event(world: World) -> None:
    world.api.fail_next("apply", SLAS, cannot_be_converted())
    world.api.fail_next("patch", SLAS, Invalid("priority: expected string, got int64", status_code=422, reason=""))
    world.edit(SLAS, "fast", priority=7)
    await eventually(lambda: times_told(world, "SLA", "fast") == 1, "an Event says why")
    await eventually(lambda: world.reason(INFERENCE_SERVICES, "chat") == "SLANotUnderstood", "and so does its service")
