"""One release in a cluster: what docs/start/cluster.md says of a second one, asked of Helm and a real API server."""

from __future__ import annotations

import subprocess

import pytest

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from tests.charts.test_foretide import CHART


@pytest.mark.apiserver
def test_helm_refuses_a_second_release_in_another_namespace() -> None:
    # A server of its own: on a shared one stand objects of other tests, which Helm refuses, too.
    with ControlPlane() as server:
        helm = [str(tools.helm()), "--kubeconfig", str(server.kubeconfig), "install", "foretide", str(CHART)]
        first, second = (
            subprocess.run(
                [*helm, "--create-namespace", "--namespace", namespace],
                capture_output=True, text=True, timeout=120, check=False,
            )
            for namespace in ("foretide-system", "elsewhere")
        )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert second.returncode != 0
    assert "invalid ownership metadata" in second.stderr
