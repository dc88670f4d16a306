"""Where a worker finds its model: the one agreement between the Model controller, the node agent and worker pods.

A cached Model lies in one folder per node, reached through a PersistentVolume and a claim of the Model's own; a `pvc://`
Model lies in the user's claim, which nobody here creates or owns. Pure: says names, never looks whether they exist.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from crds.contract import WORKER_MODEL_MOUNT

_READABLE = 45
"""Characters of namespace and model kept in a volume's name, so that `kubectl get pv` stays readable."""


@dataclass(frozen=True, slots=True)
class ModelVolume:
    """One Model as a worker mounts it: the claim at /models, read-only, and the path inside it."""

    claim_name: str
    """PersistentVolumeClaim in the Model's namespace."""
    volume_name: str | None
    """PersistentVolume that the operator makes for it; None when the claim is the user's own."""
    path: str
    """File or folder inside the claim; '.' is the whole claim."""

    @property
    def worker_path(self) -> str:
        """What the worker is told to open."""
        return WORKER_MODEL_MOUNT if self.path == "." else f"{WORKER_MODEL_MOUNT}/{self.path}"


def model_volume(namespace: str, model: str, source: str) -> ModelVolume:
    """The volume of Model `namespace`/`model`. `source` has passed the API's rules."""
    parts = urlsplit(source)
    if parts.scheme == "pvc":
        return ModelVolume(claim_name=parts.netloc, volume_name=None, path=_inside_claim(parts.path))
    return ModelVolume(
        claim_name=f"{model}-model",
        volume_name=_volume_name(namespace, model),
        path=cached_name(source),
    )


def cached_name(source: str) -> str:
    """Name of the file in the Model's cache folder, or '.' when the source is a whole repository, prefix or artifact.

    `https://host/a/m.gguf?x=1` → `m.gguf`; `hf://owner/repo@main/m.gguf` → `m.gguf`; `hf://owner/repo` → `.`.
    """
    parts = urlsplit(source)
    path = parts.path
    if parts.scheme == "oci" or path.endswith("/"):
        return "."
    if parts.scheme == "hf" and path.count("/") < 2:  # netloc is the owner, the first component the repository
        return "."
    if parts.scheme in ("http", "https"):
        path = unquote(path)
    name = PurePosixPath(path).name
    return "." if name in ("", "..") else name


def _inside_claim(path: str) -> str:
    kept = [part for part in path.split("/") if part not in ("", ".", "..")]
    return "/".join(kept) or "."


def _volume_name(namespace: str, model: str) -> str:
    """The hash tells `a-b`/`c` from `a`/`b-c`, which read the same when joined."""
    digest = hashlib.sha256(f"{namespace}/{model}".encode()).hexdigest()[:8]
    return f"foretide-{f'{namespace}-{model}'[:_READABLE].rstrip('-')}-{digest}"
