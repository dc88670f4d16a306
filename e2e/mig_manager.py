"""A stand-in for NVIDIA's MIG manager and device plugin: follows their label protocol on nodes without GPUs.

Reads the real ConfigMap, waits as long as it is told, writes `mig.config.state`, and lets the Node offer the slices. It
may be told to fail. Never touches pods: what it refuses to cut under, it writes down as a violation.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import yaml

from e2e.cluster.errors import CommandFailed
from e2e.install import Kubectl

NAMESPACE = "gpu-operator"
CONFIG_MAP = "foretide-mig-parted"
CONFIG, STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
GPU = "nvidia.com/gpu"
POLL_S = 0.5


@dataclass
class MigManager:
    """A context manager. `delay_s` is how long a cut takes; `failures` counts down: that many cuts fail, by node."""

    kubectl: Kubectl
    delay_s: float = 3.0
    failures: Counter[str] = field(default_factory=Counter)
    cuts: list[tuple[str, str]] = field(default_factory=list)
    """Node and configuration, in order, failed ones included."""
    violations: list[str] = field(default_factory=list)
    _done: dict[str, str] = field(default_factory=dict)
    _ending: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="MIG manager", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._ending.wait(POLL_S):
            with contextlib.suppress(CommandFailed):  # The API server may be busy: the next look finds the same.
                self._look()

    def _look(self) -> None:
        for node in self.kubectl.items("nodes"):
            name, labels = node["metadata"]["name"], node["metadata"]["labels"]
            config = labels.get(CONFIG, "")
            if labels.get(STATE) == "success":
                # One that starts anew finds the layout there already.
                self._done.setdefault(name, config)
            if config and self._done.get(name) != config:
                self._cut(name, config)

    def _cut(self, name: str, config: str) -> None:
        self.kubectl("label", "node", name, "--overwrite", f"{STATE}=pending")
        self._check_empty(name)
        self.cuts.append((name, config))
        self._ending.wait(self.delay_s)
        if self.failures[name] > 0:
            self.failures[name] -= 1
            state = "failed"
        else:
            offer(self.kubectl, name, self._devices(config))
            state = "success"
        self.kubectl("label", "node", name, "--overwrite", f"{STATE}={state}")
        self._done[name] = config

    def _check_empty(self, name: str) -> None:
        for pod in self.kubectl.items("pods", "-A", "--field-selector", f"spec.nodeName={name},status.phase=Running"):
            limits = [one["resources"].get("limits") or {} for one in pod["spec"]["containers"]]
            if any(resource.startswith("nvidia.com/") for each in limits for resource in each):
                self.violations.append(f"{pod['metadata']['name']} was still on {name}")

    def _devices(self, config: str) -> dict[str, int]:
        found = self.kubectl.get("-n", NAMESPACE, "configmap", CONFIG_MAP)
        entry = yaml.safe_load(found["data"]["config.yaml"])["mig-configs"][config]
        devices: Counter[str] = Counter()
        for part in entry:
            count = 1 if part["devices"] == "all" else len(part["devices"])
            if not part["mig-enabled"]:
                devices[GPU] += count
                continue
            for profile, each in part["mig-devices"].items():
                devices[f"nvidia.com/mig-{profile}"] += each * count
        return dict(devices)


def offer(kubectl: Kubectl, node: str, devices: dict[str, int]) -> None:
    """The Node offers exactly these; the kubelet keeps what it does not know, and kube-scheduler counts it."""
    status = kubectl.get("node", node)["status"]
    gone = {
        name
        for part in ("capacity", "allocatable")
        for name in status.get(part) or ()
        if name.startswith("nvidia.com/")
    } - set(devices)
    wanted: dict[str, Any] = {name: str(count) for name, count in devices.items()} | dict.fromkeys(gone)
    patch = {"status": {"capacity": wanted, "allocatable": wanted}}
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
