"""Which cluster the demo and the scenarios use: the one that KUBECONFIG names, kind where Docker runs, else our own.

Only the own cluster may be broken by scenarios. Images are built for the own one and for kind; a given cluster must be
able to pull them (FORETIDE_IMAGE_REGISTRY, FORETIDE_IMAGE_TAG).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from e2e import checkpoint
from e2e.cluster import kind, layout, tools
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.images import content_tag
from e2e.cluster.progress import Progress
from e2e.cluster.shell import wait_until
from e2e.install import SYSTEM, Kubectl
from e2e.ports import free_port

PUBLIC_SOURCE = "hf://bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q8_0.gguf"
KEEP_FREE_PERCENT = 5
"""The disk is that of this machine, and the kubelets of these nodes evict below 1 % only."""


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
    """The cluster to use, started when it does not run. A KUBECONFIG of our own cluster, or of kind's, names that one,
    which then stays.

    Raises:
        ClusterError: KUBECONFIG names a cluster that our images cannot come to.
    """
    given = os.environ.get("KUBECONFIG")
    if not given:
        return _kind(progress) if kind.is_possible() else _own(nodes, progress)
    if Path(given).resolve() == Cluster().kubeconfig.resolve():
        return replace(_own(nodes, progress), remove=_nothing)
    if Path(given).resolve() == kind.kubeconfig().resolve():
        return replace(_kind(progress), remove=_nothing)
    return _given(given)


def _given(kubeconfig: str) -> Target:
    if os.pathsep in kubeconfig:
        raise ClusterError(f"KUBECONFIG names several files, {kubeconfig}. Name the one of the cluster to use.")
    registry, tag = (os.environ.get(f"FORETIDE_IMAGE_{name}", "") for name in ("REGISTRY", "TAG"))
    if not registry and not tag:
        raise ClusterError(
            f"KUBECONFIG={kubeconfig} names a cluster of yours, and nothing says where its nodes pull the images from."
            " Push them as docs/start/cluster.md shows and set FORETIDE_IMAGE_REGISTRY to the registry"
            " (FORETIDE_IMAGE_TAG where the tag is not the chart's version, or they lie on its nodes); or unset"
            " KUBECONFIG to use a cluster on this machine."
        )
    image = {"registry": registry, "tag": tag}
    source = os.environ.get("FORETIDE_MODEL_SOURCE", PUBLIC_SOURCE)
    name = f"the cluster of {kubeconfig}"
    return Target(name, Kubectl(Path(kubeconfig)), {"image": image}, source, False, None, _nothing)


def _own(nodes: int, progress: Progress) -> Target:
    _as_root("up", "--nodes", str(nodes))
    tag = content_tag()
    _as_root("images", "--tag", tag)
    cluster = Cluster(progress)
    model = checkpoint.kept()
    values = {
        "image": {"tag": tag},
        "gateway": {"service": {"type": "NodePort"}},
        "modelCache": {
            "keepFreePercent": KEEP_FREE_PERCENT,
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


def _kind(progress: Progress) -> Target:
    model = checkpoint.kept()
    kind.up(model.parent, progress)
    values = {
        "image": {"tag": kind.load_images(progress)},
        "modelCache": {"fileRoots": [kind.MODELS], "keepFreePercent": KEEP_FREE_PERCENT},
    }
    source = f"file://{kind.MODELS}/{model.name}"
    return Target("kind", Kubectl(kind.kubeconfig()), values, source, True, None, kind.down)


@contextlib.contextmanager
def _forwarded(kubectl: Kubectl) -> Iterator[int]:
    port = free_port()
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
