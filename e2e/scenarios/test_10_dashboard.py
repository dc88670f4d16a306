"""The dashboard as a person reaches it: port-forward to its Service, a token, the page and its numbers."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e2e.cluster import tools
from e2e.install import SYSTEM
from e2e.scenarios.world import World, until


@contextmanager
def forwarded(world: World) -> Iterator[str]:
    """The address of the page on this machine, from `kubectl port-forward`."""
    command = [str(tools.kubectl()), "--kubeconfig", str(world.kubectl.kubeconfig), "-n", SYSTEM]
    command += ["port-forward", "service/foretide-dashboard", ":80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "Forwarding from 127.0.0.1:" in line, line
            yield f"http://127.0.0.1:{line.split('127.0.0.1:')[1].split()[0]}"
        finally:
            process.terminate()


def ask(address: str, path: str, token: str | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(f"{address}{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def leaders(world: World) -> list[str]:
    pods = world.select("pods", "foretide.dev/leader=true", SYSTEM)
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def test_a_viewers_token_opens_the_dashboard_and_no_other_does(world: World) -> None:
    token = world.kubectl("-n", SYSTEM, "create", "token", "foretide-viewer").strip()
    nobody = world.kubectl("-n", "demo", "create", "token", "default").strip()
    with world.serving("shown"):
        until(lambda: leaders(world) == [world.leader()], "the leader's pod has the label, and no other")
        with forwarded(world) as address:
            assert "<title>Foretide</title>" in ask(address, "/")[1]
            assert ask(address, "/api/v1/services")[0] == 401
            status, said = ask(address, "/api/v1/services", nobody)
            assert (status, "may not list inferenceservices" in said) == (403, True)
            rows = json.loads(ask(address, "/api/v1/services?search=shown", token)[1])["items"]
            assert [(row["name"], row["servable"], row["tenant"]) for row in rows] == [("shown", "True", "acme")]

            def counted() -> bool:
                # A minute counts when it was watched for half of it at least, so one request may fall into none.
                world.ask("shown")
                chart = json.loads(ask(address, "/api/v1/services/demo/shown/chart?hours=1", token)[1])
                return any(value for value in (chart["load"] or {"values": []})["values"])

            until(counted, "answered requests are in the chart of the load", 200, every_s=5)


def test_the_dashboard_moves_with_the_lead(world: World) -> None:
    until(lambda: leaders(world) == [world.leader()], "the leader's pod has the label")
    before = world.leader()
    world.kubectl("-n", SYSTEM, "delete", "pod", before, "--wait=false")
    until(lambda: world.leader() not in ("", before), "another pod leads")
    until(lambda: leaders(world) == [world.leader()], "the label has moved with the lead")
    token = world.kubectl("-n", SYSTEM, "create", "token", "foretide-viewer").strip()

    def answers() -> bool:
        with forwarded(world) as address:
            return ask(address, "/api/v1/session", token)[0] == 200

    until(answers, "the new leader serves the page", 30, every_s=1)
