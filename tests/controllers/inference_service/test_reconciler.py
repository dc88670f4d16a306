"""The controller against the API server in memory: from apply to Servable, and through all that happens after."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from controllers import refusals
from controllers.inference_service.admin_ports import ProbeAnswer
from controllers.runtime import queue
from controllers.runtime.interface import Key
from crds.contract import FINALIZER_SERVICE
from kube.backoff import Backoff
from kube.errors import error_from_answer
from kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    INFERENCE_SERVICES,
    MODELS,
    NETWORK_POLICIES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SLAS,
    TENANTS,
    Object,
    Resource,
)
from tests.controllers.inference_service.harness import (
    CHILDREN,
    READY_MODEL,
    FakePorts,
    Kubernetes,
    MemoryKubelet,
    Operator,
    gateway_slice,
    ground,
    inference_service,
    model,
    put,
    revisions,
    tenant,
    until,
)
from tests.fakes import FakeClient

NS = "demo"
CHAT = Key("InferenceService", NS, "chat")


@dataclass
class World:
    """Everything of one test."""

    client: FakeClient
    operator: Operator
    kubernetes: Kubernetes
    kubelet: MemoryKubelet

    async def until(self, condition: Any, what: str) -> None:
        await until(condition, what, self.kubernetes.act, self.kubelet.act)

    async def condition(self, type_: str, status: str, reason: str, name: str = "chat") -> None:
        await self.until(
            lambda: self.operator.condition(NS, name, type_) == (status, reason),
            f"{type_} {status} {reason}; it is {self.operator.status(NS, name).get('conditions')}",
        )

    async def quiet(self) -> None:
        """Until the operator has seen and done everything there is."""
        calm = 0

        def is_calm() -> bool:
            nonlocal calm
            calm = calm + 1 if self.operator.is_idle() else 0
            return calm > 10

        await self.until(is_calm, "the operator has nothing to do")

    def message(self, type_: str) -> str:
        conditions = self.operator.status(NS, "chat")["conditions"]
        return str(next(one["message"] for one in conditions if one["type"] == type_))


@contextlib.asynccontextmanager
async def running(
    client: FakeClient, ports: FakePorts | None = None, kubelet: type[MemoryKubelet] = MemoryKubelet
) -> AsyncIterator[World]:
    async with Operator(client, ports).running() as operator:
        yield World(client, operator, Kubernetes(client, NS), kubelet(client, NS))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    client = FakeClient()
    await ground(client, NS)
    async with running(client) as made:
        yield made


async def apply(world: World, **spec: Any) -> None:
    await put(world.client, INFERENCE_SERVICES, inference_service(NS, **spec))


async def test_from_apply_to_servable(world: World) -> None:
    await apply(world, replicas=2)
    await world.condition("Servable", "True", "ProbeAnswered")
    await world.condition("Ready", "True", "WorkersReady")
    assert world.operator.status(NS, "chat")["replicaStatus"] == "2/2"
    assert {gateway for gateway, _, _ in world.operator.ports.probes} == {"10.9.0.1", "10.9.0.2"}
    assert all(len(world.client.all(resource)) == 1 for resource in CHILDREN)
    service = world.client.now(INFERENCE_SERVICES, NS, "chat")
    assert service
    assert service["metadata"]["finalizers"] == [FINALIZER_SERVICE]
    assert [note[1] for note in world.operator.told.notes if note[0] == "Normal"][-2:] == ["Ready", "Servable"]


async def test_nothing_is_written_when_nothing_changes_and_not_after_a_restart(world: World) -> None:
    await apply(world, replicas=2)
    await world.condition("Servable", "True", "ProbeAnswered")
    await world.quiet()
    before = world.client.log[:]
    for _ in range(3):
        world.operator.queue.add(CHAT)
        await world.quiet()
    assert world.client.log == before
    async with running(world.client) as restarted:
        restarted.operator.queue.add(CHAT)
        await restarted.until(lambda: restarted.operator.ports.probes, "the first probe after the restart")
        await restarted.quiet()
    assert world.client.log == before


async def test_a_missing_model_is_named_and_heals_when_it_appears(world: World) -> None:
    await apply(world, model="n")
    await world.condition("Stalled", "True", "ModelNotFound")
    assert world.client.all(DEPLOYMENTS) == []
    await put(world.client, MODELS, model(NS, "n"), READY_MODEL)
    await world.condition("Servable", "True", "ProbeAnswered")
    assert world.operator.condition(NS, "chat", "Stalled") is None
    assert next(note for note in world.operator.told.notes if note[0] == "Warning")[1] == "ModelNotFound"


async def test_a_missing_sla_heals_when_it_appears(world: World) -> None:
    await apply(world, sla="interactive")
    await world.condition("Stalled", "True", "SLANotFound")
    sla = {"metadata": {"namespace": NS, "name": "interactive"}, "spec": {"priority": "P1"}}
    await put(world.client, SLAS, sla)
    await world.condition("Ready", "True", "WorkersReady")


async def test_a_missing_fallback_heals_when_it_appears_and_a_circle_when_it_is_opened(world: World) -> None:
    await apply(world, fallbacks=[{"service": "small"}])
    await world.condition("Stalled", "True", "FallbackNotFound")
    small = inference_service(NS, "small", fallbacks=[{"service": "chat"}], replicas=0)
    await put(world.client, INFERENCE_SERVICES, small)
    await world.condition("Stalled", "True", "FallbackCircle")
    await put(world.client, INFERENCE_SERVICES, inference_service(NS, "small", replicas=0))
    await world.condition("Ready", "True", "WorkersReady")


async def test_a_missing_tenant_and_a_missing_gateway_heal_when_they_appear() -> None:
    client = FakeClient()
    await put(client, MODELS, model(NS), READY_MODEL)
    async with running(client) as world:
        await apply(world)
        await world.condition("Stalled", "True", "TenantNotFound")
        await put(client, TENANTS, tenant(NS))
        await world.condition("Servable", "False", "NoGateway")
        await put(client, ENDPOINT_SLICES, gateway_slice())
        await world.condition("Servable", "True", "ProbeAnswered")


async def test_a_quota_holds_the_younger_service_back_until_the_older_one_gives_way(world: World) -> None:
    await put(world.client, TENANTS, tenant(NS, replicas=3))
    await put(world.client, INFERENCE_SERVICES, inference_service(NS, "first", replicas=3))
    await world.condition("Ready", "True", "WorkersReady", "first")
    await put(world.client, INFERENCE_SERVICES, inference_service(NS, "second", replicas=2))
    await world.condition("Stalled", "True", "QuotaExceeded", "second")
    await put(world.client, INFERENCE_SERVICES, inference_service(NS, "first", replicas=1))
    await world.condition("Ready", "True", "WorkersReady", "second")
    assert len(world.client.all(PODS)) == 3


async def test_what_a_tenant_borrowed_goes_back_when_another_of_its_cohort_wants_it(world: World) -> None:
    await ground(world.client, "other")
    for namespace in (NS, "other"):
        made = tenant(namespace, replicas=2)
        made["spec"]["borrowing"] = {"cohort": "lab"}
        await put(world.client, TENANTS, made)
    await put(world.client, INFERENCE_SERVICES, inference_service(NS, "chat", replicas=4))
    await world.condition("Ready", "True", "WorkersReady")
    assert len(world.client.all(PODS)) == 4

    await put(world.client, INFERENCE_SERVICES, inference_service("other", "chat", replicas=2))
    desired = {(NS, 2), ("other", 2)}  # nobody plays the cluster in `other`: what is wanted there is enough
    await world.until(
        lambda: {(one, world.operator.status(one, "chat").get("desiredReplicas")) for one in (NS, "other")} == desired,
        "the lender has its own",
    )
    await world.condition("Stalled", "True", "QuotaExceeded")
    assert any(note[1] == "QuotaReclaimed" for note in world.operator.told.notes)

    await put(world.client, INFERENCE_SERVICES, inference_service("other", "chat", replicas=0))
    await world.condition("Ready", "True", "WorkersReady")
    assert world.operator.status(NS, "chat")["desiredReplicas"] == 4


async def test_what_two_tenants_borrowed_lately_decides_which_of_them_has_the_lent_worker(world: World) -> None:
    for namespace, replicas in (("idle", 1), (NS, 0), ("other", 0)):
        await ground(world.client, namespace)
        made = tenant(namespace, replicas=replicas)
        made["spec"]["quota"], made["spec"]["borrowing"] = {"replicas": replicas}, {"cohort": "lab", "halfLife": "1h"}
        await put(world.client, TENANTS, made, _borrowed("4.000" if namespace == NS else "0.000"))
    for namespace in (NS, "other"):
        await put(world.client, INFERENCE_SERVICES, inference_service(namespace, "chat", replicas=1))

    def desired() -> list[object]:
        return [world.operator.status(one, "chat").get("desiredReplicas") for one in (NS, "other")]

    await world.until(lambda: desired() == [0, 1], "who has borrowed less has it")
    for namespace in ("other", NS):
        average = _borrowed("4.000" if namespace == "other" else "1.000")
        await world.client.merge_patch(
            TENANTS, None, f"tenant-of-{namespace}", {"status": average}, subresource="status"
        )
    await world.until(lambda: desired() == [1, 0], "after a while it is the other's turn")


def _borrowed(replicas: str) -> Object:
    average = {"replicas": replicas}
    told = {"cohort": "lab", "halfLife": "1h", "sampledAt": "2026-01-01T00:00:00Z", "average": average, "standing": ""}
    return {"fairShare": told}


async def test_a_new_revision_replaces_the_old_one_and_never_goes_below_the_wanted_number(world: World) -> None:
    await apply(world, replicas=3)
    await world.condition("Servable", "True", "ProbeAnswered")
    (old,) = await revisions(world.client, NS)
    await apply(world, replicas=3, engine={"maxNumSeqs": 4})
    lowest = [3]

    def is_done() -> bool:
        lowest.append(sum(_is_ready(pod) for pod in world.client.all(PODS)))
        return world.operator.status(NS, "chat")["currentRevision"] != old and (
            world.operator.condition(NS, "chat", "Ready") == ("True", "WorkersReady")
        )

    await world.until(is_done, "the rollout ends")
    assert min(lowest) >= 3
    assert sorted((await revisions(world.client, NS)).values()) == [0, 3]
    assert world.operator.condition(NS, "chat", "Servable") == ("True", "ProbeAnswered")
    assert any(f"{old} 1→0" in note[2] for note in world.operator.told.notes if note[1] == "WorkersMoved")


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return not pod["metadata"].get("deletionTimestamp") and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )


async def test_a_revision_that_crashes_is_explained_and_a_revert_takes_the_old_deployment_up_again(
    world: World,
) -> None:
    await apply(world, replicas=2)
    await world.condition("Servable", "True", "ProbeAnswered")
    (old,) = await revisions(world.client, NS)
    crash = {
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "m.gguf is cut off: 5 of 98 MB."}},
    }
    world.kubelet.fails = lambda pod: None if old in pod["metadata"]["name"] else crash
    await apply(world, replicas=2, engine={"maxNumSeqs": 4})
    await world.condition("Stalled", "True", "WorkerCrashing")
    assert "m.gguf is cut off: 5 of 98 MB. 2 workers of earlier revisions serve on." in world.message("Ready")
    await apply(world, replicas=2)
    await world.condition("Ready", "True", "WorkersReady")
    assert (await revisions(world.client, NS))[old] == 2
    assert world.operator.status(NS, "chat")["currentRevision"] == old


async def test_the_least_loaded_worker_goes_first_when_scaling_down(world: World) -> None:
    await apply(world, replicas=3)
    await world.condition("Servable", "True", "ProbeAnswered")
    await world.quiet()
    addresses = {pod["status"]["podIP"]: pod["metadata"]["name"] for pod in world.client.all(PODS)}
    idle = sorted(addresses)[1]
    world.operator.ports.held = {address: 0 if address == idle else 5 for address in addresses}
    await apply(world, replicas=2)
    await world.condition("Ready", "True", "WorkersReady")
    await world.until(lambda: len(world.client.all(PODS)) == 2, "one worker goes")
    assert addresses[idle] not in [pod["metadata"]["name"] for pod in world.client.all(PODS)]
    costs = [write for write in world.client.log if write.kind == "Pod" and write.verb == "patch"]
    assert costs


async def test_load_adds_workers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.inference_service.loads.PERIOD_S", 0.05)
    await apply(world, scaling={"min": 1, "max": 3, "targetConcurrency": 2})
    await world.condition("Ready", "True", "WorkersReady")
    world.operator.ports.held = {f"10.1.0.{number}": 3 for number in range(10, 250)}
    await world.until(lambda: world.operator.status(NS, "chat")["replicaStatus"] == "3/3", "three workers")
    assert any(note[1] == "ScaledUp" for note in world.operator.told.notes)


async def test_a_probe_that_fails_says_what_the_gateway_said_and_heals(world: World) -> None:
    world.operator.ports.answer = ProbeAnswer(False, "NoEndpoint", "Gateway 10.9.0.1 knows no endpoint of demo/chat.")
    await apply(world)
    await world.condition("Servable", "False", "NoEndpoint")
    world.operator.ports.answer = ProbeAnswer(True)
    await world.condition("Servable", "True", "ProbeAnswered")


async def test_deletion_drains_first_and_leaves_nothing_behind(world: World) -> None:
    await apply(world, replicas=2)
    await world.condition("Servable", "True", "ProbeAnswered")
    world.kubelet.lets_go = lambda pod: False
    await world.client.delete(INFERENCE_SERVICES, NS, "chat")
    await world.condition("Servable", "False", "Deleting")
    await world.until(lambda: world.client.all(DEPLOYMENTS) == [], "the Deployments go")
    await world.quiet()
    service = world.client.now(INFERENCE_SERVICES, NS, "chat")
    assert service, "the service waits for its workers"
    assert all(len(world.client.all(resource)) == 1 for resource in CHILDREN if resource is not DEPLOYMENTS)
    world.kubelet.lets_go = lambda pod: True
    await world.until(
        lambda: not any(world.client.all(resource) for resource in (*CHILDREN, PODS, INFERENCE_SERVICES)),
        "everything is gone",
    )


async def test_deletion_goes_on_after_a_restart(world: World) -> None:
    await apply(world)
    await world.condition("Servable", "True", "ProbeAnswered")
    world.kubelet.lets_go = lambda pod: False
    await world.client.delete(INFERENCE_SERVICES, NS, "chat")
    await world.until(lambda: world.client.all(DEPLOYMENTS) == [], "the Deployments go")
    async with running(world.client) as restarted:
        restarted.operator.queue.add(CHAT)
        await restarted.until(lambda: not world.client.all(INFERENCE_SERVICES), "the service is gone")


async def test_a_refused_child_is_a_condition_with_the_servers_words_and_heals(world: World) -> None:
    refusal = error_from_answer(
        "create", "Deployment demo/x", 403, {"reason": "Forbidden", "message": "exceeded quota: count/deployments.apps"}
    )
    world.client.fail_next("apply", DEPLOYMENTS, refusal)
    await apply(world)
    await world.until(
        lambda: any(note[1] == "ChildRefused" and "exceeded quota" in note[2] for note in world.operator.told.notes),
        "the refusal is told",
    )
    await world.until(lambda: world.client.all(DEPLOYMENTS), "the next attempt")
    assert [note[1] for note in world.operator.told.notes].count("ChildRefused") == 1
    await world.condition("Servable", "True", "ProbeAnswered")


def refuse(world: World, resource: Resource, code: int = 422, verb: str = "apply") -> None:
    """From now on."""
    told = {"reason": "Invalid" if code == 422 else "InternalError", "message": "the webhook said no"}
    world.client.fail_next(verb, resource, *[error_from_answer(verb, resource.kind, code, told)] * 10_000)


async def test_a_refused_edit_freezes_neither_the_status_nor_the_revision_that_serves(world: World) -> None:
    await apply(world, replicas=2)
    await world.condition("Servable", "True", "ProbeAnswered")
    (old,) = await revisions(world.client, NS)
    refuse(world, DEPLOYMENTS)
    await apply(world, replicas=5, engine={"maxNumSeqs": 4})
    await world.condition("Stalled", "True", "ChildRefused")
    await world.until(lambda: world.operator.status(NS, "chat")["readyReplicas"] == 5, "the old revision has 5")
    assert await revisions(world.client, NS) == {old: 5}
    service = world.client.now(INFERENCE_SERVICES, NS, "chat")
    assert service
    assert service["status"]["observedGeneration"] == service["metadata"]["generation"]
    for pod in world.client.all(PODS):
        pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        world.client.put(PODS, pod)
    await world.condition("Servable", "False", "NoReadyWorkers")
    assert world.operator.condition(NS, "chat", "Stalled") == ("True", "ChildRefused")


async def test_no_worker_leaves_for_a_revision_that_is_refused(world: World) -> None:
    rollout = {"maxSurge": 0, "maxUnavailable": 1}
    await apply(world, rollout=rollout)
    await world.condition("Servable", "True", "ProbeAnswered")
    before = await revisions(world.client, NS)
    refuse(world, DEPLOYMENTS)
    await apply(world, rollout=rollout, engine={"maxNumSeqs": 4})
    await world.condition("Stalled", "True", "ChildRefused")
    await world.quiet()
    assert await revisions(world.client, NS) == before
    assert world.operator.condition(NS, "chat", "Servable") == ("True", "ProbeAnswered")


async def test_workers_start_only_where_all_that_they_need_was_taken(world: World) -> None:
    refuse(world, NETWORK_POLICIES)
    await apply(world)
    await world.condition("Stalled", "True", "ChildRefused")
    await world.quiet()
    assert [len(world.client.all(one)) for one in (DEPLOYMENTS, NETWORK_POLICIES, SERVICES)] == [0, 0, 1]


@pytest.mark.parametrize(("verb", "resource"), [("apply", SERVICE_ACCOUNTS), ("patch", INFERENCE_SERVICES)])
async def test_a_webhook_that_stays_down_is_told_when_it_lasts(
    world: World, monkeypatch: pytest.MonkeyPatch, verb: str, resource: Resource
) -> None:
    refuse(world, resource, 500, verb)
    await apply(world)
    await world.until(lambda: world.client.calls[verb, resource.kind] > 1, "it is tried again")
    assert "conditions" not in world.operator.status(NS, "chat")
    monkeypatch.setattr(refusals, "LASTS", timedelta(seconds=0.2))
    await world.condition("Stalled", "True", "ChildRefused")
    assert "the webhook said no" in world.message("Stalled")
    assert world.message("Stalled").endswith("It is tried again.")


async def test_a_refusal_that_is_worded_anew_each_time_is_written_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "RETRY", Backoff(first_s=0.01, factor=1.0, most_s=0.01))
    told = [{"reason": "Forbidden", "message": f"denied, request {n}"} for n in range(10_000)]
    refused = [error_from_answer("apply", "ServiceAccount", 403, one) for one in told]
    world.client.fail_next("apply", SERVICE_ACCOUNTS, *refused)
    await apply(world)
    await world.condition("Stalled", "True", "ChildRefused")
    first, tried = world.message("Stalled"), world.client.calls["apply", "ServiceAccount"]
    await world.until(lambda: world.client.calls["apply", "ServiceAccount"] > tried + 5, "it is tried again")
    assert world.message("Stalled") == first
    await apply(world, replicas=2)
    await world.until(lambda: world.message("Stalled") != first, "an edit has its own answer")
    assert [(one.kind, one.subresource) for one in world.client.log].count(("InferenceService", "status")) == 2


async def test_a_service_that_may_not_go_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "LASTS", timedelta(seconds=0.2))
    await apply(world)
    await world.condition("Servable", "True", "ProbeAnswered")
    refuse(world, INFERENCE_SERVICES, 500, "patch")
    await world.client.delete(INFERENCE_SERVICES, NS, "chat")
    await world.until(lambda: "the webhook said no" in world.message("Ready"), "the refusal is told")
    assert world.message("Ready").startswith("Deleting: all workers are gone. ")


async def test_a_child_that_someone_changed_is_repaired(world: World) -> None:
    await apply(world)
    await world.condition("Servable", "True", "ProbeAnswered")
    (deployment,) = world.client.all(DEPLOYMENTS)
    name = deployment["metadata"]["name"]
    await world.client.merge_patch(
        DEPLOYMENTS, NS, name, {"spec": {"template": {"spec": {"enableServiceLinks": True}}}}
    )

    def is_repaired() -> bool:
        now = world.client.now(DEPLOYMENTS, NS, name)
        return now is not None and now["spec"]["template"]["spec"]["enableServiceLinks"] is False

    await world.until(is_repaired, "the template is as it should be")


async def test_a_deleted_child_comes_back(world: World) -> None:
    await apply(world)
    await world.condition("Servable", "True", "ProbeAnswered")
    for resource in CHILDREN[1:]:
        (child,) = world.client.all(resource)
        await world.client.delete(resource, NS, child["metadata"]["name"])
        await world.until(lambda resource=resource: world.client.all(resource), f"{resource.kind} comes back")


async def test_status_says_the_generation_that_it_speaks_of(world: World) -> None:
    await apply(world)
    await world.condition("Ready", "True", "WorkersReady")
    await apply(world, replicas=2)
    await world.until(lambda: world.operator.status(NS, "chat").get("desiredReplicas") == 2, "the new number is seen")
    service = world.client.now(INFERENCE_SERVICES, NS, "chat")
    assert service
    assert service["status"]["observedGeneration"] == service["metadata"]["generation"]
    assert {one["observedGeneration"] for one in service["status"]["conditions"]} == {service["metadata"]["generation"]}


async def test_a_service_made_again_under_its_name_touches_nothing_of_the_one_before(world: World) -> None:
    await apply(world)
    await world.condition("Servable", "True", "ProbeAnswered")
    (left_over,) = world.client.all(DEPLOYMENTS)
    left_over["metadata"] |= {"name": "chat-before", "uid": "uid-before", "resourceVersion": "0"}
    left_over["metadata"]["labels"] = left_over["metadata"]["labels"] | {"foretide.dev/revision": "before"}
    left_over["metadata"]["ownerReferences"] = [{"kind": "InferenceService", "uid": "uid-other", "controller": True}]
    left_over["spec"]["replicas"] = 4
    async with running(world.client) as second:
        world.client.put(DEPLOYMENTS, left_over)
        second.operator.queue.add(CHAT)
        await until(lambda: second.operator.caches.deployments.get(NS, "chat-before"), "the left-over is seen")
        await until(second.operator.is_idle, "the operator has nothing to do")
        assert second.operator.status(NS, "chat")["revisions"][0]["name"] != "before"
        writes = [write for write in world.client.log if write.name == "chat-before"]
    assert writes == []


async def test_nothing_that_was_known_of_a_service_is_held_of_another_of_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone and made anew between two looks, so that no look found nothing."""
    await apply(world)
    await world.condition("Servable", "True", "ProbeAnswered")
    healings, forgotten = world.operator.wired.healings, list[Key]()
    monkeypatch.setattr(healings, "forget", forgotten.append)
    world.client.remove(INFERENCE_SERVICES, NS, "chat")
    await apply(world)
    await world.until(lambda: forgotten, "the memories are dropped")
    await world.quiet()
    assert forgotten == [CHAT], "once"


async def test_a_child_that_somebody_elses_object_holds_for_good_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "LASTS", timedelta(seconds=0.2))
    await apply(world, name="other")
    other = world.client.now(INFERENCE_SERVICES, NS, "other")
    assert other
    theirs = {"kind": "InferenceService", "name": "other", "uid": other["metadata"]["uid"], "controller": True}
    labels = {"app.kubernetes.io/managed-by": "foretide", "foretide.dev/inference-service": "chat"}
    meta = {"namespace": NS, "name": "chat-worker", "labels": labels, "ownerReferences": [theirs]}
    held = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {}}
    world.client.put(SERVICES, held)
    await apply(world)
    told = "Service demo/chat-worker belongs to another InferenceService 'other'"
    await world.until(
        lambda: any(note[1] == "ChildRefused" and told in note[2] for note in world.operator.told.notes),
        "it says whose it is",
    )
    world.client.remove(SERVICES, NS, "chat-worker")
    await world.condition("Servable", "True", "ProbeAnswered")


@pytest.mark.parametrize("resource", [SERVICE_ACCOUNTS, NETWORK_POLICIES])
async def test_an_object_of_a_person_keeps_its_name_and_its_content(world: World, resource: Resource) -> None:
    theirs = world.client.put(resource, {"metadata": {"namespace": NS, "name": "chat-worker"}, "spec": {"mine": True}})
    await apply(world)
    await world.condition("Stalled", "True", "ChildRefused")
    assert f"{resource.kind} demo/chat-worker was not made by Foretide" in world.message("Stalled")
    assert "Delete it, or rename one of the two." in world.message("Stalled")
    await world.quiet()
    assert world.client.now(resource, NS, "chat-worker") == theirs
    assert world.client.all(DEPLOYMENTS) == []
    world.client.remove(resource, NS, "chat-worker")
    await world.condition("Servable", "True", "ProbeAnswered")
