"""The process of GPU pools under its own account, on a real API server, killed at every step of a repartition."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.install import SYSTEM, Kubectl
from e2e.mig_manager import NAMESPACE, MigManager, offer
from e2e.ports import free_port
from tests.plans.mig.pool_world import node
from tests.waiting import eventually_blocking

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).parents[2]
ACCOUNT = f"system:serviceaccount:{SYSTEM}:foretide-gpu-pools"
LABELS = {"pool": "killed"}


@pytest.fixture(scope="module")
def apiserver() -> Iterator[ControlPlane]:
    """One with Kubernetes' own scheduler."""
    with ControlPlane(settings=Settings(scheduler=True)) as running:
        yield running


@pytest.fixture(scope="module")
def kubectl(apiserver: ControlPlane) -> Kubectl:
    """The CRDs, the namespaces, and the rights that the chart gives to GPU pools, and no others."""
    it = Kubectl(apiserver.kubeconfig)
    it("apply", "--server-side", "-f", str(ROOT / "crds" / "manifests"))
    for name in (SYSTEM, NAMESPACE, "demo"):
        it.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    chart = [
        str(tools.helm()),
        "template",
        "foretide",
        str(ROOT / "charts/foretide"),
        "-n",
        SYSTEM,
        "--kube-version",
        "1.35.0",
    ]
    done = subprocess.run(
        [*chart, "--set", "gpuPools.enabled=true"], capture_output=True, text=True, timeout=60, check=True
    )
    roles = [
        obj
        for obj in yaml.safe_load_all(done.stdout)
        if obj and obj["metadata"]["name"] == "foretide-gpu-pools" and "rbac" in obj["apiVersion"]
    ]
    it.apply(*roles)
    it.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "demo", "name": "default"}})
    return it


@contextmanager
def running(apiserver: ControlPlane, log: Path) -> Iterator[Callable[[], None]]:
    """The real process; the value kills it and starts it again."""
    kubeconfig = apiserver.client_kubeconfig(ACCOUNT)
    processes: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        command = [sys.executable, "operator/main.py", "--manage=gpu-pools", f"--kubeconfig={kubeconfig}"]
        command += ["--host=127.0.0.1", f"--port={free_port()}", "--lease-name=foretide-gpu-pools"]
        with log.open("ab") as file:
            processes.append(subprocess.Popen(command, stderr=file, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}))

    def strike() -> None:
        processes[-1].send_signal(signal.SIGKILL)
        processes[-1].wait(10)
        begin()

    begin()
    try:
        yield strike
    finally:
        processes[-1].send_signal(signal.SIGTERM)
        processes[-1].wait(20)


def declare(kubectl: Kubectl) -> None:
    """Two nodes of one whole H100 each, and a service that wants slices of both."""
    for name in ("gpu-a", "gpu-b"):
        one = node(name)
        labels = one["metadata"]["labels"] | LABELS
        kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "It", "message": "is"}]}}
        kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(ready))
        offer(kubectl, name, {"nvidia.com/gpu": 1, "cpu": 4, "memory": 2**33, "pods": 20})
        # The API server taints new nodes until a controller that is not here sees them ready.
        kubectl("patch", "node", name, "--type=merge", "-p", '{"spec": {"taints": null}}')
    api = {"apiVersion": "foretide.dev/v1alpha1"}
    service = {"model": "m", "accelerator": {"mig": {"profile": "1g.10gb"}}, "replicas": 14}
    spec = {"nodeSelector": LABELS, "repartition": {"maxPercentAtOnce": 50}}
    kubectl.apply(
        api | {"kind": "InferenceService", "metadata": {"namespace": "demo", "name": "small"}, "spec": service},
        api | {"kind": "GPUPool", "metadata": {"name": "killed"}, "spec": spec},
    )


def worker(number: int) -> dict[str, Any]:
    """What the scheduler sees of a worker: its slice."""
    limits = {"nvidia.com/mig-1g.10gb": "1"}
    container = {"name": "worker", "image": "none", "resources": {"limits": limits}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "demo", "name": f"w{number}", "labels": {"foretide.dev/inference-service": "small"}},
        "spec": {"automountServiceAccountToken": False, "containers": [container]},
    }


def places(kubectl: Kubectl) -> Counter[str]:
    """Workers by node."""
    pods = kubectl.items("pods", "-n", "demo")
    return Counter(pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName"))


def steps(kubectl: Kubectl) -> set[tuple[str, str]]:
    """Which step of which node is recorded now."""
    found = set()
    for one in kubectl.items("nodes", "-l", "pool=killed"):
        text = (one["metadata"].get("annotations") or {}).get("foretide.dev/repartition")
        if text:
            found.add((one["metadata"]["name"], json.loads(text)["step"]))
    return found


def pool(kubectl: Kubectl) -> dict[str, Any]:
    found = kubectl.get("gpupool", "killed") or {}
    status: dict[str, Any] = found.get("status", {})
    return status


def ready(kubectl: Kubectl) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" and one["reason"] == "AsPlanned"
        for one in pool(kubectl).get("conditions", [])
    )


def test_killed_at_every_step_both_nodes_are_cut_once_and_the_scheduler_fills_their_slices(
    apiserver: ControlPlane, kubectl: Kubectl, tmp_path: Path
) -> None:
    struck: set[tuple[str, str]] = set()
    with MigManager(kubectl, delay_s=3.0) as manager, running(apiserver, tmp_path / "log") as strike:
        declare(kubectl)

        def done() -> bool:
            for step in sorted(steps(kubectl) - struck):
                struck.add(step)
                strike()
            return ready(kubectl)

        for number in range(15):
            kubectl.apply(worker(number))
        try:
            eventually_blocking(done, "both nodes are cut as planned", within_s=180)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{pool(kubectl)}\n{(tmp_path / 'log').read_text()[-3000:]}") from None
        finally:
            kubectl("delete", "gpupool", "killed", "--timeout=60s")
        eventually_blocking(lambda: sum(places(kubectl).values()) == 14, "the scheduler has used all slices")
    assert places(kubectl) == {"gpu-a": 7, "gpu-b": 7}, "15 ask for a slice each, 14 slices were planned"
    assert {step for _, step in struck} >= {"ask"}
    assert len(struck) >= 2
    assert sorted(name for name, _ in manager.cuts) == ["gpu-a", "gpu-b"], "nobody was asked twice"
    assert not manager.violations
    for one in kubectl.items("nodes", "-l", "pool=killed"):
        assert one["status"]["allocatable"]["nvidia.com/mig-1g.10gb"] == "7"
        assert "nvidia.com/gpu" not in one["status"]["allocatable"]
        assert not one["spec"].get("unschedulable")
