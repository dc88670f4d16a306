"""The peer: the same service in plain Kopf handlers with the stock `kubernetes` client, as Kopf's handbook teaches.

`kopf run` loads this file. One handler for create, update and resume applies the children; an event handler keeps the
ready pods of each service, and a timer writes their number into the status. No queue, no comparison before an apply.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import kopf
from kubernetes import client, config
from kubernetes.dynamic import DynamicClient
from prometheus_client import Counter, start_http_server

LABEL: Final = "peer.example.com/inference-service"
POD_LABEL: Final = "foretide.dev/inference-service"
WHERE: Final = ("foretide.dev", "v1alpha1", "inferenceservices")

STATUS_EVERY_S: Final = float(os.environ.get("PEER_STATUS_EVERY_S", "10"))

handled = Counter("peer_handled", "Calls of the handler that applies children.")
ready_pods: dict[tuple[str | None, str | None], set[str]] = {}
clients: dict[str, Any] = {}


@kopf.on.startup()
def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.scanning.disabled = True
    config.load_kube_config(os.environ["KUBECONFIG"])  # type: ignore[no-untyped-call]
    clients["any"] = DynamicClient(client.ApiClient())  # type: ignore[no-untyped-call]
    start_http_server(int(os.environ["PEER_METRICS_PORT"]), "127.0.0.1")


@kopf.on.create(*WHERE)
@kopf.on.update(*WHERE)
@kopf.on.resume(*WHERE)
def reconcile(*, name: str, namespace: str | None, uid: str, spec: Mapping[str, Any], **_: Any) -> None:
    for child in children(name, namespace, uid, spec):
        resource = clients["any"].resources.get(api_version=child["apiVersion"], kind=child["kind"])
        clients["any"].server_side_apply(
            resource, body=child, namespace=namespace, field_manager="peer", force_conflicts=True
        )
    handled.inc()


@kopf.on.event("", "v1", "pods", labels={POD_LABEL: kopf.PRESENT})
def count_ready(*, type: str, name: str, namespace: str | None, labels: Any, status: Any, **_: Any) -> None:
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    names = ready_pods.setdefault((namespace, labels[POD_LABEL]), set())
    names.add(name) if ready and type != "DELETED" else names.discard(name)


@kopf.timer(*WHERE, interval=STATUS_EVERY_S, initial_delay=STATUS_EVERY_S)
def report(*, name: str | None, namespace: str | None, status: Mapping[str, Any], patch: kopf.Patch, **_: Any) -> None:
    number = len(ready_pods.get((namespace, name), ()))
    if status.get("readyReplicas", 0) != number:
        patch.status["readyReplicas"] = number


def children(name: str, namespace: str | None, uid: str, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels = {LABEL: name, "app.kubernetes.io/managed-by": "peer"}
    owner = {
        "apiVersion": "foretide.dev/v1alpha1",
        "kind": "InferenceService",
        "name": name,
        "uid": uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }

    def child(api_version: str, kind: str, **body: Any) -> dict[str, Any]:
        meta = {"name": f"peer-{name}", "namespace": namespace, "labels": labels, "ownerReferences": [owner]}
        return {"apiVersion": api_version, "kind": kind, "metadata": meta, **body}

    pods = {"matchLabels": {LABEL: name}}
    port = {"name": "http", "port": 8000, "targetPort": 8000, "protocol": "TCP"}
    deployment = {"replicas": spec.get("replicas", 1), "selector": pods, "template": template(name, labels, spec)}
    return [
        child("v1", "ServiceAccount", automountServiceAccountToken=False),
        child("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": pods, "policyTypes": ["Ingress"]}),
        child("v1", "Service", spec={"clusterIP": "None", "selector": {LABEL: name}, "ports": [port]}),
        child("policy/v1", "PodDisruptionBudget", spec={"maxUnavailable": 1, "selector": pods}),
        child("apps/v1", "Deployment", spec=deployment),
    ]


def template(name: str, labels: dict[str, str], spec: Mapping[str, Any]) -> dict[str, Any]:
    engine, cpu = spec.get("engine", {}), spec["accelerator"]["cpu"]
    arguments = ["serve", "/models/model.gguf", "--served-model-name", name]
    arguments += ["--max-model-len", str(engine.get("maxModelLen")), "--max-num-seqs", str(engine.get("maxNumSeqs"))]

    def probe(path: str, period_s: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": 8001, "scheme": "HTTP"}, "periodSeconds": period_s}

    container = {
        "name": "worker",
        "image": "foretide/worker-cpu:dev",
        "args": arguments,
        "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": cpu["cores"], "memory": cpu["memory"]}, "limits": {"memory": cpu["memory"]}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "model", "mountPath": "/models", "readOnly": True}],
        "startupProbe": probe("/health/ready", 1),
        "readinessProbe": probe("/health/ready", 2),
        "livenessProbe": probe("/health/live", 3),
    }
    volume = {"name": "model", "persistentVolumeClaim": {"claimName": f"{spec['model']}-model", "readOnly": True}}
    pod = {"serviceAccountName": f"peer-{name}", "containers": [container], "volumes": [volume]}
    return {"metadata": {"labels": labels}, "spec": pod}
