"""The control-plane tier against the real programs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from e2e.cluster.process import start_time
from e2e.cluster.shell import run, wait_until

pytestmark = pytest.mark.apiserver

OWNER = """
import json, sys, time
from e2e.cluster.controlplane import ControlPlane
plane = ControlPlane()
plane.start()
print(json.dumps({"directory": str(plane.directory), "pids": list(plane.pids().values())}), flush=True)
time.sleep(600)
"""


def kubectl(plane: ControlPlane, *arguments: str) -> str:
    return run([tools.kubectl(), "--kubeconfig", plane.kubeconfig, *arguments])


def test_the_kubeconfig_alone_is_enough_to_write_and_read(apiserver: ControlPlane) -> None:
    kubectl(apiserver, "create", "namespace", "kubeconfig-is-enough")
    kubectl(apiserver, "create", "configmap", "kept", "--namespace=kubeconfig-is-enough", "--from-literal=a=1")
    kept = json.loads(
        kubectl(apiserver, "get", "configmap", "kept", "--namespace=kubeconfig-is-enough", "--output=json")
    )
    assert kept["data"] == {"a": "1"}


def test_an_identity_without_a_role_is_refused(apiserver: ControlPlane) -> None:
    config = apiserver.client_kubeconfig("somebody")
    answer = subprocess.run(
        [tools.kubectl(), "--kubeconfig", config, "get", "pods"], capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert 'User "somebody" cannot list resource "pods"' in answer.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_api_server_keeps_its_address_and_its_objects(how: signal.Signals) -> None:
    with ControlPlane() as plane:
        kubectl(plane, "create", "namespace", "remembered")
        before = (plane.url, plane.pids())
        plane.restart_apiserver(how)
        assert plane.url == before[0]
        assert plane.pids()["etcd"] == before[1]["etcd"]
        assert plane.pids()["kube-apiserver"] != before[1]["kube-apiserver"]
        assert "remembered" in kubectl(plane, "get", "namespaces")


def test_two_control_planes_run_side_by_side_and_leave_nothing(apiserver: ControlPlane) -> None:
    with ControlPlane() as other:
        kubectl(other, "create", "namespace", "only-in-the-other")
        assert "only-in-the-other" not in kubectl(apiserver, "get", "namespaces")
        pids = [pid for pid in other.pids().values() if pid is not None]
    assert not other.directory.exists()
    assert [pid for pid in pids if start_time(pid) is not None] == []


def test_a_killed_owner_takes_its_control_plane_along(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert owner.stdout is not None
        told = json.loads(owner.stdout.readline())
        assert all(start_time(pid) is not None for pid in told["pids"])
    finally:
        owner.kill()
        owner.communicate()
    wait_until(lambda: all(start_time(pid) is None for pid in told["pids"]), "the end of the orphans", 10)
