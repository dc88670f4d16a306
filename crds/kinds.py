"""The kinds of foretide.dev, each as one description: names, scope, types, printer columns, subresources."""

from __future__ import annotations

from dataclasses import dataclass

from crds.alert_policy import AlertPolicySpec, AlertPolicyStatus
from crds.capacity_forecast import CapacityForecastSpec, CapacityForecastStatus
from crds.fields import Part, Rule
from crds.gpu_pool import GPUPoolSpec, GPUPoolStatus
from crds.inference_service import InferenceServiceSpec, InferenceServiceStatus
from crds.model import ModelSpec, ModelStatus
from crds.sla import SLASpec, SLAStatus
from crds.tenant import TenantSpec, TenantStatus


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones only show with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    description: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Scale:
    """The scale subresource: JSON paths as Kubernetes names them."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclass(frozen=True)
class Kind:
    """Everything that a CustomResourceDefinition says of one kind."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    description: str
    spec: type[Part]
    status: type[Part]
    columns: tuple[Column, ...]
    name_rules: tuple[Rule, ...] = ()
    scale: Scale | None = None


def _condition(name: str, type_: str, field: str = "status") -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{type_}")].{field}')


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_MESSAGE = Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True)
_NAME_RULE = Rule(
    "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "metadata.name must be at most 40 lower-case letters, digits and '-', and start with a letter: "
    "the names of Services and Deployments are made from it",
)
_LABEL_RULE = Rule(
    "size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "metadata.name must be at most 63 lower-case letters, digits and '-'",
)

INFERENCE_SERVICE = Kind(
    kind="InferenceService",
    plural="inferenceservices",
    singular="inferenceservice",
    short_names=("isvc",),
    namespaced=True,
    description="Serves one Model to OpenAI clients through the gateway.",
    spec=InferenceServiceSpec,
    status=InferenceServiceStatus,
    scale=Scale(),
    name_rules=(_NAME_RULE,),
    columns=(
        Column("Model", ".spec.model"),
        _condition("Ready", "Ready"),
        _condition("Servable", "Servable"),
        Column("Replicas", ".status.replicaStatus", description="Ready of desired workers"),
        Column("Revision", ".status.currentRevision", description="Revision that all workers should have"),
        Column("SLA", ".spec.sla"),
        _AGE,
        Column("Tenant", ".status.tenant", wide=True),
        Column("Rollout", ".status.rollout.summary", wide=True),
        Column(
            "Weak isolation",
            '.status.conditions[?(@.type=="WeakIsolation")].reason',
            description="How GPUs are shared without MIG",
            wide=True,
        ),
        Column("URL", ".status.url", wide=True),
        _MESSAGE,
    ),
)
MODEL = Kind(
    kind="Model",
    plural="models",
    singular="model",
    short_names=("mdl",),
    namespaced=True,
    description="A set of weights: where they come from, whether they are right, and on which nodes they lie.",
    spec=ModelSpec,
    status=ModelStatus,
    name_rules=(_LABEL_RULE,),
    columns=(
        Column("Format", ".status.format"),
        Column("Size", ".status.size"),
        Column("Cached", ".status.cached", description="Nodes with a verified copy"),
        Column("Verified", ".status.verified", "boolean"),
        Column("State", ".status.state"),
        _AGE,
        Column("Source", ".spec.source", wide=True),
        _MESSAGE,
    ),
)
SLA = Kind(
    kind="SLA",
    plural="slas",
    singular="sla",
    short_names=(),
    namespaced=True,
    description="How important requests are and what their latency should be.",
    spec=SLASpec,
    status=SLAStatus,
    name_rules=(_LABEL_RULE,),
    columns=(
        Column("Priority", ".spec.priority"),
        Column("TTFT", ".spec.targets.ttft"),
        Column("TPOT", ".spec.targets.tpot"),
        Column("Budget", ".status.errorBudget", description="Full outage allowed in a window"),
        Column("Window", ".spec.window"),
        Column("Services", ".status.services", "integer"),
        _condition("Ready", "Ready"),
        _AGE,
        _MESSAGE,
    ),
)
TENANT = Kind(
    kind="Tenant",
    plural="tenants",
    singular="tenant",
    short_names=(),
    namespaced=False,
    description="Owner of namespaces: the keys that speak for it and how much it may use.",
    spec=TenantSpec,
    status=TenantStatus,
    name_rules=(_LABEL_RULE,),
    columns=(
        Column("Keys", ".status.validKeys", "integer"),
        Column("Services", ".status.services", "integer"),
        Column("Replicas", ".status.replicas"),
        Column("GPUs", ".status.gpus"),
        _condition("Ready", "Ready"),
        _AGE,
        Column("Namespaces", ".spec.namespaces", wide=True),
        Column("Requests/min", ".spec.limits.requestsPerMinute", "integer", wide=True),
        Column("Tokens/min", ".spec.limits.tokensPerMinute", "integer", wide=True),
        Column("Concurrency", ".spec.limits.concurrency", "integer", wide=True),
        Column("Bytes/s", ".spec.limits.bytesPerSecond", "integer", wide=True),
        Column("Weight", ".spec.weight", "integer", wide=True),
        Column("Class", ".spec.maxPriority", description="Highest class of its requests", wide=True),
        Column(
            "Borrowed/due",
            ".status.fairShare.standing",
            description="Its part of what its cohort borrowed lately, and the part that is its due",
            wide=True,
        ),
        _MESSAGE,
    ),
)
CAPACITY_FORECAST = Kind(
    kind="CapacityForecast",
    plural="capacityforecasts",
    singular="capacityforecast",
    short_names=("cfc",),
    namespaced=True,
    description="The load expected of one InferenceService and the workers that it takes. The operator writes it.",
    spec=CapacityForecastSpec,
    status=CapacityForecastStatus,
    name_rules=(
        Rule("self.metadata.name == self.spec.service", "metadata.name must be the name of the InferenceService"),
    ),
    columns=(
        Column("Load", ".status.load", description="Tokens each second, measured"),
        Column("Replicas", ".status.replicas", "integer", description="Workers wanted now"),
        Column(
            "Planned", ".status.plannedReplicas", "integer", description="Workers needed when a new one would be ready"
        ),
        Column("Peak", ".status.peak", description="Most workers within sight, and when"),
        Column("Coverage", ".status.coverageText", description="How often the truth lay within the 95% interval"),
        _condition("Ready", "Ready"),
        _condition("Reason", "Ready", "reason"),
        _AGE,
        Column("Lead", ".status.leadTime", description="How long a new worker takes", wide=True),
        Column("Cost", ".status.cost.perHour", description="Of an hour at the peak", wide=True),
        Column("Source", ".status.source", wide=True),
        _MESSAGE,
    ),
)
GPU_POOL = Kind(
    kind="GPUPool",
    plural="gpupools",
    singular="gpupool",
    short_names=("gpool",),
    namespaced=False,
    description="Nodes whose GPUs are cut into MIG slices as the demand of services calls for.",
    spec=GPUPoolSpec,
    status=GPUPoolStatus,
    name_rules=(_LABEL_RULE,),
    columns=(
        Column("GPUs", ".status.gpus", "integer"),
        Column("Class", ".spec.capacityClass"),
        Column("Layout", ".status.layout"),
        Column("Served", ".status.served", description="Workers with a slice, of those wanted"),
        Column("Fragmentation", ".status.fragmentation", description="Of the spare slices"),
        _condition("Ready", "Ready"),
        _condition("Reason", "Ready", "reason"),
        _AGE,
        Column("Why", ".status.reason", wide=True),
        _MESSAGE,
    ),
)
ALERT_POLICY = Kind(
    kind="AlertPolicy",
    plural="alertpolicies",
    singular="alertpolicy",
    short_names=("alp",),
    namespaced=True,
    description="What counts as trouble with the services of a namespace, and who is told.",
    spec=AlertPolicySpec,
    status=AlertPolicyStatus,
    name_rules=(_LABEL_RULE,),
    columns=(
        Column("Firing", ".status.firing", "integer"),
        Column("Pending", ".status.pending", "integer"),
        Column("Muted", ".status.muted", "integer", description="Silenced or inhibited"),
        Column("Incidents", ".status.openIncidents", "integer"),
        Column("Undelivered", ".status.undelivered", "integer", description="Messages no receiver took yet"),
        _condition("Ready", "Ready"),
        _AGE,
        Column("Rules", ".status.exported", description="Where Prometheus finds them", wide=True),
        _MESSAGE,
    ),
)
KINDS = (INFERENCE_SERVICE, MODEL, SLA, TENANT, CAPACITY_FORECAST, GPU_POOL, ALERT_POLICY)
