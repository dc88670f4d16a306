"""What people would have declared: namespaces, nodes, Tenants with keys, Models, SLAs and InferenceServices. Pure.

Every object is valid and refers to objects that exist, so that the operator has nothing to complain about. Tenants
limit workers but neither CPU nor memory: without the controller manager a ResourceQuota would refuse every pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.control_plane.scale import Scale
from crds import contract
from kube.resources import Object

SYSTEM_NAMESPACE = "foretide-system"
DIGEST = f"sha256:{'5a' * 32}"
WEIGHTS_BYTES = 98_000_000


@dataclass(frozen=True, slots=True, order=True)
class ServiceName:
    namespace: str
    name: str


def namespace_of(at: int) -> str:
    return f"team-{at:02d}"


def node_of(at: int) -> str:
    return f"node-{at:02d}"


def service_names(scale: Scale) -> list[ServiceName]:
    """Round over the namespaces, so that neighbours in the list are in different ones."""
    return [ServiceName(namespace_of(at % scale.namespaces), f"chat-{at:04d}") for at in range(scale.objects)]


def foundations(scale: Scale) -> Iterator[Object]:
    """Namespaces and nodes."""
    for name in (SYSTEM_NAMESPACE, *(namespace_of(at) for at in range(scale.namespaces))):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    for at in range(scale.nodes):
        labels = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": node_of(at)}
        yield {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_of(at), "labels": labels}}


def declarations(scale: Scale) -> Iterator[Object]:
    """Everything that the operator reads before it looks at a service."""
    for at in range(scale.namespaces):
        namespace = namespace_of(at)
        yield _key(namespace)
        yield _tenant(namespace, scale)
        yield from (_model(namespace, number) for number in range(scale.models_per_namespace))
        yield from (_sla(namespace, number) for number in range(scale.slas_per_namespace))


def services(scale: Scale) -> Iterator[Object]:
    for at, one in enumerate(service_names(scale)):
        yield _service(one, at, scale)


def model_status(scale: Scale) -> Object:
    """What the agents of all nodes report of every Model."""
    copy = {"state": "Cached", "bytes": WEIGHTS_BYTES, "totalBytes": WEIGHTS_BYTES, "digest": DIGEST, "format": "gguf"}
    return {"status": {"nodes": [{"name": node_of(at), **copy} for at in range(scale.nodes)]}}


def _key(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": SYSTEM_NAMESPACE,
            "name": f"{namespace}-key",
            "labels": {contract.LABEL_API_KEY: "true"},
        },
        "stringData": {"key": f"{namespace}-0123456789abcdef0123456789abcdef"},
    }


def _tenant(namespace: str, scale: Scale) -> Object:
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "Tenant",
        "metadata": {"name": namespace},
        "spec": {
            "namespaces": [namespace],
            "apiKeys": [{"secret": f"{namespace}-key"}],
            "quota": {"replicas": 10 * scale.pods},
        },
    }


def _model(namespace: str, number: int) -> Object:
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "Model",
        "metadata": {"namespace": namespace, "name": f"model-{number}"},
        "spec": {"source": f"https://models.example.com/{number}/model.Q4_1.gguf", "digest": DIGEST, "format": "gguf"},
    }


def _sla(namespace: str, number: int) -> Object:
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "SLA",
        "metadata": {"namespace": namespace, "name": f"sla-{number}"},
        "spec": {
            "priority": "P1",
            "targets": {"ttft": "800ms", "tpot": "50ms", "e2e": "30s"},
            "availability": "99.9%",
            "window": "28d",
        },
    }


def _service(one: ServiceName, at: int, scale: Scale) -> Object:
    turn = at // scale.namespaces
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "InferenceService",
        "metadata": {
            "namespace": one.namespace,
            "name": one.name,
            "labels": {"team": one.namespace, "app.kubernetes.io/part-of": "assistant"},
            "annotations": {"example.com/runbook": f"https://runbooks.example.com/{one.namespace}/{one.name}"},
        },
        "spec": {
            "model": f"model-{turn % scale.models_per_namespace}",
            "sla": f"sla-{turn % scale.slas_per_namespace}",
            "accelerator": {"cpu": {"cores": "2", "memory": "4Gi"}},
            "replicas": scale.replicas,
            "engine": {"maxModelLen": 4096, "maxNumSeqs": 8, "kvCache": "1Gi"},
            "rollout": {"maxSurge": 1, "maxUnavailable": 0, "revisionHistoryLimit": 2, "drainTimeout": "1m"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "example.com/inference", "operator": "Exists", "effect": "NoSchedule"}],
        },
    }
