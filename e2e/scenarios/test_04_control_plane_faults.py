"""Operator and API server go away in the middle of work: what serves goes on serving, and the work is finished."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from e2e.cluster.cluster import Cluster
from e2e.install import SYSTEM
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]


def _kill_operators(world: World) -> None:
    pods = world.select("pods", "app.kubernetes.io/name=foretide-operator", SYSTEM)
    for pod in pods:
        world.kill(pod["metadata"]["name"], SYSTEM)


def test_the_standby_takes_over_at_a_clean_stop_before_the_lease_runs_out(world: World, measured: Measured) -> None:
    old = until(world.leader, "a leader")
    until(lambda: len(world.select("pods", "app.kubernetes.io/name=foretide-operator", SYSTEM)) >= 2, "a standby")
    started = time.monotonic()
    world.kubectl("-n", SYSTEM, "delete", "pod", old, "--wait=false")
    until(lambda: world.leader() not in ("", old), "another leader", 60, every_s=0.05)
    took = time.monotonic() - started
    measured("leader stopped cleanly → standby leads", f"{took:.1f} s")
    assert took < 7, "the lease was given back: nobody waited until it ran out"
    world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/foretide-operator", "--timeout=60s")


def test_the_standby_takes_over_when_the_leader_is_killed(world: World, measured: Measured) -> None:
    old = until(world.leader, "a leader")
    started = time.monotonic()
    world.kill(old, SYSTEM)
    until(lambda: world.leader() not in ("", old), "another leader", 60, every_s=0.05)
    measured("leader killed → standby leads", f"{time.monotonic() - started:.1f} s")
    world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/foretide-operator", "--timeout=60s")


def test_operators_killed_during_a_new_revision_lose_no_request_and_finish_it(world: World, measured: Measured) -> None:
    with world.serving("interrupted", replicas=1) as wanted, world.load("interrupted") as load:
        first = world.rolled("interrupted", 1)
        until(lambda: load.answered >= 3, "the load")
        wanted["spec"]["engine"] = {"maxModelLen": 768, "kvCache": "128Mi"}
        world.kubectl.apply(wanted)
        until(lambda: len(world.pods("interrupted")) == 2, "the new worker's pod", every_s=0.02)
        _kill_operators(world)
        assert world.rolled("interrupted", 1) != first
    measured("operators killed during a new revision", str(load.account()))
    assert not load.account().troubles


def test_operators_killed_during_a_scale_down_lose_no_request_and_finish_it(world: World, measured: Measured) -> None:
    with world.serving("cut-short", replicas=2), world.load("cut-short") as load:
        world.rolled("cut-short", 2)
        until(lambda: load.answered >= 3, "the load")
        world.kubectl("-n", "demo", "scale", "inferenceservice/cut-short", "--replicas=1")
        _kill_operators(world)
        world.rolled("cut-short", 1)
    measured("operators killed during a scale-down", str(load.account()))
    assert not load.account().troubles


def test_operators_killed_during_a_deletion_leave_nothing_behind(world: World) -> None:
    with world.serving("half-deleted"):
        world.kubectl("-n", "demo", "delete", "inferenceservice", "half-deleted", "--wait=false")
        _kill_operators(world)
        until(lambda: world.get("inferenceservice/half-deleted") is None, "the end of the deletion", 90)


def test_an_api_server_restart_is_not_noticed_by_clients(
    world: World, own_cluster: Cluster | None, measured: Measured
) -> None:
    if own_cluster is None:
        pytest.skip("the API server of a given cluster is not ours to restart")
    with world.serving("steady"), world.load("steady") as load:
        until(lambda: load.answered >= 3, "the load")
        started = time.monotonic()
        own_cluster.restart_apiserver()
        goal = load.answered + 10
        until(lambda: load.answered >= goal, "answers after the restart")
        world.kubectl("-n", "demo", "scale", "inferenceservice/steady", "--replicas=2")
        world.rolled("steady", 2)
        measured("API server restarted → an edit is done", f"{time.monotonic() - started:.1f} s")
    measured("API server restarted under load", str(load.account()))
    assert not load.account().troubles
