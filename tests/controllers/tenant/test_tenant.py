"""Tenants on a fake API server: children, status, keyring, rotation."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from controllers.apply import Applier
from controllers.inference_service.caches import SERVICE_INDEX, TENANT_INDEX
from controllers.plans.keyring import KeySecret, key_hash
from controllers.plans.times import rfc3339
from controllers.reading import readable
from controllers.runtime.interface import Key
from controllers.settings import Settings
from controllers.tenant import keyring
from controllers.tenant.reading import Keys as Keyed
from controllers.tenant.reading import Tenants
from controllers.tenant.reconciler import TenantReconciler
from controllers.tenant.wiring import wire_tenant
from controllers.wakes import of_service, wake
from kube.errors import Unreachable
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import (
    INFERENCE_SERVICES,
    NAMESPACES,
    NETWORK_POLICIES,
    RESOURCE_QUOTAS,
    SECRETS,
    TENANTS,
    Object,
)
from tests.controllers.running import Keys, running
from tests.fakes import FakeClient
from tests.waiting import eventually

KEY, SECOND = "first-key-0123456789", "second-key-0123456789"


@dataclass
class World:
    """An API server with namespace `demo`, and the words to change it."""

    api: FakeClient = field(default_factory=FakeClient)
    queue: Keys = field(default_factory=Keys)

    def tenant(self, name: str = "acme", namespaces: tuple[str, ...] = ("demo",), **spec: Any) -> None:
        self.api.put(TENANTS, {"metadata": {"name": name}, "spec": {"namespaces": list(namespaces), **spec}})

    def namespace(self, name: str) -> None:
        self.api.put(NAMESPACES, {"metadata": {"name": name}})

    def secret(self, name: str, labelled: bool = True, **entries: str) -> None:
        labels = {"foretide.dev/api-key": "true"} if labelled else {}
        data = {entry: base64.b64encode(key.encode()).decode() for entry, key in entries.items()}
        self.api.put(
            SECRETS, {"metadata": {"namespace": "foretide-system", "name": name, "labels": labels}, "data": data}
        )

    def status(self, name: str = "acme") -> Object:
        return (self.api.now(TENANTS, None, name) or {}).get("status") or {}

    def ready(self, name: str = "acme") -> str:
        return next((str(c["reason"]) for c in self.status(name).get("conditions") or [] if c["type"] == "Ready"), "")

    def keyring(self) -> dict[str, list[str]]:
        secret = self.api.now(SECRETS, "foretide-system", "foretide-keyring") or {}
        text = base64.b64decode((secret.get("data") or {}).get("keyring.json", "")).decode()
        found: dict[str, list[str]] = json.loads(text) if text else {}
        return found

    def pepper(self) -> bytes:
        secret = self.api.now(SECRETS, "foretide-system", "foretide-keyring") or {}
        return base64.b64decode((secret.get("data") or {}).get("pepper", ""))

    def hashes(self, *keys: str) -> list[str]:
        return sorted(key_hash(self.pepper(), key) for key in keys)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.namespace("demo")
    services = Informer(world.api, INFERENCE_SERVICES, keep=readable, index=SERVICE_INDEX)
    tenants = Informer(world.api, TENANTS, keep=readable, index=TENANT_INDEX)
    recorder = Recorder(world.api, controller="test", instance="test")
    wired = wire_tenant(
        world.api, Settings(), world.queue, recorder, Applier(world.api), services=services, tenants=tenants
    )
    wake(services, world.queue, of_service(tenants))
    async with running(world.queue, [wired.reconciler], [tenants, services], wired.caches, wired.background):
        yield world


async def test_the_keyring_is_made_before_there_is_a_tenant(world: World) -> None:
    await eventually(lambda: len(world.pepper()) == 32, "the pepper is made")
    await eventually(lambda: world.api.now(SECRETS, "foretide-system", "foretide-keyring"), "the keyring is there")


async def test_a_tenant_gets_a_policy_a_quota_and_its_keys(world: World) -> None:
    world.secret("acme-key", one=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}], quota={"cpu": "8", "replicas": 10})
    await eventually(lambda: world.ready() == "Ready", "the tenant is ready")
    assert world.status()["validKeys"] == 1
    assert world.status()["replicas"] == "0/10"
    policy = world.api.now(NETWORK_POLICIES, "demo", "foretide-workers") or {}
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    quota = world.api.now(RESOURCE_QUOTAS, "demo", "foretide-tenant") or {}
    assert quota["spec"] == {"hard": {"requests.cpu": "8"}}
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY)}, "the gateway knows the key")


async def test_a_key_rotates_with_two_valid_ones_and_a_deleted_one_goes_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_EVERY_S", 3600.0)
    world.secret("acme-key", old=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}])
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY)}, "the first key is known")
    pepper = world.pepper()
    world.secret("acme-key", old=KEY, new=SECOND)
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY, SECOND)}, "both keys are known")
    await eventually(lambda: world.status()["validKeys"] == 2, "the status says two")
    world.secret("acme-key", new=SECOND)
    await eventually(lambda: world.keyring() == {"acme": world.hashes(SECOND)}, "only the second is known")
    world.api.remove(SECRETS, "foretide-system", "acme-key")
    await eventually(lambda: world.keyring() == {"acme": []}, "no key is known")
    await eventually(lambda: world.ready() == "SecretNotFound", "the status says so")
    assert world.pepper() == pepper


async def test_a_deleted_tenants_keys_go_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOK_EVERY_S", 3600.0)
    world.secret("acme-key", old=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}])
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY)}, "the key is known")
    world.api.remove(TENANTS, None, "acme")
    await eventually(lambda: world.keyring() == {}, "no key is known")


async def test_a_secret_without_the_label_is_not_read(world: World) -> None:
    world.secret("acme-key", labelled=False, one=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}])
    await eventually(lambda: world.ready() == "SecretNotFound", "the status says so")
    world.secret("acme-key", labelled=True, one=KEY)
    await eventually(lambda: world.ready() == "Ready", "the label heals it")


async def test_an_existing_pepper_is_kept_and_a_missing_one_is_added(world: World) -> None:
    await eventually(lambda: len(world.pepper()) == 32, "the pepper is made")
    kept = world.pepper()
    world.tenant()
    await eventually(lambda: world.keyring() == {"acme": []}, "the keyring is written")
    assert world.pepper() == kept
    world.api.put(
        SECRETS, {"metadata": {"namespace": "foretide-system", "name": "foretide-keyring"}, "data": {"pepper": ""}}
    )
    await eventually(lambda: len(world.pepper()) == 32, "a pepper is made")
    await eventually(lambda: world.keyring() == {"acme": []}, "the keyring is written again")


async def test_a_keyring_that_cannot_be_written_is_tried_again(world: World) -> None:
    await eventually(lambda: len(world.pepper()) == 32, "the pepper is made")
    world.api.fail_next("apply", SECRETS, Unreachable("down"), Unreachable("down"))
    world.secret("acme-key", old=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}])
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY)}, "the key is known")


async def test_children_leave_a_namespace_that_left_the_tenant(world: World) -> None:
    world.namespace("prod")
    world.tenant(namespaces=("demo", "prod"))
    await eventually(lambda: world.api.now(NETWORK_POLICIES, "prod", "foretide-workers"), "the policy stands")
    world.tenant(namespaces=("demo",))
    await eventually(lambda: not world.api.now(NETWORK_POLICIES, "prod", "foretide-workers"), "the policy is gone")
    assert world.api.now(NETWORK_POLICIES, "demo", "foretide-workers")


async def test_what_is_refused_in_one_namespace_is_told_and_stops_nothing_in_another(world: World) -> None:
    world.namespace("prod")
    theirs = {"metadata": {"namespace": "demo", "name": "foretide-workers"}, "spec": {"podSelector": {}}}
    world.api.put(NETWORK_POLICIES, theirs)
    world.tenant(namespaces=("demo", "prod"), quota={"cpu": "8"})
    await eventually(lambda: world.ready() == "ChildRefused", "the refusal is told")
    (message,) = (one["message"] for one in world.status()["conditions"] if one["type"] == "Stalled")
    assert message.startswith("Namespace 'demo': NetworkPolicy demo/foretide-workers was not made by Foretide")
    assert world.status()["validKeys"] == 0
    assert world.api.now(NETWORK_POLICIES, "prod", "foretide-workers")
    assert [one["metadata"]["namespace"] for one in world.api.all(RESOURCE_QUOTAS)] == ["demo", "prod"]
    world.api.remove(NETWORK_POLICIES, "demo", "foretide-workers")
    await eventually(lambda: world.ready() == "Ready", "it is tried again")


async def test_a_taken_namespace_goes_to_the_next_tenant_when_the_first_lets_it_go(world: World) -> None:
    world.tenant("acme")
    await eventually(lambda: world.ready("acme") == "Ready", "the first is ready")
    world.tenant("beta")
    await eventually(lambda: world.ready("beta") == "NamespaceTaken", "the second is told")
    world.tenant("acme", namespaces=("other",))
    await eventually(lambda: world.ready("beta") == "Ready", "the second has it")
    await eventually(lambda: world.ready("acme") == "NamespaceNotFound", "the first is told")

    def owner() -> str | None:
        policy = world.api.now(NETWORK_POLICIES, "demo", "foretide-workers")
        return policy["metadata"]["labels"]["foretide.dev/tenant"] if policy else None

    await eventually(lambda: owner() == "beta", "the policy is the second's")


async def test_a_namespace_that_appears_heals_the_tenant(world: World) -> None:
    world.tenant(namespaces=("late",))
    await eventually(lambda: world.ready() == "NamespaceNotFound", "the tenant waits")
    world.namespace("late")
    await eventually(lambda: world.ready() == "Ready", "the tenant is ready")


async def test_services_are_counted_in_the_units_of_the_quota(world: World) -> None:
    world.tenant(quota={"replicas": 10, "gpus": 4})
    spec = {"model": "m", "accelerator": {"gpu": {"count": 1}}, "replicas": 3}
    world.api.put(INFERENCE_SERVICES, {"metadata": {"namespace": "demo", "name": "chat"}, "spec": spec})
    await eventually(lambda: world.status().get("replicas") == "3/10", "three of ten")
    assert (world.status()["gpus"], world.status()["services"]) == ("3/4", 1)


async def test_a_slice_that_the_operator_chose_is_counted_as_soon_as_it_is_chosen(world: World) -> None:
    world.tenant(quota={"migGigabytes": 80})
    spec = {"model": "m", "accelerator": {"mig": {"profile": "auto"}}, "replicas": 2}
    service = {"metadata": {"namespace": "demo", "name": "chat"}, "spec": spec}
    world.api.put(INFERENCE_SERVICES, service)
    await eventually(lambda: world.status().get("migGigabytes") == "0/80", "nothing is chosen yet")
    chosen = {"profile": "1g.20gb", "fits": True, "inputs": "a", "reason": "small"}
    world.api.put(INFERENCE_SERVICES, service | {"status": {"slice": chosen}})
    await eventually(lambda: world.status().get("migGigabytes") == "40/80", "two slices of 20 GB")


async def test_a_child_that_someone_changed_is_put_right_and_nothing_is_written_after(world: World) -> None:
    world.secret("acme-key", one=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}])
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY)} and world.ready() == "Ready", "all stands")
    policy = world.api.now(NETWORK_POLICIES, "demo", "foretide-workers") or {}
    policy["spec"]["policyTypes"] = ["Ingress"]
    world.api.put(NETWORK_POLICIES, policy)

    def types() -> list[str]:
        found = world.api.now(NETWORK_POLICIES, "demo", "foretide-workers") or {}
        kinds: list[str] = found["spec"]["policyTypes"]
        return kinds

    await eventually(lambda: types() == ["Ingress", "Egress"], "the policy is right again")
    writes, done = world.api.writes, world.queue.done
    for namespace in ("x", "y"):
        world.namespace(namespace)
    world.secret("unrelated", one="unrelated-0123456789")
    await eventually(lambda: world.queue.done > done, "the tenant was looked at again")
    assert world.api.writes == writes


def _gpu_service(replicas: int) -> Object:
    spec = {"model": "m", "accelerator": {"gpu": {"count": 1}}, "replicas": replicas}
    return {
        "metadata": {"namespace": "demo", "name": "chat"},
        "spec": spec,
        "status": {"desiredReplicas": replicas},
    }


async def test_what_was_borrowed_is_published_and_goes_on_where_it_was_after_a_restart(world: World) -> None:
    an_hour_ago = rfc3339(time.time() - 3600)
    told = {"cohort": "lab", "halfLife": "1h", "sampledAt": an_hour_ago, "average": {"gpus": "8.000"}}
    world.api.put(INFERENCE_SERVICES, _gpu_service(6))
    spec = {"namespaces": ["demo"], "quota": {"gpus": 4}, "borrowing": {"cohort": "lab", "halfLife": "1h"}}
    world.api.put(TENANTS, {"metadata": {"name": "acme"}, "spec": spec, "status": {"fairShare": told}})
    await eventually(lambda: world.status().get("fairShare", told) != told, "an average is published")
    share = world.status()["fairShare"]
    assert float(share["average"]["gpus"]) == pytest.approx(5.0, abs=0.2), "half of 8 and half of the 2 of now"
    assert (share["halfLife"], share["standing"]) == ("1h", "gpus 100%/100%")


async def test_what_was_published_is_not_published_again_while_the_cache_shows_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api, now = FakeClient(), datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC)
    told = {"cohort": "lab", "halfLife": "1h", "sampledAt": "2026-03-02T11:00:00Z", "average": {"gpus": "8.000"}}
    spec = {"namespaces": ["demo"], "quota": {"gpus": 4}, "borrowing": {"cohort": "lab", "halfLife": "1h"}}
    api.put(TENANTS, {"metadata": {"name": "acme"}, "spec": spec, "status": {"fairShare": told}})
    service = _gpu_service(6)
    behind = api.now(TENANTS, None, "acme") or {}
    tenants, services = Informer(api, TENANTS, keep=lean, index=TENANT_INDEX), Informer(api, INFERENCE_SERVICES, lean)
    nothing: dict[str, Any] = {"by": lambda index, key: [], "get": lambda namespace, name: None}
    monkeypatch.setattr(tenants, "get", lambda namespace, name: behind)
    monkeypatch.setattr(tenants, "items", lambda: [behind])
    monkeypatch.setattr(services, "by", lambda index, key: [service])
    namespaces = Informer(api, NAMESPACES, keep=lambda one: str(one["metadata"]["name"]))
    monkeypatch.setattr(namespaces, "items", lambda: ["demo"])
    empty = Informer(api, RESOURCE_QUOTAS, keep=lean)
    for name, method in nothing.items():
        monkeypatch.setattr(empty, name, method)
    readable = Tenants(tenants)
    reconciler = TenantReconciler(
        readable,
        Keyed(readable, Informer(api, SECRETS, keep=KeySecret.of)),
        namespaces,
        services,
        empty,
        empty,
        Applier(api),
        Recorder(api, controller="test", instance="test"),
        wall_clock=lambda: now,
    )
    for second in (1, 31, 59):
        now = now.replace(second=second)
        await reconciler.reconcile(Key("Tenant", None, "acme"))
    shown = (api.now(TENANTS, None, "acme") or {})["status"]["fairShare"]
    assert shown["sampledAt"] == "2026-03-02T12:00:01Z"


async def test_a_half_life_that_another_of_the_cohort_names_is_heard_and_forgotten_with_it(world: World) -> None:
    world.namespace("other")
    quota, without = {"gpus": 4}, {"cohort": "lab"}
    world.tenant("acme", quota=quota, borrowing=without)
    await eventually(lambda: world.ready() == "Ready", "the first stands")
    assert "fairShare" not in world.status()
    world.tenant("beta", ("other",), quota=quota, borrowing=without | {"halfLife": "2d"})
    await eventually(lambda: world.status().get("fairShare", {}).get("halfLife") == "48h", "it holds for the first")
    world.tenant("beta", ("other",), quota=quota, borrowing=without)
    await eventually(lambda: not world.status()["fairShare"].get("cohort"), "nothing is counted any more")


async def test_a_tenant_that_cannot_be_read_says_which_field_until_it_is_mended(world: World) -> None:
    world.tenant(quota={"gpus": 4, "cpu": "8"})
    await eventually(lambda: world.ready() == "Ready", "the tenant is ready")
    told = world.status()
    spec = {"namespaces": ["demo"], "quota": {"gpus": "four", "cpu": "8"}, "weight": 5000}
    world.api.put(TENANTS, {"metadata": {"name": "acme"}, "spec": spec, "status": told})
    await eventually(lambda: world.ready() == "NotUnderstood", "the tenant says what is wrong")
    conditions = {one["type"]: one for one in world.status()["conditions"]}
    assert conditions["Stalled"]["status"] == "True"
    assert "spec.quota.gpus is 'four'" in conditions["Ready"]["message"]
    assert "spec.weight is 5000" in conditions["Ready"]["message"]
    assert "Apply it anew" in conditions["Ready"]["message"]
    assert world.status() | {"conditions": ()} == told | {"conditions": ()}, "what was published stays"
    assert world.api.now(RESOURCE_QUOTAS, "demo", "foretide-tenant"), "and what stands stays"
    world.tenant(quota={"gpus": 5, "cpu": "8"})
    await eventually(lambda: world.ready() == "Ready", "it is mended")
    assert "Stalled" not in {one["type"] for one in world.status()["conditions"]}
    assert world.status()["gpus"] == "0/5"


async def test_keys_of_a_tenant_that_cannot_be_read_rotate_as_ever_where_it_still_names_them(world: World) -> None:
    world.secret("acme-key", old=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}], weight=5000)
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY)}, "the gateway knows the key")
    world.secret("acme-key", new=SECOND)
    await eventually(lambda: world.keyring() == {"acme": world.hashes(SECOND)}, "the gateway knows the second")


async def test_keys_that_were_published_stay_while_their_tenant_names_none_that_can_be_read(world: World) -> None:
    world.namespace("lab")
    world.secret("acme-key", one=KEY, two=SECOND)
    world.tenant(apiKeys=[{"secret": "acme-key"}])
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY, SECOND)}, "the gateway knows the keys")
    world.tenant(apiKeys="acme-key")
    world.tenant("other", ("lab",))
    await eventually(lambda: "other" in world.keyring(), "other Tenants are written")
    assert world.keyring()["acme"] == world.hashes(KEY, SECOND)
    world.secret("acme-key", two=SECOND)
    await eventually(lambda: world.keyring()["acme"] == world.hashes(SECOND), "a key that is taken away is gone")


async def test_a_tenant_whose_namespaces_are_no_list_stops_no_other(world: World) -> None:
    world.api.put(TENANTS, {"metadata": {"name": "strange"}, "spec": {"namespaces": "not a list"}})
    world.secret("acme-key", old=KEY)
    world.tenant(apiKeys=[{"secret": "acme-key"}])
    await eventually(lambda: world.ready("strange") == "NotUnderstood", "the one says why")
    await eventually(lambda: world.ready() == "Ready", "the other is ready")
    await eventually(lambda: world.keyring() == {"acme": world.hashes(KEY), "strange": []}, "and has its keys")
