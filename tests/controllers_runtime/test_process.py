"""The operator as a process, against a real API server: leading, stopping, dying, converging.

How fast it stops and is replaced is in `test_loop.py` and `tests/kube/test_lease.py`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from e2e.ports import free_port
from tests.waiting import eventually_blocking

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "crds" / "manifests"


class Cluster:
    """kubectl, as a person would."""

    def __init__(self, server: ControlPlane) -> None:
        self.server = server

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        command = [str(tools.kubectl()), "--kubeconfig", str(self.server.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def declare(self, name: str, note: str) -> None:
        model = {
            "apiVersion": "foretide.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"namespace": "default", "name": name, "labels": {"note": note}},
            "spec": {"source": "file:///models/a.gguf"},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(model))

    def copy_of(self, name: str) -> str | None:
        found = self.kubectl("get", "configmap", name, "--ignore-not-found", "-o", "jsonpath={.data.note}")
        return found or None

    def leader(self) -> str:
        return self.kubectl(
            "get", "lease", "foretide-operator", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}"
        )


class Operator:
    """One process."""

    def __init__(self, server: ControlPlane, identity: str, log: Path, *extra: str) -> None:
        self.port, self.identity, self.log_file = free_port(), identity, log / f"{identity}.log"
        self._log = self.log_file.open("w")
        command = [sys.executable, "-m", "tests.controllers_runtime.process", str(server.kubeconfig)]
        self.process = subprocess.Popen([*command, str(self.port), identity, *extra], stderr=self._log, cwd=ROOT)

    def fetch(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def is_ready(self) -> bool:
        return self.fetch("/readyz")[0] == 200

    def leads(self) -> bool:
        return '\nforetide_leader{lease="foretide-operator"} 1.0' in self.fetch("/metrics")[1]

    def metric(self, pattern: str) -> float:
        lines = re.findall(rf"^{pattern} (\S+)$", self.fetch("/metrics")[1], re.MULTILINE)
        return sum(float(line) for line in lines)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self._log.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ControlPlane() as server:
        made = Cluster(server)
        made.kubectl("apply", "-f", str(MANIFESTS))
        made.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(MANIFESTS))
        yield made


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    started: list[Operator] = []

    def start_one(identity: str, *extra: str) -> Operator:
        started.append(Operator(cluster.server, identity, tmp_path, *extra))
        return started[-1]

    yield start_one
    for one in started:
        one.close()
    cluster.kubectl("delete", "lease", "foretide-operator", "--ignore-not-found")


def leading(start: Any, identity: str) -> Operator:
    operator: Operator = start(identity)
    eventually_blocking(operator.leads, f"{identity} leads", 60)
    return operator


def test_what_was_declared_before_the_start_is_done_and_drift_and_deletion_are_undone(
    cluster: Cluster, start: Any
) -> None:
    cluster.declare("before", "1")
    operator = leading(start, "heals")
    eventually_blocking(lambda: cluster.copy_of("before") == "1", "the copy")
    cluster.declare("before", "2")
    eventually_blocking(lambda: cluster.copy_of("before") == "2", "the edit")
    cluster.kubectl("patch", "configmap", "before", "--type=merge", "-p", '{"data":{"note":"drift"}}')
    eventually_blocking(lambda: cluster.copy_of("before") == "2", "the correction")
    cluster.kubectl("delete", "configmap", "before")
    eventually_blocking(lambda: cluster.copy_of("before") == "2", "the new copy")
    assert operator.is_ready()
    assert operator.fetch("/healthz") == (200, "ok\n")


def test_a_stop_gives_the_lease_back_and_a_restart_writes_nothing(cluster: Cluster, start: Any) -> None:
    cluster.declare("quiet", "1")
    first = leading(start, "quiet-1")
    eventually_blocking(lambda: cluster.copy_of("quiet") == "1", "the copy")
    assert first.end(signal.SIGTERM) == 0
    assert cluster.leader() == ""
    second = leading(start, "quiet-2")
    eventually_blocking(lambda: second.metric(r"foretide_reconciles_total\{.*\}") >= 1, "a look at everything")
    eventually_blocking(lambda: second.metric("foretide_queue_depth") == 0, "the queue to be empty")
    assert second.metric(r"foretide_api_writes_total\{.*\}") == 0


def test_a_standby_is_ready_and_takes_over_after_a_clean_stop(cluster: Cluster, start: Any) -> None:
    first = leading(start, "clean-1")
    second = start("clean-2")
    eventually_blocking(second.is_ready, "the standby is ready", 60)
    assert not second.leads()
    assert second.fetch("/pages/load") == (200, "load True"), "a standby watches, and shows its pages"
    assert second.fetch("/pages/load?refuse=1") == (400, "refuse is not allowed.\n")
    assert first.end(signal.SIGTERM) == 0
    eventually_blocking(second.leads, "the standby leads")
    cluster.declare("after-stop", "1")
    eventually_blocking(lambda: cluster.copy_of("after-stop") == "1", "work by the new leader")


def test_a_killed_leader_is_replaced(cluster: Cluster, start: Any) -> None:
    first = leading(start, "killed-1")
    second = start("killed-2")
    eventually_blocking(second.is_ready, "the standby is ready", 60)
    first.end(signal.SIGKILL)
    cluster.declare("while-away", "1")
    eventually_blocking(lambda: cluster.copy_of("while-away") == "1", "what was declared meanwhile", 60)


def test_a_leader_that_was_frozen_exits_when_it_wakes(cluster: Cluster, start: Any) -> None:
    first = leading(start, "frozen-1")
    second = start("frozen-2")
    eventually_blocking(second.is_ready, "the standby is ready", 60)
    os.kill(first.process.pid, signal.SIGSTOP)
    eventually_blocking(second.leads, "the standby leads")
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.process.wait(60) == 1
    assert "lost the lease" in first.log_file.read_text() or "lease ran out" in first.log_file.read_text()


def test_a_loop_that_ends_ends_the_process_with_one_clear_line(cluster: Cluster, start: Any) -> None:
    cluster.declare("any", "1")
    operator = start("fails", "fail")
    assert operator.process.wait(60) == 1
    critical = [json.loads(line) for line in operator.log_file.read_text().splitlines() if '"critical"' in line]
    assert [one["message"] for one in critical] == [
        "the loop that ends ended: without an error. The operator exits; its restart continues."
    ]
    assert cluster.leader() == "", "the lease was given back"


def test_after_a_restart_of_the_api_server_work_goes_on(cluster: Cluster, start: Any) -> None:
    operator = leading(start, "outage")
    cluster.server.restart_apiserver(signal.SIGKILL)
    cluster.declare("after-outage", "1")
    if operator.process.poll() is not None:  # The outage outlasted the lease; the kubelet would start it again.
        operator = leading(start, "outage-again")
    eventually_blocking(lambda: cluster.copy_of("after-outage") == "1", "work after the outage", 60)


def test_when_kopf_ends_the_process_ends_and_the_next_one_works(cluster: Cluster, start: Any) -> None:
    operator = leading(start, "loses-a-kind")
    cluster.declare("any", "1")
    eventually_blocking(lambda: operator.metric(r"foretide_kopf_events_total\{.*\}") > 0, "Kopf sees a Model", 60)
    cluster.kubectl("delete", "crd", "models.foretide.dev")  # Kopf ends at a 404, as at several other answers.
    assert operator.process.wait(60) == 1
    critical = [line for line in operator.log_file.read_text().splitlines() if '"critical"' in line]
    assert len(critical) == 1
    assert "Kopf ended" in critical[0]
    cluster.kubectl("apply", "-f", str(MANIFESTS))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(MANIFESTS))
    leading(start, "sees-it-again")
    cluster.declare("again", "1")
    eventually_blocking(lambda: cluster.copy_of("again") == "1", "the copy", 30)


def test_a_finalizer_or_annotation_of_kopf_is_never_written(cluster: Cluster, start: Any) -> None:
    leading(start, "marks")
    cluster.declare("unmarked", "1")
    eventually_blocking(lambda: cluster.copy_of("unmarked") == "1", "the copy")
    meta = json.loads(cluster.kubectl("get", "model", "unmarked", "-o", "json"))["metadata"]
    assert "finalizers" not in meta
    assert list(meta["annotations"]) == ["kubectl.kubernetes.io/last-applied-configuration"]
