"""Every block of commands in the handbook is run, but for commands of which it is said what CI lacks for them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.install import Kubectl, namespace
from forecasting.policy import to_json
from tests.cli.decided import HELD, UP
from tests.handbook.blocks import ROOT
from tests.handbook.running import NEEDS, need_of, scripts, unmarked
from tests.worker_image.tiny_gguf import tiny_llama, write_gguf

LIMIT_S = 300.0
SERVICE = """\
apiVersion: foretide.dev/v1alpha1
kind: InferenceService
metadata: {name: chat, namespace: demo}
spec:
  model: llama
  accelerator: {gpu: {count: 1}}
  scaling: {policy: reactive, min: 1, max: 4, targetConcurrency: 60}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The folder in which somebody types: the repository's charts and examples, and files that pages speak of."""
    for name in ("charts", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("service.yaml", "now.yaml", "edit.yaml"):
        (tmp_path / name).write_text(SERVICE)
    arrivals = "".join(f"{at},200,20\n" for at in range(0, 120, 2))
    (tmp_path / "load.csv").write_text(f"arrival_s,input_tokens,output_tokens\n{arrivals}")
    (tmp_path / "decisions.jsonl").write_text("".join(f"{to_json(one)}\n" for one in (UP, HELD)))
    write_gguf(tmp_path / "PATH", tiny_llama())
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster without nodes, and our programs where a shell finds them."""
    programs = tmp_path_factory.mktemp("bin")
    for name, run in (
        ("foretide", f'"{sys.executable}" -m cli'),
        ("kubectl-foretide", f'"{sys.executable}" -m cli'),
        ("python", f'"{sys.executable}"'),
        ("kubectl", f'"{tools.kubectl()}"'),
        ("helm", f'"{tools.helm()}"'),
    ):
        (programs / name).write_text(f'#!/bin/sh\nexec {run} "$@"\n')
        (programs / name).chmod(0o755)
    with ControlPlane(settings=Settings(controller_manager=True, node_lifecycle=False)) as plane:
        yield {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(programs),
            "KUBECONFIG": str(plane.kubeconfig),
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            **dict.fromkeys(("KEY", "TOKEN", "INTEGRATION_KEY", "WEBHOOK_URL"), "made-up"),
        }


def run(text: str, desk: Path, environment: dict[str, str]) -> str | None:
    """What it said, where it failed."""
    done = subprocess.run(
        ["bash", "-c", text], cwd=desk, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return None if done.returncode == 0 else f"ended with {done.returncode}\n{done.stdout[-500:]}{done.stderr[-1500:]}"


@pytest.mark.apiserver
def test_every_block_does_what_it_says(desk: Path, environment: dict[str, str]) -> None:
    kubectl = Kubectl(Path(environment["KUBECONFIG"]))
    # What pages take for granted: NVIDIA's operator, and a node with GPUs.
    kubectl.apply(namespace("gpu-operator"), {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1"}})
    failures = []
    for at, (block, text) in enumerate(scripts()):
        said = run(text, desk, environment)
        if said is not None:
            failures.append(f"{block}: {said}")
        if at == 0:  # People wait for the operator's pods here, of which this cluster has none.
            kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
    assert failures == [], "\n\n".join(failures)


def test_what_is_not_run_is_marked_above_its_block_or_in_the_table_and_the_table_has_nothing_else() -> None:
    commands = [command for block in unmarked() if block.kind == "console" for command in block.commands]
    assert [pattern for pattern in NEEDS if not any(re.search(pattern, command) for command in commands)] == []
    assert sum(need_of(command) is None for command in commands) > 60
    assert "helm upgrade --install foretide-crds" in scripts()[0][1]
    assert "helm uninstall" in scripts()[-1][1]
    assert sum(block.kind == "yaml" for block, _ in scripts()) > 3
