"""Self-healing against the API server in memory: what is done, in which order, and what is remembered of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from crds.contract import METRIC_REMEDIES
from kube.errors import Unreachable
from kube.resources import DEPLOYMENTS, INFERENCE_SERVICES, PODS, Object
from tests.controllers.inference_service.harness import (
    MemoryKubelet,
    ground,
    revisions,
    until,
)
from tests.controllers.inference_service.test_reconciler import CHAT, NS, World, apply, running
from tests.fakes import FakeClient

LONG_AGO = "2026-01-01T00:00:00Z"
GATEWAYS = ("10.9.0.1", "10.9.0.2")
CRASH = {
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "flag --x is none that I know."}},
}


class OldKubelet(MemoryKubelet):
    """What it starts has been ready for long."""

    def _started(self, pod: Object) -> dict[str, Any]:
        status = super()._started(pod)
        status["conditions"][0]["lastTransitionTime"] = LONG_AGO
        return status


@pytest.fixture
async def world() -> AsyncIterator[World]:
    client = FakeClient()
    await ground(client, NS)
    async with running(client, kubelet=OldKubelet) as made:
        yield made


def names(world: World) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in world.client.all(PODS))


def hang(world: World, pod: str) -> None:
    """All gateways say so, and have said so for longer than the kubelet gets."""
    said = {
        "state": "lost",
        "reason": "hung",
        "since_s": 40.0,
        "message": "3 requests and no step for 40 s",
        "times": 0,
    }
    world.operator.ports.objections = dict.fromkeys(GATEWAYS, json.dumps({f"{NS}/chat": {pod: said}}).encode())


def health(world: World) -> dict[str, Any]:
    return dict(world.operator.status(NS, "chat").get("health") or {})


async def serving(world: World, **spec: Any) -> list[str]:
    await apply(world, replicas=3, **spec)
    await world.condition("Servable", "True", "ProbeAnswered")
    await world.until(lambda: health(world).get("lastGood"), "the revision has stood")
    await world.quiet()
    return names(world)


async def test_a_hung_worker_is_recorded_and_then_replaced(world: World) -> None:
    before = await serving(world)
    hang(world, before[0])
    await world.until(lambda: before[0] not in names(world) and len(names(world)) == 3, "it is replaced")
    (action,) = health(world)["actions"]
    assert (action["cause"], action["remedy"], action["worker"]) == ("WorkerHung", "RestartWorker", before[0])
    assert action["reason"] == f"{before[0]}: 3 requests and no step for 40 s."
    log = [(one.verb, one.kind, one.subresource) for one in world.client.log]
    first_delete = next(i for i, one in enumerate(log) if one[:2] == ("delete", "Pod"))
    assert ("apply", "InferenceService", "status") in log[first_delete - 1 : first_delete]
    assert ("Warning", "RestartWorker") in [note[:2] for note in world.operator.told.notes]
    (family,) = world.operator.wired.healings.collect()
    applied = [one for one in family.samples if one.labels["outcome"] == "Applied"]
    assert [(one.name, one.labels["cause"], one.value) for one in applied] == [
        (f"{METRIC_REMEDIES}_total", "WorkerHung", 1.0)
    ]


async def test_a_delete_that_failed_is_done_again_and_recorded_once(world: World) -> None:
    before = await serving(world)
    world.client.fail_next("delete", PODS, Unreachable("cut off"))
    hang(world, before[0])
    actors = (world.kubernetes.act, world.kubelet.act)
    await until(lambda: before[0] not in names(world), "it is replaced", *actors, within_s=120)
    assert len(health(world)["actions"]) == 1


async def test_a_new_leader_goes_on_from_the_status(world: World) -> None:
    before = await serving(world)
    world.operator.queue.add = lambda *_, **__: None  # type: ignore[method-assign]
    pending = {
        "time": "2026-01-01T00:00:00Z",
        "cause": "WorkerHung",
        "remedy": "RestartWorker",
        "worker": before[1],
        "reason": "no step",
        "outcome": "Pending",
    }
    status = {"health": {"lastGood": health(world)["lastGood"], "actions": [pending]}}
    await world.client.merge_patch(INFERENCE_SERVICES, NS, "chat", {"status": status}, subresource="status")
    async with running(world.client, kubelet=OldKubelet) as after:
        await after.until(
            lambda: [one["outcome"] for one in health(after).get("actions", ())] == ["NotHelped"], "it is judged"
        )


async def test_advise_says_it_and_leaves_all_workers_alone(world: World) -> None:
    before = await serving(world, healing={"mode": "advise"})
    hang(world, before[0])
    await world.condition("Degraded", "True", "WorkerHung")
    assert names(world) == before
    (finding,) = health(world)["findings"]
    assert finding["next"] == "Advised only (spec.healing.mode is advise): RestartWorker."
    world.operator.ports.objections = {}
    await world.until(lambda: world.operator.condition(NS, "chat", "Degraded") is None, "the condition goes")
    assert names(world) == before


async def test_a_revision_that_can_only_crash_gives_way_until_the_next_edit(world: World) -> None:
    before = await serving(world)
    (old,) = await revisions(world.client, NS)
    world.kubelet.fails = lambda pod: CRASH if old not in pod["metadata"]["name"] else None
    await apply(world, replicas=3, engine={"maxNumSeqs": 4})
    await world.condition("Stalled", "True", "RolledBack")
    await world.condition("Degraded", "True", "BadRevision")
    await world.until(lambda: names(world) == before, "only the earlier revision has workers")
    assert "flag --x is none that I know" in world.message("Stalled")
    assert health(world)["serves"] == old
    assert [one["remedy"] for one in health(world)["actions"]] == ["RollBack"]
    assert world.operator.status(NS, "chat")["currentRevision"] == old
    replicas = {one["metadata"]["name"]: one["spec"]["replicas"] for one in world.client.all(DEPLOYMENTS)}
    assert sorted(replicas.values()) == [0, 3]
    world.kubelet.fails = lambda pod: None
    await apply(world, replicas=3, engine={"maxNumSeqs": 8})
    await world.condition("Ready", "True", "WorkersReady")
    assert world.operator.condition(NS, "chat", "Degraded") is None
    assert "refused" not in health(world)


async def test_a_service_that_is_well_is_not_written_again_by_being_looked_at(world: World) -> None:
    await serving(world)
    before = world.client.log[:]
    for _ in range(5):
        world.operator.queue.add(CHAT)
        await world.quiet()
    assert world.client.log == before
    assert set(health(world)) == {"lastGood"}
