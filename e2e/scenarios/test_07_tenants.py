"""Tenants see their own services only, and a key is worth what its Secret says now."""

from __future__ import annotations

import time
from collections.abc import Callable

import openai
import pytest

from e2e.install import SYSTEM, key_secret
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]


def test_another_tenants_model_does_not_exist(world: World) -> None:
    with world.serving("private"):
        assert "Paris" in world.ask("private")
        for name in ("private", "demo/private"):
            with pytest.raises(openai.NotFoundError):
                world.ask(name, tenant="rival")
        assert "private" not in {model.id for model in world.client("rival").models.list()}


def test_a_wrong_key_is_refused(world: World) -> None:
    stranger = openai.OpenAI(base_url=world.url, api_key="not-a-key-of-anybody", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.status_code == 401


def test_two_keys_are_valid_during_a_rotation_and_a_deleted_one_is_refused_soon(
    world: World, measured: Measured
) -> None:
    new = "a-second-key-for-the-rotation-0123456789"
    old = world.keys["acme"]
    world.kubectl.apply(key_secret("acme-key", {"key": old, "next": new}))
    client = openai.OpenAI(base_url=world.url, api_key=new, max_retries=0)
    until(lambda: _accepted(client), "the second key", 20)
    assert _accepted(world.client())
    world.kubectl(
        "-n", SYSTEM, "patch", "secret", "acme-key", "--type=json", "-p", '[{"op":"remove","path":"/data/next"}]'
    )
    started = time.monotonic()
    until(lambda: not _accepted(client), "the deleted key refused", 20, every_s=0.05)
    took = time.monotonic() - started
    measured("key deleted → refused", f"{took:.2f} s")
    assert took < 5
    assert _accepted(world.client())


def _accepted(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except openai.AuthenticationError:
        return False
    return True


def test_a_quota_is_a_condition_with_the_arithmetic_and_heals(world: World) -> None:
    tenant = world.kubectl.get("tenant", "acme")
    with world.serving("greedy") as wanted:
        world.rolled("greedy", 1)
        try:
            limited = {"apiVersion": tenant["apiVersion"], "kind": "Tenant", "metadata": {"name": "acme"}}
            world.kubectl.apply(limited | {"spec": tenant["spec"] | {"quota": {"replicas": 2}}})
            wanted["spec"]["replicas"] = 3
            world.kubectl.apply(wanted)
            stalled = until(lambda: world.condition("inferenceservice/greedy", "Stalled"), "Stalled", 30)
            assert stalled["reason"] == "QuotaExceeded"
            assert "quota" in stalled["message"]
            assert "2" in stalled["message"]
            assert "Paris" in world.ask("greedy")
        finally:
            world.kubectl.apply(limited | {"spec": tenant["spec"]})
        world.rolled("greedy", 3)
