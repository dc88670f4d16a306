"""The label of the pod that leads, which Services select."""

from __future__ import annotations

import asyncio

import pytest

from controllers import leader_label
from controllers.leader_label import OPERATOR, keep_marked, mark_leader
from kube.errors import Unreachable
from kube.resources import PODS
from tests.fakes import FakeClient
from tests.waiting import eventually


def operators(**labels: dict[str, str]) -> FakeClient:
    name, _, value = OPERATOR.partition("=")
    client = FakeClient()
    for pod, more in labels.items():
        client.put(PODS, {"metadata": {"namespace": "sys", "name": pod, "labels": {name: value, **more}}})
    return client


def leaders(client: FakeClient) -> list[str]:
    pods = client.all(PODS)
    return [one["metadata"]["name"] for one in pods if "foretide.dev/leader" in one["metadata"]["labels"]]


async def test_the_leaders_pod_alone_has_the_label_and_a_second_look_writes_nothing() -> None:
    client = operators(op1={"foretide.dev/leader": "true"}, op2={})
    await mark_leader(client, "sys", "op2")
    assert leaders(client) == ["op2"]
    writes = client.writes
    await mark_leader(client, "sys", "op2")
    assert client.writes == writes


async def test_a_label_that_could_not_be_written_or_was_taken_away_comes_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leader_label, "SOON_S", 0.01)
    monkeypatch.setattr(leader_label, "EVERY_S", 0.01)
    client = operators(op1={}, op2={})
    client.fail_next("patch", PODS, Unreachable("down"), Unreachable("down"))
    task = asyncio.create_task(keep_marked(client, "sys", "op2"))
    try:
        await eventually(lambda: leaders(client) == ["op2"], "the leader is marked")
        await client.merge_patch(PODS, "sys", "op2", {"metadata": {"labels": {"foretide.dev/leader": None}}})
        await eventually(lambda: leaders(client) == ["op2"], "the leader is marked again")
    finally:
        task.cancel()
    assert [one.message for one in caplog.records if "is not marked yet" in one.message] == [
        "The pod that leads is not marked yet, so its Services may lead to none: down"
    ]
