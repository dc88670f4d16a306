"""A worker that fails is one page and one word that it is over, also when the operator is killed in between; what an
Alertmanager says has a service stand by with more workers, and say what is wrong with it.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from crds.contract import OPERATOR_PATH_ALERTS
from e2e.cluster import layout
from e2e.cluster.cluster import Cluster
from e2e.install import SYSTEM, install, resource
from e2e.scenarios.world import World, until
from e2e.target import Target

Measured = Callable[[str, str], None]
TOKEN = "an-alertmanagers-token"
"""What an Alertmanager shows to the operator."""
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


@pytest.fixture(scope="module")
def pager(target: Target, own_cluster: Cluster | None, world: World) -> Iterator[Pager]:
    """Foretide may reach it, and takes the alerts of an Alertmanager that knows the token."""
    if own_cluster is None:
        pytest.skip("pods of this cluster do not reach this machine")
    secret = {"name": "alertmanager", "namespace": SYSTEM, "labels": {"foretide.dev/alert-receiver": "true"}}
    world.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": {"token": TOKEN}})
    alerting = {"allowPrivateNetworks": [f"{layout.HOST_ADDRESS}/32"], "webhookSecret": "alertmanager"}
    with paging() as it:
        install(world.kubectl, target.chart_values | {"alerting": alerting})
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


@pytest.mark.usefixtures("pager")
def test_an_alert_keeps_more_workers_ready_while_it_fires_and_is_told_what_is_wrong(
    world: World, measured: Measured
) -> None:
    """The Tenant's quota is in the way at first: that is what is wrong."""
    with (
        world.serving("busy", scaling={"min": 1, "max": 3, "scaleDownDelay": "1s"}),
        _standing_by(world),
        _quota(world, replicas=1) as lift_it,
    ):
        began = time.monotonic()
        _alertmanager_says(world, "firing", "QueueGrows")
        floor = until(lambda: _floor(world), "more workers are asked for", 30)
        measured("an Alertmanager's alert → the floor is raised", f"{time.monotonic() - began:.1f} s")
        assert floor["workers"] == 2
        assert "alert 'QueueGrows' fires, and reaction 'stand-by' of AlertPolicy demo/react" in floor["message"]
        found = until(lambda: _diagnosis_that_names_the_quota(world), "what is wrong is told", 60)
        measured("an Alertmanager's alert → what is wrong is told", f"{time.monotonic() - began:.1f} s")
        assert (found["alert"], found["policy"]) == ("QueueGrows", "demo/react")
        lift_it()
        until(lambda: world.status("busy").get("readyReplicas") == 2, "a second worker stands by", 120)
        _alertmanager_says(world, "resolved", "QueueGrows")
        until(lambda: not _floor(world) and world.status("busy").get("desiredReplicas") == 1, "it is over", 120)
        assert world.status("busy")["diagnosis"]["alert"] == "QueueGrows", "what was wrong can still be read"

        _alertmanager_says(world, "firing", "Spike")
        until(lambda: "reaction 'for-a-moment'" in _told(world, "FloorRaised"), "the short one asks, too", 60)
        until(lambda: not _floor(world), "its time is over", 60)
        until(lambda: _status(world, "react").get("firing") == 1, "though its alert is not", 30)
        assert world.status("busy")["diagnosis"]["alert"] == "QueueGrows", "nobody asked about this one"
        until(lambda: _told(world, "FloorEnded"), "an Event says that it is over", 30)
        until(lambda: "Alert 'QueueGrows'" in _told(world, "Diagnosed"), "an Event says what was wrong", 30)


@contextmanager
def _standing_by(world: World) -> Iterator[None]:
    """Reacts to two alerts of an Alertmanager: the first is asked about as well, the second ends by itself."""

    def on(alert: str, **reaction: Any) -> dict[str, Any]:
        return {"matchers": [{"label": "alertname", "value": alert}], **reaction}

    more: dict[str, Any] = {"action": "scaleUp", "workers": 2}
    reactions = [
        on("QueueGrows", name="stand-by", duration="30m", **more),
        on("QueueGrows", name="explain", action="diagnose"),
        on("Spike", name="for-a-moment", duration="10s", **more),
    ]
    policy = resource("AlertPolicy", "react", "demo", interval="5s", receive={"matchers": []}, reactions=reactions)
    world.kubectl.apply(policy)
    try:
        world.wait("alertpolicy/react", "Ready")
        yield
    finally:
        world.kubectl("-n", "demo", "delete", "alertpolicy", "react", "--ignore-not-found")


@contextmanager
def _quota(world: World, **quota: int) -> Iterator[Callable[[], None]]:
    """Tenant acme has it inside the block, until what is yielded is called."""

    def allow(what: object) -> None:
        patch = json.dumps({"spec": {"quota": what}})
        world.kubectl("patch", "tenant", "acme", "--type=merge", "-p", patch)

    allow(quota)
    try:
        yield lambda: allow(None)
    finally:
        allow(None)


def _alertmanager_says(world: World, status: str, alert: str) -> None:
    """As one would post it to the operator that leads; again, as one would, until it is taken."""
    found = world.kubectl.get("-n", SYSTEM, "service", "foretide-alerts")
    labels = {"alertname": alert, "namespace": "demo", "service": "busy", "severity": "critical"}
    body = json.dumps({"version": "4", "alerts": [{"status": status, "labels": labels}]}).encode()
    url = f"http://{found['spec']['clusterIP']}{OPERATOR_PATH_ALERTS}"

    def taken() -> bool:
        request = urllib.request.Request(url, body, {"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status) == 200
        except OSError:
            return False

    until(taken, f"the operator takes '{alert}' {status}", 60, every_s=0.5)


def _floor(world: World) -> dict[str, Any]:
    found: dict[str, Any] = (world.status("busy").get("scaling") or {}).get("floor") or {}
    return found


def _diagnosis_that_names_the_quota(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.status("busy").get("diagnosis") or {"causes": []}
    return found if any("Tenant 'acme'" in one["evidence"] for one in found["causes"]) else {}


def _told(world: World, reason: str) -> str:
    """What Events about the service say, of this reason."""
    about = f"involvedObject.kind=InferenceService,involvedObject.name=busy,reason={reason}"
    return " ".join(one["message"] for one in world.kubectl.items("-n", "demo", "events", "--field-selector", about))


def _status(world: World, policy: str = "watch") -> dict[str, Any]:
    found: dict[str, Any] = (world.get(f"alertpolicy/{policy}") or {}).get("status") or {}
    return found


def _counts(world: World) -> tuple[int, int]:
    return int(_status(world).get("firing", 0)), int(_status(world).get("openIncidents", 0))


def _delivered(world: World) -> bool:
    incidents = _status(world).get("incidents") or [{}]
    return any(one.get("said") == "firing" for one in incidents[0].get("deliveries") or ())
