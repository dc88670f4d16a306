"""The agent as the process that a DaemonSet starts: flags, health, metrics, a Model from a file, and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from controllers.model_cache.errors import SettingsError
from controllers.model_cache.settings import parse
from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from e2e.ports import free_port
from kube.client import Client
from kube.connection import Connection
from kube.resources import MODELS, NAMESPACES, NODES
from tests.controllers.model_cache.files import gguf, sha256
from tests.waiting import eventually_blocking

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--root", "models"], r"--root 'models' is not an absolute path"),
        (["--cache-bytes", "12x"], r"--cache-bytes: quantity '12x' is not a number"),
        (["--cache-bytes", "0"], r"--cache-bytes must be greater than 0"),
        (["--keep-free-percent", "100"], r"--keep-free-percent is 100; write 0 to 99"),
        (["--allow-private-network", "10.0.0.0/99"], r"--allow-private-network: '10\.0\.0\.0/99' does not appear"),
        (["--file-root", "x"], r"--file-root 'x' is not an absolute path"),
    ],
)
def test_a_wrong_flag_is_named(flags: list[str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parse(["--node-name", "n", *flags])


def test_flags_become_settings() -> None:
    found = parse(["--node-name", "n", "--cache-bytes", "2Gi", "--file-root", "/a", "--file-root", "/b"], {})
    assert (found.cache_bytes, found.access.file_roots) == (2 << 30, (Path("/a"), Path("/b")))
    assert found.access.hf_endpoint is None


@pytest.mark.apiserver
async def test_the_process_fetches_reports_and_ends_cleanly(apiserver: ControlPlane, tmp_path: Path) -> None:
    await asyncio.to_thread(_install, apiserver)
    (tmp_path / "m.gguf").write_bytes(gguf())
    async with Client(Connection.from_environment(apiserver.kubeconfig)) as client:
        await client.create(NAMESPACES, {"metadata": {"name": "agent"}})
        await client.create(NODES, {"metadata": {"name": "agent-node"}})
        spec = {"source": f"file://{tmp_path}/m.gguf", "digest": sha256(gguf())}
        meta = {"namespace": "agent", "name": "m"}
        kind = {"apiVersion": MODELS.api_version, "kind": MODELS.kind}
        await client.create(MODELS, {**kind, "metadata": meta, "spec": spec})
        await asyncio.to_thread(_run_agent, apiserver, tmp_path)
        found = await client.get(MODELS, "agent", "m")
        await client.delete(NAMESPACES, None, "agent")
        await client.delete(NODES, None, "agent-node")
    (entry,) = found["status"]["nodes"]
    assert (entry["name"], entry["state"], entry["digest"]) == ("agent-node", "Cached", sha256(gguf()))


def _install(server: ControlPlane) -> None:
    kubectl = [str(tools.kubectl()), "--kubeconfig", str(server.kubeconfig)]
    manifests = ["-f", str(ROOT / "crds" / "manifests")]
    subprocess.run([*kubectl, "apply", "--server-side", *manifests], check=True, capture_output=True, timeout=60)
    subprocess.run([*kubectl, "wait", "--for=condition=Established", *manifests], check=True, capture_output=True)


def _run_agent(server: ControlPlane, folder: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "controllers.model_cache", "--node-name", "agent-node", "--host", "127.0.0.1"]
    command += ["--root", str(folder / "root"), "--file-root", str(folder), "--port", str(port)]
    command += ["--kubeconfig", str(server.kubeconfig), "--keep-free-percent", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually_blocking(
                lambda: "foretide_model_cache_copies 1.0" in _get(port, "/metrics"), "the copy is counted", 30
            )
            assert _get(port, "/healthz") == "ok\n"
            eventually_blocking(lambda: sha256(gguf()) in _digest(server), "the copy is in the Model's status", 30)
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    lines = [json.loads(line) for line in said.splitlines()]
    assert any("Model 'agent/m' is cached" in line["message"] for line in lines)
    assert (folder / "root" / "agent" / "m" / "m.gguf").read_bytes() == gguf()


def _digest(server: ControlPlane) -> str:
    kubectl = [str(tools.kubectl()), "--kubeconfig", str(server.kubeconfig), "--namespace", "agent"]
    found = [*kubectl, "get", "models.foretide.dev", "m", "-o", "jsonpath={.status.nodes[*].digest}"]
    return subprocess.run(found, check=True, capture_output=True, text=True, timeout=30).stdout


def _get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""
