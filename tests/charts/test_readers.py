"""What a reader may do, asked of a real API server: all that the command needs, and nothing that changes a thing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cli.decisions import LEADER
from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from tests.charts.test_foretide import objects

SYSTEM = "foretide-system"
DANA = ["--as", "dana", "--as-group", "ml-team"]
MAY = [
    "list inferenceservices.foretide.dev -A",
    "watch gpupools.foretide.dev",
    "list pods -n demo",
    "get nodes",
    "list events -n demo",
    f"get services/{LEADER} --subresource=proxy -n {SYSTEM}",
]
MAY_NOT = [
    f"get services/foretide-gateway-admin:admin --subresource=proxy -n {SYSTEM}",
    f"get pods/foretide-gateway-0:8081 --subresource=proxy -n {SYSTEM}",
    f"create services/{LEADER} --subresource=proxy -n {SYSTEM}",
    "get services/chat:admin --subresource=proxy -n demo",
    "patch inferenceservices.foretide.dev -n demo",
    f"get secrets -n {SYSTEM}",
    "list secrets -n demo",
    "create pods -n demo --subresource=exec",
]


@pytest.fixture(scope="module")
def kubectl(apiserver: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """With the chart's roles of readers bound to a group, and our kinds installed."""
    command = [str(tools.kubectl()), "--kubeconfig", str(apiserver.kubeconfig)]
    readers = json.dumps([{"kind": "Group", "name": "ml-team"}])
    made = [one for one in objects("--set-json", f"readers={readers}") if one["metadata"]["name"] == "foretide-reader"]
    file = tmp_path_factory.mktemp("readers") / "roles.yaml"
    file.write_text(yaml.safe_dump_all(made))
    subprocess.run([*command, "create", "namespace", SYSTEM], capture_output=True, timeout=60, check=False)
    for manifests in (Path(__file__).parents[2] / "crds/manifests", file):
        apply = [*command, "apply", "--server-side", "--force-conflicts", "-f", str(manifests)]
        subprocess.run(apply, check=True, capture_output=True, timeout=60)
    return command


def can(kubectl: list[str], question: str) -> str:
    asked = [*kubectl, "auth", "can-i", *question.split(), *DANA]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split()[0] if done.stdout else done.stderr


@pytest.mark.apiserver
@pytest.mark.parametrize(("questions", "answer"), [(MAY, "yes"), (MAY_NOT, "no")], ids=["may", "may not"])
def test_a_reader_may_ask_why_and_change_nothing(kubectl: list[str], questions: list[str], answer: str) -> None:
    assert {question: can(kubectl, question) for question in questions} == dict.fromkeys(questions, answer)
