"""Kubeconfig files that carry their certificates inside, so that one file is enough to reach a cluster.

They are written as JSON, which every reader of kubeconfig accepts as the YAML it is.
"""

import json
from base64 import b64encode
from pathlib import Path

from e2e.cluster.pki import Pair


def write(path: Path, name: str, server: str, authority: Path, identity: Pair) -> Path:
    user = {"client-certificate-data": _inline(identity.certificate), "client-key-data": _inline(identity.key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _inline(authority)}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    path.chmod(0o600)
    return path


def _inline(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()
