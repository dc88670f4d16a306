"""An InferencePool and an HTTPRoute beside a service, for clusters whose traffic enters through the Gateway API.

The pool names the workers and our endpoint picker; the route leads two ways to it: by path,
`/<namespace>/<name>/v1/…`, and by the header that body-based routing sets. Pure; stands only where an administrator
named a Gateway and the cluster knows both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controllers.plans.snapshot import Snapshot
from controllers.plans.worker_pod import worker_account
from crds import contract

Manifest = dict[str, Any]

POOL = "InferencePool"
ROUTE = "HTTPRoute"
KINDS = frozenset({POOL, ROUTE})
_POOL_GROUP = "inference.networking.k8s.io"
MODEL_NAME_HEADER = "X-Gateway-Model-Name"
REQUEST_TIMEOUT = "600s"
"""As long as our own gateway waits for an answer; without it implementations cut streams after seconds."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A Gateway that routes attach to."""

    name: str
    namespace: str
    section: str | None = None
    """One of its listeners; all of them when None."""


@dataclass(frozen=True, slots=True)
class Routes:
    """What the administrator chose."""

    parents: tuple[Parent, ...]
    picker_host: str
    """DNS name of the endpoint picker's Service."""


def picker_name(service: str) -> str:
    return f"{worker_account(service)}-picker"


def picker_service(manifest: Manifest, routes: Routes) -> Manifest:
    """A pool may name a Service of its own namespace only, so each has one that points to ours."""
    manifest["spec"] = {
        "type": "ExternalName",
        "externalName": routes.picker_host,
        "ports": [{"name": "grpc", "port": contract.GATEWAY_PICKER_PORT, "protocol": "TCP"}],
    }
    return manifest


def inference_pool(manifest: Manifest, snapshot: Snapshot, workers: dict[str, str]) -> Manifest:
    """All workers of the service; which of them is chosen is the picker's to say."""
    manifest["spec"] = {
        "selector": {"matchLabels": workers},
        "targetPorts": [{"number": contract.WORKER_HTTP_PORT}],
        "endpointPickerRef": {
            "kind": "Service",
            "name": picker_name(snapshot.name),
            "port": {"number": contract.GATEWAY_PICKER_PORT},
            # Without the picker nobody has checked the key: better no answer than one to anybody.
            "failureMode": "FailClose",
        },
    }
    return manifest


def http_route(manifest: Manifest, snapshot: Snapshot, routes: Routes) -> Manifest:
    """By path and by header, both to the service's pool."""
    prefix = f"/{snapshot.namespace}/{snapshot.name}"
    by_path = {
        "matches": [{"path": {"type": "PathPrefix", "value": f"{prefix}/v1"}}],
        "filters": [
            {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}},
            }
        ],
    }
    named = {"type": "Exact", "name": MODEL_NAME_HEADER, "value": snapshot.name}
    by_header = {"matches": [{"path": {"type": "PathPrefix", "value": "/v1"}, "headers": [named]}]}
    backend = [{"group": _POOL_GROUP, "kind": POOL, "name": worker_account(snapshot.name)}]
    manifest["spec"] = {
        "parentRefs": [_parent(one) for one in routes.parents],
        "rules": [
            rule | {"backendRefs": backend, "timeouts": {"request": REQUEST_TIMEOUT}} for rule in (by_path, by_header)
        ],
    }
    return manifest


def _parent(parent: Parent) -> Manifest:
    section = {"sectionName": parent.section} if parent.section else {}
    named = {"name": parent.name, "namespace": parent.namespace}
    return {"group": "gateway.networking.k8s.io", "kind": "Gateway", **named, **section}
