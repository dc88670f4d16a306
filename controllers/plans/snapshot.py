"""All that plans may know of one InferenceService: frozen, taken at one moment, complete before the first plan runs.

Facts only. What follows from them is decided in the other modules of this folder; how they are got is the business of
`controllers.inference_service.observe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.plans.alerting.wishes import NOTHING, Wishes
from controllers.plans.canary.values import Compared
from controllers.plans.capacity import LEAST_LEAD_S
from controllers.plans.carried import NOTHING_KNOWN, Known
from controllers.plans.healing.values import NodeFacts, Objections
from controllers.plans.mig.claims import Giver
from controllers.plans.mig.profile_choice import SliceFacts
from controllers.plans.model_volume import ModelVolume
from controllers.plans.quality import Drift
from controllers.plans.tenancy import Demand, Tenant
from crds.healing import HealthStatus
from crds.inference_service import Allocation, InferenceServiceSpec, InferenceServiceStatus
from crds.reading import Unread
from crds.sla import Priority
from forecasting.policy import Judged
from forecasting.standing import Forecasted


@dataclass(frozen=True, slots=True)
class ModelView:
    """The Model that the service names."""

    name: str
    source: str
    digest: str | None
    """Of the spec, else of the verified copy that decides for all."""
    volume: ModelVolume
    ready: bool
    reason: str
    """Why it is not ready, as its own conditions say."""
    stalled: str | None = None
    """The sentence of its Stalled condition: a person has to act before it can become ready."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    unread: tuple[Unread, ...] = ()
    """What of its spec was stored under another release's rules."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One Deployment of the service."""

    name: str
    """The hash, as in its label."""
    replicas: int
    created: str
    settled: bool = True
    """Kubernetes has acted on the number last written."""
    failure: str | None = None
    """Why pods cannot be created, in the API server's words (a ResourceQuota, an admission webhook)."""
    leaving: bool = False
    asked: str | None = None
    """`WorkerTemplate.asked` of when it was made."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One pod of the service."""

    name: str
    revision: str
    ready: bool = False
    leaving: bool = False
    ip: str | None = None
    node: str | None = None
    deletion_cost: int = 0
    waiting_reason: str | None = None
    """`CrashLoopBackOff`, `ImagePullBackOff`, …: why its container does not run, in the kubelet's words."""
    waiting_message: str | None = None
    ended_code: int | None = None
    """Exit code of the container's last run."""
    restarts: int = 0
    ended_message: str | None = None
    unschedulable: str | None = None
    """Why no node takes it, in the scheduler's words."""
    uid: str = ""
    created: str | None = None
    started: bool = False
    """Its container runs and has been ready at least once since it was started."""
    ready_since: str | None = None
    unready_since: str | None = None
    """While it is, or is not, ready (RFC 3339)."""
    ended_reason: str | None = None
    """Of the container's last run, in the kubelet's words: `OOMKilled`, `Error`."""
    ran_s: float | None = None
    """How long that run took."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that one worker holds, running and waiting, and how long ago it said so. Rates are of the last while."""

    requests: int
    age_s: float
    waiting: int = 0
    """Of the requests, those that do not run yet."""
    kv_use: float = 0.0
    """Share of its KV cache in use."""
    requests_per_s: float = 0.0
    input_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Demanded:
    """Requests of clients in all gateways: open, waiting for a worker among them, and for how long none was open."""

    open: int
    waiting: int
    idle_s: float


@dataclass(frozen=True, slots=True)
class Probe:
    """What the last probe through every gateway replica found."""

    ok: bool
    reason: str
    message: str
    workers: frozenset[str]
    """Workers that were ready when it was sent."""
    gateways: frozenset[str]
    age_s: float
    failures: int = 0
    """Failed probes in a row, this one included."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one InferenceService wants of its Tenant's quota, and what it already has."""

    namespace: str
    name: str
    created: str
    wanted: Demand
    held: Demand
    wished: Demand | None = None
    """What it would want if nothing bounded it; None where `wanted` says it."""
    priority: Priority = Priority.P2
    """Of its SLA: the lowest class gives borrowed workers back first."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another Tenant of the cohort, and what its services want and have."""

    tenant: Tenant
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class PoolShare:
    """What a GPUPool has for a service, where that is less than it asks for."""

    pool: str
    served: int
    """Workers for which there is, or will be cut, a slice."""
    wanted: int
    fixed: bool
    """Its nodes are reserved: nobody adds one because pods wait."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One InferenceService and everything around it."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    spec: InferenceServiceSpec
    status: InferenceServiceStatus
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    model: ModelView | None = None
    model_names: tuple[str, ...] = ()
    """Models of the namespace, for the question "did you mean"."""
    sla_found: bool = False
    sla_unread: tuple[Unread, ...] = ()
    """What of it was stored under another release's rules."""
    sla_names: tuple[str, ...] = ()
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The services that each service of the namespace names as its fallbacks; empty where this one names none."""
    tenant: Tenant | None = None
    other_claims: tuple[Claim, ...] = ()
    """Of the Tenant's other services."""
    cohort: tuple[Neighbour, ...] = ()
    """The other Tenants that lend to and borrow from this one's."""
    priority: Priority = Priority.P2
    revisions: tuple[Revision, ...] = ()
    workers: tuple[Worker, ...] = ()
    loads: Mapping[str, Load] = field(default_factory=dict)
    """By pod name; a worker that did not answer is left out."""
    demand: Demanded | None = None
    """What the gateways say of a service that may sleep; None when they do not."""
    forecast: Forecasted | None = None
    lead_time_s: float = LEAST_LEAD_S
    judged: Judged | None = None
    """How many requests met the targets of the SLA; None where nobody counts."""
    known: Known = NOTHING_KNOWN
    """What the capacity of a worker like these follows from."""
    lengths_awaited: bool = False
    """Nobody has looked yet how long its requests are; an operator that just started has not."""
    pool_share: PoolShare | None = None
    """None while pools have a slice for every worker, or no pool is there."""
    slices: SliceFacts | None = None
    """What the MIG profile follows from where the spec leaves it to us; `spec` then holds what was chosen before."""
    allocation: Allocation = Allocation.DEVICE_PLUGIN
    """How its workers get their devices, as last decided."""
    givers: tuple[Giver, ...] = ()
    """Pools that may decide otherwise; only looked at where one gives devices by ResourceClaims."""
    claim_templates: frozenset[str] = frozenset()
    """Revisions that have a ResourceClaimTemplate."""
    evacuating: frozenset[str] = frozenset()
    """Nodes that will be cut anew or taken away: their workers should move to others first."""
    autoscaler: str | None = None
    """Who else scales this service: `HorizontalPodAutoscaler 'x'`."""
    gateways: frozenset[str] = frozenset()
    """Addresses of the gateway replicas that are ready."""
    probe: Probe | None = None
    compared: Compared | None = None
    """What was measured of the two revisions that are compared."""
    budget_spent: str | None = None
    """Said when nothing of the error budget is left."""
    wishes: Wishes = NOTHING
    """What alerts ask of it."""
    drifts: tuple[Drift, ...] | None = ()
    """How its answers differ from what they were; None while that is not known."""
    objections: Objections | None = None
    """What gateways hold against workers; None while they have not been asked."""
    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)
    """Of the workers, by name; a node that is not known is left out."""
    other_nodes: bool = True
    """Some node of the cluster is ready; only looked at while one of the workers' nodes is not."""
    health: HealthStatus | None = None
    """What self-healing remembers."""
    optional_kinds: frozenset[str] = frozenset()
    """Kinds of others that the cluster need not know and does."""
    refused: str | None = None
    """What the API server answered to the last child it would not take; None when it took all."""

    @property
    def ready_workers(self) -> frozenset[str]:
        """Names of the workers that would be sent a request."""
        return frozenset(worker.name for worker in self.workers if worker.ready and not worker.leaving)
