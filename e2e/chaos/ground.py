"""What a campaign stands on: Foretide with paced workers, GPU pools and a Prometheus, tiny models, and its services.

Everything of a campaign is in the namespace `chaos`, of a tenant of that name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from e2e.chaos.host import Host
from e2e.cluster import layout
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import PACED_WORKER
from e2e.install import Kubectl, install, namespace, resource, tenant_key
from e2e.mig_manager import CONFIG, NAMESPACE, STATE, MigManager, offer
from e2e.prometheus import StandInPrometheus
from e2e.target import Target
from tests.worker_image.tiny_gguf import Shape, tiny_llama, write_gguf

HOME: Final = "chaos"
"""Namespace, tenant."""
LANES: Final = ("anna", "bela", "cara", "dora")
GPU_SERVICE: Final = "gina"
N_WORKERS: Final = 2
MODEL, OTHER_MODEL = "tiny", "tiny-otherwise"
_PRODUCT: Final = "NVIDIA-H100-80GB-HBM3"
_GPU_LABELS: Final = {"foretide.test/pool": "gpus", "nvidia.com/gpu.product": _PRODUCT, "nvidia.com/gpu.count": "1"}
_GPU_ANNOTATIONS: Final = ("foretide.dev/mig-layout", "foretide.dev/repartition")
_PROFILE: Final = "1g.10gb"
_ROLLOUT: Final = {
    "strategy": "canary",
    "steps": [{"weight": 30, "duration": "5s"}],
    "analysis": {"minRequests": 50},
    "guardrails": {"readyTimeout": "45s"},
    "outputs": {"prompts": ["one, two, three", "Say after me: four"], "maxTokens": 16},
    "drainTimeout": "10s",
    "revisionHistoryLimit": 1,
}


@dataclass(frozen=True)
class Ground:
    """A cluster made ready. `url` is where clients ask, `files` is where models are fetched from."""

    kubectl: Kubectl
    cluster: Cluster
    host: Host
    url: str
    key: str
    files: Files
    prometheus: StandInPrometheus
    gpu_nodes: bool

    def service(self, name: str, **changes: Any) -> dict[str, Any]:
        """The InferenceService of a lane; `changes` replaces fields of its spec."""
        cpu = {"cpu": {"cores": "100m", "memory": "900Mi"}}
        mig = {"mig": {"profile": _PROFILE, "cores": "100m", "memory": "1200Mi"}}
        spec = {
            "model": MODEL,
            "accelerator": mig if name == GPU_SERVICE else cpu,
            "replicas": N_WORKERS,
            "engine": {"maxModelLen": 1024, "kvCache": "32Mi"},
            "rollout": _ROLLOUT,
        }
        if "scaling" in changes:
            del spec["replicas"]
        return resource("InferenceService", name, HOME, **(spec | changes))

    def apply(self, name: str, **changes: Any) -> None:
        self.kubectl.apply(self.service(name, **changes))


class Files:
    """Model files and the HTTP server that nodes fetch them from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for seed, name in enumerate((MODEL, OTHER_MODEL), 1):
            write_gguf(folder / f"{name}.gguf", tiny_llama(Shape(context=1024), seed=seed))
        handler = functools.partial(_Handler, directory=str(folder))
        self._server = ThreadingHTTPServer((layout.HOST_ADDRESS, 0), handler)

    @contextmanager
    def served(self) -> Iterator[None]:
        threading.Thread(target=self._server.serve_forever, name="model files", daemon=True).start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def model(self, name: str, file: str | None = None) -> dict[str, Any]:
        """A Model of a file, with the digest that file `<name>.gguf` should have."""
        path = self.folder / f"{file or name}.gguf"
        return resource("Model", name, HOME, source=self._url(path.name), digest=_digest(path))

    def corrupted(self, name: str) -> dict[str, Any]:
        """A Model that names the digest of the good file and the address of one with a few flipped bytes."""
        good = self.folder / f"{MODEL}.gguf"
        flipped = bytearray(good.read_bytes())
        for at in range(len(flipped) // 2, len(flipped) // 2 + 16):
            flipped[at] ^= 0xFF
        bad = self.folder / f"{name}.gguf"
        bad.write_bytes(flipped)
        return resource("Model", name, HOME, source=self._url(bad.name), digest=_digest(good))

    def _url(self, file: str) -> str:
        return f"http://{layout.HOST_ADDRESS}:{self._server.server_address[1]}/{file}"


class _Handler(SimpleHTTPRequestHandler):
    def copyfile(self, source: Any, outputfile: Any) -> None:
        """A node that has learned enough hangs up."""
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:
        """The campaign's own lines are enough."""


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def prepared(target: Target, folder: Path, *, gpu_nodes: bool = True) -> Iterator[Ground]:
    """Foretide installed for a campaign inside the block, and as it was after it; services are for the caller to make.

    Without `gpu_nodes` the nodes offer no slices, and the GPU lane cannot be.
    """
    assert target.cluster is not None, "only a cluster of our own may be broken"
    with ExitStack() as stack:
        files = Files(folder / "models")
        stack.enter_context(files.served())
        prometheus = stack.enter_context(StandInPrometheus(layout.HOST_ADDRESS, lambda at_s: 6.0))
        # Where the MIG manager of a real cluster is, and the pools' ConfigMap.
        target.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        install(target.kubectl, _values(target, prometheus.url, gpu_nodes))
        stack.callback(install, target.kubectl, target.chart_values)
        key = tenant_key(target.kubectl, HOME)
        tenant = resource("Tenant", HOME, namespaces=[HOME], apiKeys=[{"secret": f"{HOME}-key"}])
        target.kubectl.apply(namespace(HOME), tenant)
        _cleared(target.kubectl)  # What a killed campaign left names the address of a server that is gone.
        stack.callback(_cleared, target.kubectl)
        target.kubectl.apply(files.model(MODEL), files.model(OTHER_MODEL))
        if gpu_nodes:
            stack.enter_context(_gpus(target.kubectl))
        url = stack.enter_context(target.gateway())
        host = Host(target.cluster)
        yield Ground(target.kubectl, target.cluster, host, url, key, files, prometheus, gpu_nodes)


def _values(target: Target, prometheus_url: str, gpu_nodes: bool) -> dict[str, Any]:
    tag = target.chart_values["image"]["tag"]
    paced = {"image": f"foretide/{PACED_WORKER}:{tag}"}
    return target.chart_values | {
        "workers": {"cpu": paced, "gpu": paced},
        "gpuPools": {"enabled": gpu_nodes},
        "history": {"prometheusUrl": prometheus_url},
        "forecasting": {"stepSeconds": 60, "refreshSeconds": 10, "historyDays": 3, "processes": 1},
    }


def _cleared(kubectl: Kubectl) -> None:
    """Services first: a Model that is in use stays."""
    for kind in ("inferenceservices", "models"):
        kubectl("-n", HOME, "delete", kind, "--all", "--timeout=120s")


@contextmanager
def _gpus(kubectl: Kubectl) -> Iterator[None]:
    """Two nodes that say they have an H100 each, cut as their pool wants it."""
    names = [node["metadata"]["name"] for node in kubectl.items("nodes")][:2]
    spec = {
        "nodeSelector": {"foretide.test/pool": "gpus"},
        "profiles": [_PROFILE],
        "wholeGpus": False,
        "repartition": {"maxPercentAtOnce": 50, "moveTimeout": "5m"},
    }
    try:
        for name in names:
            labels = [f"{key}={value}" for key, value in _GPU_LABELS.items()]
            kubectl("label", "node", name, "--overwrite", *labels)
            offer(kubectl, name, {f"nvidia.com/mig-{_PROFILE}": 7})
        kubectl.apply(
            {"apiVersion": "foretide.dev/v1alpha1", "kind": "GPUPool", "metadata": {"name": "gpus"}, "spec": spec}
        )
        yield
    finally:
        kubectl("-n", HOME, "delete", "inferenceservice", GPU_SERVICE, "--ignore-not-found", "--timeout=120s")
        with MigManager(kubectl):  # A node that is under way comes to its end before the pool goes.
            kubectl("delete", "gpupools", "--all", "--timeout=180s")
        for name in names:
            recover_node(kubectl, name)
            offer(kubectl, name, {})
            kubectl("label", "node", name, *(f"{key}-" for key in (*_GPU_LABELS, CONFIG, STATE)))
            kubectl("annotate", "node", name, *(f"{key}-" for key in _GPU_ANNOTATIONS))


def recover_node(kubectl: Kubectl, node: str) -> None:
    """As a person does who has put a new GPU into it."""
    kubectl("annotate", "node", node, "foretide.dev/gpu-faults-", "foretide.dev/quarantine-")
    kubectl("label", "node", node, "foretide.dev/evacuate-")
    kubectl("uncordon", node)
