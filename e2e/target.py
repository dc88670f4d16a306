"""Which cluster the demo and the scenarios use: the one that KUBECONFIG names, kind where Docker runs, else our own.

Only the own cluster may be broken by scenarios. Images are built for the own one and for kind; a given cluster must be
able to pull them (FORETIDE_IMAGE_REGISTRY, FORETIDE_IMAGE_TAG).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e import checkpoint
from e2e.cluster import layout, paths, tools
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import content_tag
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run, wait_until
from e2e.install import SYSTEM, Kubectl

TAG = "dev"
KIND_NAME = "foretide"
IMAGES = ("operator", "gateway", "worker-cpu")
PUBLIC_SOURCE = "hf://bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q8_0.gguf"


@dataclass(frozen=True)
class Target:
    """A cluster that is up, with our images within its reach."""

    name: str
    kubectl: Kubectl
    chart_values: dict[str, Any]
    model_source: str
    local_model: bool
    """Whether `model_source` is the checkpoint of this machine, whose digest is known."""
    cluster: Cluster | None
    remove: Callable[[], None]

    @contextlib.contextmanager
    def gateway(self) -> Iterator[str]:
        """Base URL of the gateway for clients on this machine, for as long as the block lasts."""
        if self.cluster is not None:
            yield self._node_port_url()
            return
        with _forwarded(self.kubectl) as port:
            yield f"http://127.0.0.1:{port}/v1"

    def _node_port_url(self) -> str:
        service = self.kubectl.get("-n", SYSTEM, "service", "foretide-gateway")
        return f"http://{layout.NodeLayout(1, Path()).address}:{service['spec']['ports'][0]['nodePort']}/v1"


def choose(nodes: int, progress: Progress) -> Target:
    """The cluster to use, started when it does not run."""
    if os.environ.get("KUBECONFIG"):
        return _given(Path(os.environ["KUBECONFIG"]))
    if shutil.which("kind") and _docker_runs():
        return _kind(progress)
    return _own(nodes, progress)


def _given(kubeconfig: Path) -> Target:
    image = {"registry": os.environ.get("FORETIDE_IMAGE_REGISTRY", ""), "tag": os.environ.get("FORETIDE_IMAGE_TAG", "")}
    source = os.environ.get("FORETIDE_MODEL_SOURCE", PUBLIC_SOURCE)
    return Target(f"the cluster of {kubeconfig}", Kubectl(kubeconfig), {"image": image}, source, False, None, _nothing)


def _own(nodes: int, progress: Progress) -> Target:
    _as_root("up", "--nodes", str(nodes))
    tag = content_tag()
    _as_root("images", "--tag", tag)
    cluster = Cluster(progress)
    model = checkpoint.path()
    values = {
        "image": {"tag": tag},
        "gateway": {"service": {"type": "NodePort"}},
        "modelCache": {
            "fileRoots": [str(model.parent)],
            "allowPrivateNetworks": [f"{layout.HOST_ADDRESS}/32"],
        },
    }

    def remove() -> None:
        _as_root("down")

    return Target(
        "a cluster on this machine", Kubectl(cluster.kubeconfig), values, f"file://{model}", True, cluster, remove
    )


def _as_root(*arguments: str) -> None:
    """`python -m e2e.cluster …`, which calls itself again through sudo where that is needed."""
    subprocess.run([sys.executable, "-m", "e2e.cluster", *arguments], check=True, stdout=subprocess.DEVNULL)


def _docker_runs() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def _kind(progress: Progress) -> Target:
    """A kind cluster named `foretide`; the checkpoint is mounted into its node."""
    kubeconfig = paths.state_dir().with_name("kind.kubeconfig")
    model = checkpoint.path()
    if KIND_NAME not in run(["kind", "get", "clusters"]).split():
        config = (
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n  extraMounts:\n"
            f"  - {{hostPath: {model.parent}, containerPath: /srv/models, readOnly: true}}\n"
        )
        with progress.step("Create the kind cluster"):
            run(["kind", "create", "cluster", "--name", KIND_NAME, "--config", "-"], stdin=config)
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    kubeconfig.write_text(run(["kind", "get", "kubeconfig", "--name", KIND_NAME]))
    for name, folder in zip(IMAGES, ("operator", "gateway", "worker_image"), strict=True):
        image = f"foretide/{name}:{TAG}"
        with progress.step(f"Build {image}"):
            run(
                ["docker", "build", "-q", "-t", image, "-f", paths.REPOSITORY / folder / "Dockerfile", paths.REPOSITORY]
            )
        with progress.step(f"Load {image}"):
            run(["kind", "load", "docker-image", image, "--name", KIND_NAME])
    values = {"image": {"tag": TAG}, "modelCache": {"fileRoots": ["/srv/models"]}}

    def remove() -> None:
        run(["kind", "delete", "cluster", "--name", KIND_NAME])

    return Target("kind", Kubectl(kubeconfig), values, f"file:///srv/models/{model.name}", True, None, remove)


@contextlib.contextmanager
def _forwarded(kubectl: Kubectl) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command: list[str | Path] = [tools.kubectl(), "--kubeconfig", kubectl.kubeconfig, "-n", SYSTEM, "port-forward"]
    forward = subprocess.Popen([*command, "service/foretide-gateway", f"{port}:8080"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), "the forwarded port of the gateway", 20)
        yield port
    finally:
        forward.terminate()
        forward.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _nothing() -> None:
    """A given cluster is not ours to remove."""
