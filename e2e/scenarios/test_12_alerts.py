"""A worker that fails is one page and one word that it is over, also when the operator is killed in between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from e2e.cluster import layout
from e2e.cluster.cluster import Cluster
from e2e.install import SYSTEM, install, resource
from e2e.scenarios.world import World, until
from e2e.target import Target

Measured = Callable[[str, str], None]
SHORT = {"by": ["incident"], "wait": "1s", "interval": "5m", "repeat": "4h"}


@dataclass
class Pager:
    """A receiver on this machine, which the pods of the local cluster reach."""

    url: str = ""
    came: list[dict[str, Any]] = field(default_factory=list)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(one["status"], one["groupKey"]) for one in self.came]


@contextmanager
def paging() -> Iterator[Pager]:
    pager = Pager()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            pager.came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """The scenario's own report is enough."""

    server = ThreadingHTTPServer((layout.HOST_ADDRESS, 0), Handler)
    pager.url = f"http://{layout.HOST_ADDRESS}:{server.server_address[1]}/"
    threading.Thread(target=server.serve_forever, name="pager", daemon=True).start()
    try:
        yield pager
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pager(target: Target, own_cluster: Cluster | None, world: World) -> Iterator[Pager]:
    if own_cluster is None:
        pytest.skip("pods of this cluster do not reach this machine")
    allowed = {"allowPrivateNetworks": [f"{layout.HOST_ADDRESS}/32"]}
    with paging() as it:
        install(world.kubectl, target.chart_values | {"alerting": allowed})
        yield it
    install(world.kubectl, target.chart_values)


@contextmanager
def no_new_pods(world: World) -> Iterator[None]:
    """Every node is cordoned inside the block."""
    nodes = [one["metadata"]["name"] for one in world.kubectl.get("nodes")["items"]]
    world.kubectl("cordon", *nodes)
    try:
        yield
    finally:
        world.kubectl("uncordon", *nodes)


def test_a_failing_worker_is_one_page_although_the_operator_is_killed(
    world: World, pager: Pager, measured: Measured
) -> None:
    rule = {
        "name": "workers-missing",
        "severity": "P0",
        "metric": "workersMissing",
        "threshold": {"above": "0"},
        "for": "2s",
        "keepFiring": "2s",
        "runbook": "kubectl -n demo get pods -l foretide.dev/inference-service=watched",
    }
    hook = {"name": "pager", "webhook": {"url": pager.url}}
    policy = resource(
        "AlertPolicy",
        "watch",
        "demo",
        services=["watched"],
        interval="5s",
        rules=[rule],
        receivers=[hook],
        grouping=SHORT,
    )
    with world.serving("watched"):
        world.rolled("watched", 1)
        world.kubectl.apply(policy)
        try:
            world.wait("alertpolicy/watch", "Ready")
            with no_new_pods(world):
                began = time.monotonic()
                world.kill(world.pods("watched")[0]["metadata"]["name"], "demo")
                until(lambda: pager.told, "a page", 90)
                measured("a worker is killed → somebody is paged", f"{time.monotonic() - began:.1f} s")
                (alert,) = pager.came[0]["alerts"]
                assert alert["labels"]["service"] == "watched"
                assert alert["annotations"]["runbook"] == rule["runbook"]
                _another_leads_and_pages_nobody(world, pager)
            until(lambda: len(pager.came) == 2, "it is over", 180)
            (first, over) = pager.told
            assert (first[0], over[0]) == ("firing", "resolved")
            assert first[1] == over[1]
            until(lambda: _counts(world) == (0, 0), "nothing fires", 120)
            assert len(pager.came) == 2
        finally:
            world.kubectl("-n", "demo", "delete", "alertpolicy", "watch", "--ignore-not-found")
    world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/foretide-operator", "--timeout=120s")


def _another_leads_and_pages_nobody(world: World, pager: Pager) -> None:
    until(lambda: _counts(world) == (1, 1), "the policy shows it", 30)
    until(lambda: _delivered(world), "what was told is written down", 30)
    old = world.leader()
    world.kill(old, SYSTEM)
    until(lambda: world.leader() not in ("", old), "another leader", 30)
    # An edit that only the new leader can have looked at.
    patch = json.dumps({"spec": {"interval": "6s"}})
    world.kubectl("-n", "demo", "patch", "alertpolicy", "watch", "--type=merge", "-p", patch)
    world.wait("alertpolicy/watch", "Ready")
    assert _counts(world) == (1, 1)
    assert [status for status, _ in pager.told] == ["firing"]
    shown = world.kubectl("-n", "demo", "get", "alertpolicies").splitlines()
    assert shown[0].split()[:5] == ["NAME", "FIRING", "PENDING", "MUTED", "INCIDENTS"]
    assert shown[1].split()[:2] == ["watch", "1"]


def _status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = (world.get("alertpolicy/watch") or {}).get("status") or {}
    return found


def _counts(world: World) -> tuple[int, int]:
    return int(_status(world).get("firing", 0)), int(_status(world).get("openIncidents", 0))


def _delivered(world: World) -> bool:
    incidents = _status(world).get("incidents") or [{}]
    return any(one.get("said") == "firing" for one in incidents[0].get("deliveries") or ())
