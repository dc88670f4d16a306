"""Puts Foretide into a cluster with its Helm charts, and gives a tenant its key; demo and scenarios stand on it.

Idempotent: a second call upgrades. It never starts a cluster and never builds an image; `e2e.cluster` does.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import tools
from e2e.cluster.errors import ClusterError, CommandFailed
from e2e.cluster.shell import run

SYSTEM = "foretide-system"
CHARTS = Path(__file__).resolve().parents[1] / "charts"


@dataclass(frozen=True)
class Kubectl:
    """kubectl against one cluster."""

    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output. Raises CommandFailed with kubectl's own words."""
        return run([tools.kubectl(), "--kubeconfig", self.kubeconfig, *arguments], stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> str:
        """Server-side apply, as a GitOps tool would."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))

    def get(self, *arguments: str) -> Any:
        """A parsed object; None when it does not exist."""
        out = self("get", *arguments, "--ignore-not-found", "-o", "json")
        return json.loads(out) if out.strip() else None

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects of a list, of which kubectl prints nothing at all when there are none."""
        found = self.get(*arguments) or {"items": []}
        return list(found["items"])


def install(kubectl: Kubectl, values: dict[str, Any], charts: Path = CHARTS) -> None:
    """CRDs first, then the chart with `values`; returns when operator, gateways and node agents are available."""
    _helm(kubectl, charts / "foretide-crds", {})
    _helm(kubectl, charts / "foretide", values)


def _helm(kubectl: Kubectl, chart: Path, values: dict[str, Any]) -> None:
    command: list[str | Path] = ["upgrade", "--install", chart.name, chart, "--values", "-"]
    flags = ["--create-namespace", "--wait", "--timeout", "3m"]
    helm: list[str | Path] = [tools.helm(), "--kubeconfig", kubectl.kubeconfig, "--namespace", SYSTEM]
    try:
        _undo_half(helm, chart.name)
        run([*helm, *command, *flags], stdin=json.dumps(values))
    except CommandFailed as failed:
        pods = kubectl("-n", SYSTEM, "get", "pods", "-o", "wide")
        raise ClusterError(f"{failed}\nPods of {SYSTEM}:\n{pods}") from failed


def _undo_half(helm: list[str | Path], release: str) -> None:
    """Helm refuses to go on where an earlier call was cut short."""
    found = json.loads(run([*helm, "list", "--pending", "--filter", f"^{release}$", "--output", "json"]))
    for one in found:  # What it goes back to need not be good: the upgrade that follows waits for its own.
        run([*helm, *(["uninstall", "--wait"] if one["status"] == "pending-install" else ["rollback"]), release])


def tenant_key(kubectl: Kubectl, tenant: str) -> str:
    """The tenant's API key, made at the first call and kept in the Secret `<tenant>-key` of the system namespace."""
    name = f"{tenant}-key"
    found = kubectl.get("-n", SYSTEM, "secret", name)
    if found is None:
        kubectl.apply(key_secret(name, {"key": secrets.token_hex(24)}))
        found = kubectl.get("-n", SYSTEM, "secret", name)
    return decoded(found["data"]["key"])


def decoded(value: str) -> str:
    """A Secret's value as text."""
    return base64.b64decode(value).decode()


def key_secret(name: str, keys: dict[str, str]) -> dict[str, Any]:
    """A Secret of API keys, labelled so that the operator reads it."""
    metadata = {"name": name, "namespace": SYSTEM, "labels": {"foretide.dev/api-key": "true"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}


def namespace(name: str) -> dict[str, Any]:
    """A namespace in which only restricted pods may run."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def resource(kind: str, name: str, namespace: str | None = None, **spec: Any) -> dict[str, Any]:
    """One of our kinds."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "foretide.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
