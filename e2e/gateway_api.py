"""CRDs of the Gateway API and of its inference extension, for clusters that get them from nobody else.

HTTPRoute's is read from its Go module; InferencePool's module cannot be had from the proxy, so the part of its schema
that a pool of ours must fit stands here.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster import tools

VERSION: Final = "v1.4.0"
"""The newest that Go 1.26 takes."""
_MODULE: Final = "sigs.k8s.io/gateway-api"

_NAMED_PORT: Final = {
    "type": "object",
    "required": ["number"],
    "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 65535}},
}
_POOL_SPEC: Final = {
    "type": "object",
    "required": ["selector", "targetPorts", "endpointPickerRef"],
    "properties": {
        "selector": {
            "type": "object",
            "required": ["matchLabels"],
            "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
        },
        "targetPorts": {"type": "array", "minItems": 1, "maxItems": 8, "items": _NAMED_PORT},
        "endpointPickerRef": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "group": {"type": "string", "default": ""},
                "kind": {"type": "string", "default": "Service"},
                "name": {"type": "string", "minLength": 1, "maxLength": 253},
                "port": _NAMED_PORT,
                "failureMode": {"type": "string", "enum": ["FailOpen", "FailClose"], "default": "FailClose"},
            },
            "x-kubernetes-validations": [
                {"rule": "self.kind != 'Service' || has(self.port)", "message": "port is required when kind is Service"}
            ],
        },
    },
}


def http_route_crd() -> dict[str, Any]:
    """Downloads the module when it is not in Go's cache."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(tools.go()), "mod", "download", "-json", f"{_MODULE}@{VERSION}"],
            cwd=folder,
            env={**os.environ, "GOFLAGS": "-mod=mod"},
            capture_output=True,
            text=True,
            check=True,
        )
    path = Path(json.loads(done.stdout)["Dir"]) / "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"
    crd = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(crd, dict)
    return crd


def inference_pool_crd() -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "spec": _POOL_SPEC,
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "inferencepools.inference.networking.k8s.io",
            # The API server keeps the group for the approved CRD alone.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": "inference.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "InferencePool", "plural": "inferencepools", "singular": "inferencepool"},
            "versions": [version],
        },
    }
