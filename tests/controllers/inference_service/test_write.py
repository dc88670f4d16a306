"""What the writer remembers of its own writes until the caches show them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controllers.apply import Applier
from controllers.inference_service.loads import LoadBoard
from controllers.inference_service.write import UNSEEN_S, Writer
from controllers.plans.rollout import Move
from controllers.plans.service import ServicePlan
from kube.resources import DEPLOYMENTS, INFERENCE_SERVICES
from tests import gen
from tests.controllers.inference_service.harness import FakePorts, Operator, inference_service
from tests.fakes import FakeClient

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Written:
    """A writer over a server in memory, whose time is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.client = FakeClient()
        operator = Operator(self.client)
        self.caches = operator.caches
        loads = LoadBoard(FakePorts(), operator.queue, self.clock)
        self.writer = Writer(self.client, Applier(self.client), self.caches, loads, self.clock)

    def clock(self) -> float:
        return self.now_s


async def test_an_edit_between_what_was_read_and_the_status_is_older_than_the_status() -> None:
    world = Written()
    read = world.client.put(INFERENCE_SERVICES, inference_service("demo"))
    edited = world.client.put(INFERENCE_SERVICES, inference_service("demo", replicas=2))
    await world.writer.status(read, ServicePlan(status={"observedGeneration": 1, "replicas": 1}), NOW)
    newest = world.writer.newest(edited)
    assert (newest["spec"]["replicas"], newest["status"]["replicas"]) == (2, 1)
    world.now_s += UNSEEN_S
    assert world.writer.newest(edited) is edited, "a server that was set back is believed"


async def test_what_was_written_is_forgotten_with_its_service_and_not_with_another_of_a_like_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, service = Written(), inference_service("demo", "chat-big")
    big = world.client.put(DEPLOYMENTS, {"metadata": {"namespace": "demo", "name": "chat-big-0123456789"}})
    monkeypatch.setattr(world.caches.deployments, "get", lambda namespace, name: big)
    plan = ServicePlan(moves=(Move("0123456789", 1, 2),))
    assert (await world.writer.children(service, gen.snapshot(name="chat-big"), plan)).moved
    world.writer.forget("demo", "chat")
    assert world.writer.is_unseen(big)
    world.writer.forget("demo", "chat-big")
    assert not world.writer.is_unseen(big)
