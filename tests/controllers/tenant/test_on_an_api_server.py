"""What a Tenant borrowed, as the schema takes it, and as it goes when nobody counts any more."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from controllers.apply import Applier
from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from kube.client import Client
from kube.connection import Connection
from kube.resources import TENANTS, Object

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).parents[3]
TOLD = {
    "cohort": "lab",
    "halfLife": "24h",
    "sampledAt": "2026-01-01T00:00:00Z",
    "average": {"gpus": "2.500", "migGigabytes": "0.125"},
    "standing": "gpus 71%/50%, migGigabytes 100%/50%",
}


def kubectl(server: ControlPlane, *arguments: str) -> str:
    command = [str(tools.kubectl()), "--kubeconfig", str(server.kubeconfig), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


async def test_what_was_borrowed_is_taken_as_it_is_and_goes_without_a_trace(apiserver: ControlPlane) -> None:
    kubectl(apiserver, "apply", "--server-side", "-f", str(ROOT / "crds/manifests"))
    kubectl(apiserver, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    async with Client(Connection.from_environment(apiserver.kubeconfig, None)) as client:
        spec: dict[str, Any] = {"namespaces": ["fair-share-tests"], "quota": {"gpus": 4}}
        made = {
            "apiVersion": TENANTS.api_version,
            "kind": TENANTS.kind,
            "metadata": {"name": "fair-share-tests"},
            "spec": spec | {"borrowing": {"cohort": "lab", "halfLife": "24h"}},
        }
        await client.apply(TENANTS, made, field_manager="a-person")

        async def seen() -> Object:
            return await client.get(TENANTS, None, "fair-share-tests")

        async def write(**status: Any) -> Object:
            before = await seen()
            await Applier(client).status(TENANTS, before, {"services": 1, **status}, before.get("status"))
            status_now: Object = (await seen())["status"]
            return status_now

        assert await write(fairShare=TOLD) == {"services": 1, "fairShare": TOLD}
        less = TOLD | {"average": {"gpus": "0.000"}, "standing": ""}
        assert await write(fairShare=less) == {"services": 1, "fairShare": less}
        wide = kubectl(apiserver, "get", "tenants", "-o", "wide")
        assert "BORROWED/DUE" in wide
        assert await write() == {"services": 1}
        await client.delete(TENANTS, None, "fair-share-tests")
