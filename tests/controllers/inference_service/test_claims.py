"""Services whose workers claim their devices, over the API server in memory: the template beside each revision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kube.resources import DEPLOYMENTS, GPU_POOLS, INFERENCE_SERVICES, NODES, RESOURCE_CLAIM_TEMPLATES
from tests.controllers.inference_service.harness import (
    Operator,
    inference_service,
    put,
    until,
)
from tests.controllers.inference_service.pooled import NS, SETTINGS, Pooled, pooled
from tests.fakes import FakeClient
from tests.plans.mig.pool_world import node


class World(Pooled):
    async def pool(self, allocation: str) -> None:
        await self.put_pool(allocation=allocation)

    async def service(self, **spec: Any) -> None:
        on = {"mig": {"profile": "1g.10gb"}}
        await put(self.client, INFERENCE_SERVICES, inference_service(NS, accelerator=on, **spec))

    async def settled(self, allocation: str | None) -> None:
        await self.wait(
            lambda: (
                self.status.get("allocation") == allocation
                and self.status.get("replicaStatus") == "1/1"
                and self.operator.is_idle()
            ),
            f"workers by {allocation}",
        )

    @property
    def status(self) -> dict[str, Any]:
        return self.operator.status(NS, "chat")

    def names(self) -> set[str]:
        """Of the templates."""
        return {one["metadata"]["name"] for one in self.client.all(RESOURCE_CLAIM_TEMPLATES)}

    def revisions(self) -> set[str]:
        """Names of Deployments."""
        return {one["metadata"]["name"] for one in self.client.all(DEPLOYMENTS)}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    client = FakeClient()
    client.put(NODES, node("n0"))
    async with pooled(World, client) as world:
        yield world


async def test_each_revision_has_a_template_of_its_own_and_takes_it_along(world: World) -> None:
    await world.pool("resourceClaims")
    await world.service(rollout={"revisionHistoryLimit": 0})
    await world.settled("resourceClaims")
    first = world.names()
    assert first == world.revisions()
    await world.service(rollout={"revisionHistoryLimit": 0}, engine={"maxNumSeqs": 4})
    await world.wait(lambda: len(world.names()) == 1 and world.names() != first, "the former one went")
    await world.settled("resourceClaims")
    assert world.names() == world.revisions()


async def test_a_pool_that_gives_devices_in_another_way_rolls_its_services(world: World) -> None:
    await world.service(rollout={"revisionHistoryLimit": 0})
    await world.settled(None)
    assert world.names() == set()
    await world.pool("resourceClaims")
    await world.settled("resourceClaims")
    await world.pool("devicePlugin")
    await world.wait(lambda: world.names() == set(), "no template is left")
    await world.settled(None)


async def test_workers_keep_their_devices_when_pool_and_operator_go(world: World) -> None:
    await world.pool("resourceClaims")
    await world.service()
    await world.settled("resourceClaims")
    before = world.revisions()
    await world.client.delete(GPU_POOLS, None, "gpus")
    async with Operator(world.client, settings=SETTINGS).running() as successor:
        await until(
            lambda: successor.status(NS, "chat").get("replicaStatus") == "1/1" and successor.is_idle(),
            "the successor has looked",
            world.kubernetes.act,
            world.kubelet.act,
        )
        assert successor.status(NS, "chat")["allocation"] == "resourceClaims"
    assert (world.revisions(), world.names()) == (before, before)
