"""Models on a fake API server: volume, claim, status, use and deletion."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from controllers.apply import Applier
from controllers.inference_service.caches import SERVICE_INDEX
from controllers.model.wiring import wire_model
from controllers.plans.model import field_manager
from controllers.plans.model_volume import model_volume
from controllers.runtime.interface import Key, Outcome, Reconciler
from controllers.settings import Settings
from controllers.wakes import by_namespace, of_service, wake
from crds.model import MeasuredProfile
from kube.errors import Conflict, Forbidden
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import (
    INFERENCE_SERVICES,
    MODELS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    TENANTS,
    Object,
    Resource,
)
from tests.controllers.running import Keys, running
from tests.fakes import FakeClient
from tests.plans.test_carried import H100
from tests.waiting import eventually

SOURCE = "https://models.example/m.gguf"
VOLUME = model_volume("demo", "m", SOURCE)
DIGEST = "sha256:" + "a" * 64


@dataclass
class World:
    """An API server with two nodes, and the words to change it."""

    api: FakeClient = field(default_factory=FakeClient)
    queue: Keys = field(default_factory=Keys)
    measured: list[MeasuredProfile] = field(default_factory=list)

    def model(self, source: str = SOURCE, **spec: Any) -> None:
        self.api.put(MODELS, {"metadata": {"namespace": "demo", "name": "m"}, "spec": {"source": source, **spec}})

    def service(self, name: str = "chat", model: str = "m") -> None:
        spec = {"model": model, "accelerator": {"cpu": {}}}
        self.api.put(INFERENCE_SERVICES, {"metadata": {"namespace": "demo", "name": name}, "spec": spec})

    async def reports(self, **copies: str) -> None:
        """The agents of the nodes say how their copies are."""
        entries = [
            {"name": name.replace("_", "-"), "state": state, "bytes": 98_000_000, "digest": DIGEST, "format": "gguf"}
            for name, state in copies.items()
        ]
        found = self.api.now(MODELS, "demo", "m") or {}
        manifest = {
            "apiVersion": MODELS.api_version,
            "kind": "Model",
            "metadata": {"namespace": "demo", "name": "m", "uid": found["metadata"]["uid"]},
            "status": {"nodes": entries},
        }
        await self.api.apply(MODELS, manifest, field_manager=field_manager("node-1"), subresource="status")

    def object(self) -> Object | None:
        return self.api.now(MODELS, "demo", "m")

    def status(self) -> Object:
        return (self.object() or {}).get("status") or {}

    def reason(self, type_: str = "Ready") -> str:
        return next((str(c["reason"]) for c in self.status().get("conditions") or [] if c["type"] == type_), "")

    def claim(self) -> Object | None:
        return self.api.now(PERSISTENT_VOLUME_CLAIMS, "demo", VOLUME.claim_name)

    def volume(self) -> Object | None:
        return self.api.now(PERSISTENT_VOLUMES, None, VOLUME.volume_name or "")

    def finalize(self, resource: Resource, namespace: str | None, name: str, *finalizers: str) -> None:
        found = self.api.now(resource, namespace, name) or {}
        found["metadata"]["finalizers"] = list(finalizers)
        self.api.put(resource, found)


class Retried:
    """What is forbidden is tried again, as the queue does."""

    kind = MODELS.kind

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    async def reconcile(self, key: Key) -> Outcome:
        try:
            return await self._reconciler.reconcile(key)
        except Forbidden:
            return Outcome(requeue_after_s=0.05)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    for name in ("node-1", "node-2"):
        world.api.put(NODES, {"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}})
    services = Informer(world.api, INFERENCE_SERVICES, keep=lean, index=SERVICE_INDEX)
    models = Informer(world.api, MODELS, keep=lean, index={"by_namespace": by_namespace})
    tenants = Informer(world.api, TENANTS, keep=lean, index={"by_namespace": lambda one: one["spec"]["namespaces"]})
    recorder = Recorder(world.api, controller="test", instance="test")
    wired = wire_model(
        world.api,
        Settings(),
        world.queue,
        recorder,
        Applier(world.api),
        services=services,
        models=models,
        measured=lambda uid: world.measured,
    )
    wake(services, world.queue, of_service(tenants))
    async with running(world.queue, [Retried(wired.reconciler)], [models, services, tenants], wired.caches):
        yield world


async def test_what_a_worker_measured_goes_into_the_status_and_stays_there(world: World) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the status is written")
    world.measured = [H100]
    world.queue.add(Key("Model", "demo", "m"))
    await eventually(lambda: (world.status().get("profiles") or []) == [H100.dump()], "the profile")
    world.measured = []  # another operator leads
    await world.reports(node_1="Cached", node_2="Cached")
    await eventually(lambda: world.reason() == "Cached", "more is known")
    assert world.status()["profiles"] == [H100.dump()]


FULL = Forbidden("persistentvolumeclaims 'm-model' is forbidden: exceeded quota", status_code=403, reason="Forbidden")


async def test_a_claim_that_is_refused_is_told_and_stops_nothing_else_of_the_status(world: World) -> None:
    world.api.fail_next("apply", PERSISTENT_VOLUME_CLAIMS, *[FULL] * 3)
    world.model()
    await eventually(lambda: world.reason("Stalled") == "ChildRefused", "the refusal")
    assert world.reason() == "ChildRefused"
    assert world.status()["state"].endswith("exceeded quota")
    await eventually(lambda: world.reason() == "Pending", "the claim")
    assert not world.reason("Stalled")


async def test_a_claim_of_somebody_else_with_the_name_of_ours_is_told(world: World) -> None:
    world.api.put(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"namespace": "demo", "name": "m-model"}, "spec": {}})
    world.model()
    await eventually(lambda: world.reason("Stalled") == "ChildRefused", "the refusal")
    await world.reports(node_1="Cached", node_2="Cached")
    await eventually(lambda: world.status().get("cached") == "2/2", "the copies")
    assert world.reason() == "ChildRefused"


async def test_a_refused_change_of_what_stands_takes_no_model_away(world: World) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the status is written")
    world.api.fail_next("apply", PERSISTENT_VOLUME_CLAIMS, *[FULL] * 1000)
    world.api.put(PERSISTENT_VOLUME_CLAIMS, {**(world.claim() or {}), "spec": {}})
    await world.reports(node_1="Cached", node_2="Cached")
    await eventually(lambda: world.reason() == "Cached", "the copies")


async def test_a_model_gets_a_finalizer_a_volume_and_a_claim(world: World) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the status is written")
    volume, claim, model = world.volume() or {}, world.claim() or {}, world.object() or {}
    assert model["metadata"]["finalizers"] == ["foretide.dev/in-use"]
    assert volume["spec"]["local"] == {"path": "/var/lib/foretide/models/demo/m"}
    assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"] == "m-model"
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert claim["metadata"]["ownerReferences"][0]["uid"] == model["metadata"]["uid"]


async def test_the_agents_words_become_the_status_and_stay_theirs(world: World) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the model is seen")
    await world.reports(node_1="Cached", node_2="Cached")
    await eventually(lambda: world.reason() == "Cached", "the model is cached")
    status = world.status()
    assert (status["cached"], status["size"], status["digest"], status["verified"]) == ("2/2", "98 MB", DIGEST, True)
    assert len(status["nodes"]) == 2


async def test_who_uses_it_is_followed(world: World) -> None:
    world.model()
    world.service("chat")
    await eventually(lambda: world.status().get("usedBy") == ["chat"], "chat is named")
    world.service("chat", model="other")
    await eventually(lambda: not world.status().get("usedBy"), "nobody is named")


async def test_a_node_that_comes_counts_and_one_that_goes_is_taken_out(world: World) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the model is seen")
    await world.reports(node_1="Cached", gone="Cached")
    await eventually(lambda: world.status().get("cached") == "1/2", "the stranger does not count")
    world.api.put(NODES, {"metadata": {"name": "node-3", "labels": {}}})
    await eventually(lambda: world.status().get("cached") == "1/3", "the new node counts")
    assert [one.verb for one in world.api.log if one.kind == "Model"].count("apply") < 12


async def test_a_model_in_use_stays_and_says_by_whom_then_goes_in_order(world: World) -> None:
    world.model()
    world.service("chat")
    await eventually(lambda: world.status().get("usedBy") == ["chat"], "chat is named")
    world.finalize(PERSISTENT_VOLUME_CLAIMS, "demo", VOLUME.claim_name, "kubernetes.io/pvc-protection")
    await world.api.delete(MODELS, "demo", "m")
    await eventually(lambda: world.reason() == "InUse", "it says that it is in use")
    assert world.claim()
    world.api.remove(INFERENCE_SERVICES, "demo", "chat")
    await eventually(lambda: (world.claim() or {})["metadata"].get("deletionTimestamp"), "the claim is being deleted")
    assert world.volume()
    assert world.object()
    world.finalize(PERSISTENT_VOLUME_CLAIMS, "demo", VOLUME.claim_name)
    await eventually(lambda: world.claim() is None and world.volume() is None, "claim and volume are gone")
    await eventually(lambda: world.object() is None, "the model is gone")


@pytest.mark.parametrize("from_when", ["before they come", "before they go"])
async def test_volume_and_claim_go_with_the_model_whose_caches_lost_the_event(world: World, from_when: str) -> None:
    def lose() -> None:
        for resource in (PERSISTENT_VOLUMES, PERSISTENT_VOLUME_CLAIMS):
            world.api.lose_events(resource)

    if from_when == "before they come":
        lose()
    world.model()
    await eventually(lambda: world.claim() and world.volume() and world.reason(), "they are made")
    if from_when == "before they go":
        lose()
    await world.api.delete(MODELS, "demo", "m")
    await eventually(lambda: world.object() is None, "the model is gone")
    assert world.claim() is None
    assert world.volume() is None


async def test_a_volume_left_by_a_deleted_claim_is_released_for_the_new_one(world: World) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the model is seen")
    bound = world.volume() or {}
    bound["spec"]["claimRef"]["uid"] = "uid-of-the-old-claim"
    world.api.put(PERSISTENT_VOLUMES, {**bound, "status": {"phase": "Released"}})
    await eventually(lambda: "uid" not in (world.volume() or {})["spec"]["claimRef"], "the volume is free again")


async def test_a_volume_of_someone_else_is_left_alone_and_named(world: World) -> None:
    foreign = {
        "metadata": {"name": VOLUME.volume_name, "labels": {"app.kubernetes.io/managed-by": "foretide"}},
        "spec": {"claimRef": {"namespace": "x", "name": "y"}, "local": {"path": "/z"}},
    }
    world.api.put(PERSISTENT_VOLUMES, foreign)
    world.model()
    await eventually(lambda: world.reason("Stalled") == "VolumeNotBound", "it says so")
    assert (world.volume() or {})["spec"] == foreign["spec"]
    await world.api.delete(MODELS, "demo", "m")
    await eventually(lambda: world.object() is None, "the model is gone")
    assert world.volume()


async def test_a_model_on_a_claim_waits_for_it_and_makes_no_volume(world: World) -> None:
    world.model("pvc://weights/m.gguf")
    await eventually(lambda: world.reason() == "ClaimNotFound", "the claim is missing")
    claim = {"metadata": {"namespace": "demo", "name": "weights"}, "status": {"phase": "Pending"}}
    world.api.put(PERSISTENT_VOLUME_CLAIMS, claim)
    await eventually(lambda: world.reason() == "ClaimNotBound", "the claim is not bound")
    world.api.put(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {"phase": "Bound"}})
    await eventually(lambda: world.reason() == "OnClaim", "the claim is bound")
    assert world.status()["state"] == "On claim 'weights'"
    assert world.volume() is None
    await world.api.delete(MODELS, "demo", "m")
    await eventually(lambda: world.object() is None, "the model is gone")
    assert world.api.now(PERSISTENT_VOLUME_CLAIMS, "demo", "weights")


async def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the model is seen")
    await world.reports(node_1="Cached", node_2="Cached")
    await eventually(lambda: world.reason() == "Cached", "the model is cached")
    writes, done = world.api.writes, world.queue.done
    world.api.put(NODES, {"metadata": {"name": "node-1", "labels": {"kubernetes.io/os": "linux", "zone": "a"}}})
    await eventually(lambda: world.queue.done > done, "the model was looked at again")
    assert world.api.writes == writes


async def test_the_entry_of_a_node_is_taken_out_each_time_the_node_goes_and_until_the_server_took_it(
    world: World,
) -> None:
    world.model()
    await eventually(lambda: world.reason() == "Pending", "the model is seen")
    agent = field_manager("gone")
    taken: list[str] = []
    apply = world.api.apply

    async def heard(resource: Resource, obj: Any, *, field_manager: str, **others: Any) -> Object:
        if field_manager == agent:
            taken.append(field_manager)
            if len(taken) == 1:
                raise Conflict("the cache was behind", status_code=409)
        return await apply(resource, obj, field_manager=field_manager, **others)

    world.api.apply = heard  # type: ignore[method-assign]
    await world.reports(node_1="Cached", gone="Cached")
    await eventually(lambda: len(taken) == 2, "it is tried again after a refusal")
    world.api.put(NODES, {"metadata": {"name": "gone", "labels": {}}})
    await eventually(lambda: world.status().get("cached") == "2/3", "the node is back")
    world.api.remove(NODES, None, "gone")
    await eventually(lambda: len(taken) == 3, "it went again")
