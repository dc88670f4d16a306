"""What the API server calls things: group, version, plural and kind, and the URL paths made of them.

Holds no behaviour of any kind; a new kind is one more line at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]
"""A Kubernetes object as JSON. Objects that came from a cache are shared: never change one in place."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API. `namespaced` decides whether its paths carry a namespace."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`: what an object of this resource carries as `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def collection(self) -> str:
        """`deployments.apps`: the name that RBAC and error messages use."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of one object, or of the collection when `name` is None (all namespaces when `namespace` is)."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if not self.namespaced or namespace is None:
            if name is not None and self.namespaced:
                raise ValueError(f"{self.kind} '{name}' needs a namespace: {self.plural} are namespaced.")
            place = root
        else:
            place = f"{root}/namespaces/{namespace}"
        parts = [place, self.plural, *(part for part in (name, subresource) if part is not None)]
        return "/".join(parts)

    def describe(self, namespace: str | None = None, name: str | None = None) -> str:
        """How messages name it: `Deployment demo/chat-1f`, `Tenant acme`, `pods in demo`, `nodes`."""
        if name is None:
            return f"{self.collection} in {namespace}" if namespace else self.collection
        return f"{self.kind} {namespace}/{name}" if namespace else f"{self.kind} {name}"


_FORETIDE: Final = ("foretide.dev", "v1alpha1")
INFERENCE_SERVICES: Final = Resource(*_FORETIDE, "inferenceservices", "InferenceService")
MODELS: Final = Resource(*_FORETIDE, "models", "Model")
SLAS: Final = Resource(*_FORETIDE, "slas", "SLA")
TENANTS: Final = Resource(*_FORETIDE, "tenants", "Tenant", namespaced=False)
CAPACITY_FORECASTS: Final = Resource(*_FORETIDE, "capacityforecasts", "CapacityForecast")
GPU_POOLS: Final = Resource(*_FORETIDE, "gpupools", "GPUPool", namespaced=False)
ALERT_POLICIES: Final = Resource(*_FORETIDE, "alertpolicies", "AlertPolicy")

PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICES: Final = Resource("", "v1", "services", "Service")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
PERSISTENT_VOLUMES: Final = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENT_VOLUME_CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
RESOURCE_QUOTAS: Final = Resource("", "v1", "resourcequotas", "ResourceQuota")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
POD_DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORK_POLICIES: Final = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
HORIZONTAL_POD_AUTOSCALERS: Final = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
PROMETHEUS_RULES: Final = Resource("monitoring.coreos.com", "v1", "prometheusrules", "PrometheusRule")
HTTP_ROUTES: Final = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
INFERENCE_POOLS: Final = Resource("inference.networking.k8s.io", "v1", "inferencepools", "InferencePool")
_DYNAMIC: Final = ("resource.k8s.io", "v1")
DEVICE_CLASSES: Final = Resource(*_DYNAMIC, "deviceclasses", "DeviceClass", namespaced=False)
RESOURCE_SLICES: Final = Resource(*_DYNAMIC, "resourceslices", "ResourceSlice", namespaced=False)
RESOURCE_CLAIMS: Final = Resource(*_DYNAMIC, "resourceclaims", "ResourceClaim")
RESOURCE_CLAIM_TEMPLATES: Final = Resource(*_DYNAMIC, "resourceclaimtemplates", "ResourceClaimTemplate")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SUBJECT_ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")

ALL: Final[tuple[Resource, ...]] = (
    INFERENCE_SERVICES,
    MODELS,
    SLAS,
    TENANTS,
    CAPACITY_FORECASTS,
    GPU_POOLS,
    ALERT_POLICIES,
    PODS,
    SERVICES,
    SERVICE_ACCOUNTS,
    SECRETS,
    CONFIG_MAPS,
    NODES,
    NAMESPACES,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    RESOURCE_QUOTAS,
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    NETWORK_POLICIES,
    ENDPOINT_SLICES,
    HORIZONTAL_POD_AUTOSCALERS,
    PROMETHEUS_RULES,
    HTTP_ROUTES,
    INFERENCE_POOLS,
    DEVICE_CLASSES,
    RESOURCE_SLICES,
    RESOURCE_CLAIMS,
    RESOURCE_CLAIM_TEMPLATES,
    LEASES,
    EVENTS,
)
_BY_KIND: Final[Mapping[tuple[str, str], Resource]] = {(one.api_version, one.kind): one for one in ALL}


def resource_of(obj: Mapping[str, Any]) -> Resource:
    """The resource of an object by its `apiVersion` and `kind`. Raises KeyError naming both when it is not listed."""
    api_version, kind = str(obj.get("apiVersion")), str(obj.get("kind"))
    try:
        return _BY_KIND[api_version, kind]
    except KeyError:
        raise KeyError(f"{api_version} {kind} is not listed in kube.resources; add it there.") from None
