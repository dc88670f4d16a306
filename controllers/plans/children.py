"""What the operator puts beside a service's workers: Deployment, Service, account, budget and policy, as manifests.

Pure functions of the snapshot: the same input gives the same bytes. Every child is owned by its InferenceService, so
Kubernetes removes it when the service is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from controllers.plans import gateway_api
from controllers.plans.gateway_api import Routes
from controllers.plans.mig.claims import TEMPLATE_KIND, template_name
from controllers.plans.snapshot import Snapshot
from controllers.plans.worker_pod import LOADING_LIMIT_S, Manifest, WorkerTemplate, worker_account, worker_labels
from crds import contract


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who may reach workers: namespaces of the control plane and, if there is one, of Prometheus. And with what their
    images are pulled."""

    system_namespace: str
    monitoring_namespace: str | None = None
    routes: Routes | None = None
    """How the Gateway API leads to services; it does not when None."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the service's namespace."""


def deployment_name(service: str, revision: str) -> str:
    return f"{service}-{revision}"


def deployment(snapshot: Snapshot, template: WorkerTemplate, replicas: int) -> Manifest:
    """The Deployment of one revision; in its life only `replicas` ever changes."""
    own = {contract.LABEL_SERVICE: snapshot.name, contract.LABEL_REVISION: template.revision}
    manifest = _child(snapshot, "apps/v1", "Deployment", deployment_name(snapshot.name, template.revision))
    manifest["metadata"]["labels"] |= own
    manifest["metadata"]["annotations"] = {contract.ANNOTATION_ASKED: template.asked}
    manifest["spec"] = {
        "replicas": replicas,
        "revisionHistoryLimit": 0,
        "progressDeadlineSeconds": LOADING_LIMIT_S + 60,
        "selector": {"matchLabels": own},
        "template": template.manifest,
    }
    return manifest


def claim_template(snapshot: Snapshot, template: WorkerTemplate) -> list[Manifest]:
    """What the pods of one revision claim; stands before its Deployment, and none where nothing is claimed."""
    if template.claim is None:
        return []
    name = template_name(snapshot.name, template.revision)
    manifest = _child(snapshot, "resource.k8s.io/v1", TEMPLATE_KIND, name)
    manifest["metadata"]["labels"] |= {contract.LABEL_REVISION: template.revision}
    manifest["spec"] = {"spec": template.claim}
    return [manifest]


def surrounding_children(snapshot: Snapshot, around: Surroundings) -> list[Manifest]:
    """Everything but Deployments, in the order in which pods need it."""
    return [
        service_account(snapshot, around.pull_secrets),
        network_policy(snapshot, around),
        worker_service(snapshot),
        disruption_budget(snapshot),
        *_routed(snapshot, around.routes),
    ]


def _routed(snapshot: Snapshot, routes: Routes | None) -> list[Manifest]:
    """Where an administrator wants it and the cluster knows the kinds."""
    if routes is None or not snapshot.optional_kinds >= gateway_api.KINDS:
        return []
    picker = _child(snapshot, "v1", "Service", gateway_api.picker_name(snapshot.name))
    pool = _child(snapshot, "inference.networking.k8s.io/v1", gateway_api.POOL, worker_account(snapshot.name))
    route = _child(snapshot, "gateway.networking.k8s.io/v1", gateway_api.ROUTE, worker_account(snapshot.name))
    return [
        gateway_api.picker_service(picker, routes),
        gateway_api.inference_pool(pool, snapshot, _workers(snapshot)),
        gateway_api.http_route(route, snapshot, routes),
    ]


def service_account(snapshot: Snapshot, pull_secrets: tuple[str, ...]) -> Manifest:
    """An identity without rights and without a token. Pods get its Secrets when they are made: in their template, they
    would be another revision."""
    manifest = _child(snapshot, "v1", "ServiceAccount", worker_account(snapshot.name))
    manifest["automountServiceAccountToken"] = False
    if pull_secrets:
        manifest["imagePullSecrets"] = [{"name": one} for one in pull_secrets]
    return manifest


def worker_service(snapshot: Snapshot) -> Manifest:
    """Headless: only its EndpointSlices are read, by gateways."""
    manifest = _child(snapshot, "v1", "Service", worker_account(snapshot.name))
    manifest["spec"] = {
        "clusterIP": "None",
        "selector": _workers(snapshot),
        "ports": [
            {
                "name": "http",
                "port": contract.WORKER_HTTP_PORT,
                "targetPort": contract.WORKER_HTTP_PORT,
                "protocol": "TCP",
            }
        ],
    }
    return manifest


def disruption_budget(snapshot: Snapshot) -> Manifest:
    """One worker at a time may be evicted. A minimum instead would forbid every node drain at 1 replica."""
    manifest = _child(snapshot, "policy/v1", "PodDisruptionBudget", worker_account(snapshot.name))
    manifest["spec"] = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": _workers(snapshot)},
    }
    return manifest


def network_policy(snapshot: Snapshot, around: Surroundings) -> Manifest:
    """Requests come from gateways, health and metrics are read by the operator and Prometheus; nothing goes out."""
    callers = [_pods_of(around.system_namespace, "foretide-gateway")]
    if around.routes:
        # The proxies of these Gateways send to workers themselves, where our endpoint picker has told them to.
        callers += [_namespace(one) for one in sorted({parent.namespace for parent in around.routes.parents})]
    admin = [_pods_of(around.system_namespace, "foretide-operator")]
    if around.monitoring_namespace:
        admin.append(_namespace(around.monitoring_namespace))
    manifest = _child(snapshot, "networking.k8s.io/v1", "NetworkPolicy", worker_account(snapshot.name))
    manifest["spec"] = {
        "podSelector": {"matchLabels": _workers(snapshot)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": callers, "ports": [_port(contract.WORKER_HTTP_PORT)]},
            {"from": admin, "ports": [_port(contract.WORKER_ADMIN_PORT)]},
        ],
        "egress": [],
    }
    return manifest


def _workers(snapshot: Snapshot) -> dict[str, str]:
    return {contract.LABEL_SERVICE: snapshot.name, contract.LABEL_COMPONENT: "worker"}


def _pods_of(namespace: str, name: str) -> Manifest:
    return _namespace(namespace) | {"podSelector": {"matchLabels": {contract.LABEL_NAME: name}}}


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _port(number: int) -> Manifest:
    return {"port": number, "protocol": "TCP"}


def _child(snapshot: Snapshot, api_version: str, kind: str, name: str) -> Manifest:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": snapshot.namespace,
            "labels": worker_labels(snapshot.name),
            "ownerReferences": [
                {
                    "apiVersion": contract.API_VERSION,
                    "kind": "InferenceService",
                    "name": snapshot.name,
                    "uid": snapshot.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
    }
