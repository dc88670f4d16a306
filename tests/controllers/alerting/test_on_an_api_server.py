"""A status that the schema takes, rules where nobody knows PrometheusRules, and quiet once all is said."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from kube.client import Client
from kube.connection import Connection
from kube.resources import ALERT_POLICIES, CONFIG_MAPS, INFERENCE_SERVICES, NAMESPACES, Object, Resource
from tests.controllers.alerting.receivers import receiving
from tests.controllers.alerting.world import DOWN, World
from tests.waiting import eventually, eventually_told, quiet_for

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).parents[3]
NAMESPACE = "alert-tests"


def kubectl(server: ControlPlane, *arguments: str) -> str:
    command = [str(tools.kubectl()), "--kubeconfig", str(server.kubeconfig), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


async def put(client: Client, resource: Resource, name: str, **fields: Any) -> Object:
    meta = {"name": name} | ({"namespace": NAMESPACE} if resource.namespaced else {})
    manifest = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **fields}
    return await client.apply(resource, manifest, field_manager="a-person")


async def serve(client: Client, *, servable: bool) -> None:
    status = "True" if servable else "False"
    since = "2026-01-01T00:00:00Z"
    condition = {"type": "Servable", "status": status, "reason": "x", "message": "", "lastTransitionTime": since}
    manifest = {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": INFERENCE_SERVICES.kind,
        "metadata": {"name": "chat", "namespace": NAMESPACE},
        "status": {"conditions": [condition], "desiredReplicas": 2, "readyReplicas": 1},
    }
    await client.apply(INFERENCE_SERVICES, manifest, field_manager="another", subresource="status")


class Watched:
    """The status of a policy, read again and again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.status: Object = {}

    async def until(self, holds: Callable[[Object], object], what: str) -> None:
        async def look() -> object:
            self.status = (await self._client.get(ALERT_POLICIES, NAMESPACE, "watch")).get("status") or {}
            return holds(self.status)

        await eventually_told(look, lambda: f"{what}; last seen: {self.status}")


async def versions(client: Client) -> list[str]:
    """Of all that is written. A question whether the cluster knows PrometheusRules by now changes none."""
    found = [
        await client.get(ALERT_POLICIES, NAMESPACE, "watch"),
        await client.get(CONFIG_MAPS, NAMESPACE, "foretide-alerts-watch"),
    ]
    return [one["metadata"]["resourceVersion"] for one in found]


async def test_the_status_is_taken_as_it_is_and_nothing_is_written_once_all_is_said(
    apiserver: ControlPlane, tmp_path: Path
) -> None:
    kubectl(apiserver, "apply", "--server-side", "-f", str(ROOT / "crds/manifests"))
    kubectl(apiserver, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    world = World(tmp_path / "history.sqlite")
    async with Client(Connection.from_environment(apiserver.kubeconfig, None)) as client, receiving() as receiver:
        await put(client, NAMESPACES, NAMESPACE)
        await put(client, INFERENCE_SERVICES, "chat", spec={"model": "m", "accelerator": {"cpu": {}}})
        await serve(client, servable=False)
        spec = {
            "rules": [DOWN, {"name": "slow", "metric": "requests", "threshold": {"below": "1"}}],
            "receivers": [{"name": "hook", "webhook": {"url": receiver.url}}],
            "grouping": {"by": ["incident", "service"], "wait": "1s"},
            "export": True,
        }
        await put(client, ALERT_POLICIES, "watch", spec=spec)
        seen = Watched(client)
        async with world.operator(client=client):
            await seen.until(lambda status: status.get("incidents") and not status["undelivered"], "it is told")
            assert seen.status["incidents"][0]["group"] == {"service": "chat"}
            assert seen.status["exported"] == "ConfigMap/foretide-alerts-watch"
            rules = await client.get(CONFIG_MAPS, NAMESPACE, "foretide-alerts-watch")
            assert len(yaml.safe_load(rules["data"]["rules.yaml"])["groups"][0]["rules"]) == 2
            shown = kubectl(apiserver, "-n", NAMESPACE, "get", "alp").splitlines()
            assert shown[0].split() == [
                "NAME", "FIRING", "PENDING", "MUTED", "INCIDENTS", "UNDELIVERED", "READY", "AGE",
            ]  # fmt: skip
            assert shown[1].split()[:7] == ["watch", "1", "0", "0", "1", "0", "True"]
            await quiet_for(lambda: client.writes, 3.0)
        said = await versions(client)
        async with world.operator(client=client) as wired:
            await eventually(lambda: wired.metrics._desk.books(), "the second operator looked")
            assert await versions(client) == said
            await serve(client, servable=True)
            await eventually(lambda: len(receiver.came) == 2, "it is over")
            await seen.until(lambda status: status.get("openIncidents") == 0, "it shows")
    kubectl(apiserver, "delete", "namespace", NAMESPACE, "--wait=false")
