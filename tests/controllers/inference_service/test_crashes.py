"""The operator dies at every single write, before it or after it, and a new one comes to the same end.

Only the order of the end is checked at each step; the rest by comparing with a life without a crash.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from controllers.runtime.interface import Key
from kube.api import Propagation, Subresource
from kube.errors import Fenced, Unreachable
from kube.resources import DEPLOYMENTS, INFERENCE_SERVICES, PODS, Object, Resource
from tests.controllers.inference_service.harness import (
    CHILDREN,
    Kubernetes,
    MemoryKubelet,
    Operator,
    ground,
    inference_service,
    put,
    until,
)
from tests.fakes import FakeClient

NS = "demo"


class Mortal:
    """The way of one operator to the API server: it ends at the write with number `dies_at`."""

    def __init__(self, client: FakeClient, dies_at: int, *, after_commit: bool) -> None:
        self._client, self._left, self._after_commit = client, dies_at, after_commit
        self.dead = False
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def _write(self, act: Callable[[], Awaitable[Any]]) -> Any:
        if self.dead:
            raise Fenced("This operator has died.")
        self._left -= 1
        self.writes += 1
        if self._left >= 0:
            return await act()
        self.dead = True
        if self._after_commit:
            await act()
        raise Unreachable("This operator dies.")

    async def apply(
        self, resource: Resource, obj: Mapping[str, Any], *, field_manager: str, force: bool = True,
        subresource: Subresource | None = None,
    ) -> Object:  # fmt: skip
        return dict(
            await self._write(
                lambda: self._client.apply(
                    resource, obj, field_manager=field_manager, force=force, subresource=subresource
                )
            )
        )

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        return dict(await self._write(lambda: self._client.create(resource, obj)))

    async def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Mapping[str, Any], *,
        subresource: Subresource | None = None,
    ) -> Object:  # fmt: skip
        return dict(
            await self._write(
                lambda: self._client.merge_patch(resource, namespace, name, patch, subresource=subresource)
            )
        )

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, propagation: Propagation = "Background",
        uid: str | None = None, grace_period_s: int | None = None,
    ) -> None:  # fmt: skip
        await self._write(lambda: self._client.delete(resource, namespace, name, propagation=propagation, uid=uid))


class Life:
    """One service from its birth to its end, through an edit and a smaller number, with one crash at most."""

    def __init__(self, dies_at: int, *, after_commit: bool) -> None:
        self.client = FakeClient()
        self.mortal = Mortal(self.client, dies_at, after_commit=after_commit)
        self._actors = (Kubernetes(self.client, NS).act, MemoryKubelet(self.client, NS).act, self._check_order)
        self.told: dict[str, Any] = {}

    async def live(self) -> None:
        await ground(self.client, NS)
        stages = [self._born, self._edited, self._smaller, self._ended]
        async with Operator(self.mortal).running() as first:
            stages = await self._go_through(stages, first)
        if stages:
            async with Operator(self.client).running() as second:
                for name in [obj["metadata"]["name"] for obj in self.client.all(INFERENCE_SERVICES)]:
                    second.queue.add(_key(name))
                assert not await self._go_through(stages, second)

    async def _go_through(self, stages: Sequence[Any], operator: Operator) -> list[Any]:
        """The stages that are left when the operator has died."""
        for number, stage in enumerate(stages):
            wanted, is_done = stage(operator)
            if wanted is not None:
                await put(self.client, INFERENCE_SERVICES, wanted)
            elif self.client.all(INFERENCE_SERVICES):
                await self.client.delete(INFERENCE_SERVICES, NS, "chat")
            await until(functools.partial(self._is_over, operator, is_done), stage.__name__, *self._actors)
            if self._is_dead(operator):
                return list(stages[number:])
            self.told[stage.__name__] = self._standing()
        return []

    def _is_over(self, operator: Operator, is_done: Callable[[], bool]) -> bool:
        return is_done() or self._is_dead(operator)

    def _is_dead(self, operator: Operator) -> bool:
        return operator.client is self.mortal and self.mortal.dead

    def _born(self, operator: Operator) -> tuple[Object | None, Callable[[], bool]]:
        return inference_service(NS, replicas=2), lambda: self._stands(operator, "2/2", deployments=1)

    def _edited(self, operator: Operator) -> tuple[Object | None, Callable[[], bool]]:
        edited = inference_service(NS, replicas=2, engine={"maxNumSeqs": 4})
        return edited, lambda: self._stands(operator, "2/2", deployments=2)

    def _smaller(self, operator: Operator) -> tuple[Object | None, Callable[[], bool]]:
        edited = inference_service(NS, replicas=1, engine={"maxNumSeqs": 4})
        return edited, lambda: self._stands(operator, "1/1", deployments=2)

    def _ended(self, operator: Operator) -> tuple[Object | None, Callable[[], bool]]:
        kinds = (*CHILDREN, PODS, INFERENCE_SERVICES)
        return None, lambda: not any(self.client.all(resource) for resource in kinds)

    def _stands(self, operator: Operator, replicas: str, *, deployments: int) -> bool:
        service = self.client.now(INFERENCE_SERVICES, NS, "chat")
        if service is None or operator.condition(NS, "chat", "Ready") != ("True", "WorkersReady"):
            return False
        status = service["status"]
        return (
            status["replicaStatus"] == replicas
            and status["observedGeneration"] == service["metadata"]["generation"]
            and operator.condition(NS, "chat", "Servable") == ("True", "ProbeAnswered")
            and operator.condition(NS, "chat", "Reconciling") is None
            and len(self.client.all(DEPLOYMENTS)) == deployments
        )

    def _standing(self) -> dict[str, Any]:
        """What every life must come to: children with their specs, and what the status says."""
        specs = {
            f"{obj['kind']} {obj['metadata']['name']}": obj.get("spec")
            for resource in CHILDREN
            for obj in self.client.all(resource)
        }
        service = self.client.now(INFERENCE_SERVICES, NS, "chat")
        conditions = service["status"]["conditions"] if service else []
        return specs | {"conditions": sorted((one["type"], one["reason"]) for one in conditions)}

    async def _check_order(self) -> None:
        """While a worker is left, its service and what it needs are left."""
        if self.client.all(PODS):
            assert self.client.all(INFERENCE_SERVICES), "the service went before its workers"
            for resource in CHILDREN[1:]:
                assert self.client.all(resource), f"{resource.kind} went before the workers"


def _key(name: str) -> Key:
    return Key("InferenceService", NS, name)


@pytest.mark.parametrize("after_commit", [False, True], ids=["before-the-write", "after-the-write"])
async def test_an_operator_that_dies_at_any_write_is_replaced_without_a_trace(after_commit: bool) -> None:
    calm = Life(10_000, after_commit=False)
    await calm.live()
    writes = calm.mortal.writes
    assert writes > 15
    for dies_at in range(writes):
        life = Life(dies_at, after_commit=after_commit)
        await life.live()
        assert life.mortal.dead, f"died at none of {dies_at} writes"
        assert life.told == calm.told, f"another end after a death at write {dies_at}"
