"""InferenceService: one model, served by a number of workers, behind the gateway."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from crds.conditions import Condition
from crds.diagnosis import DiagnosisStatus
from crds.fields import (
    LABEL_VALUE,
    SELECTOR_RULES,
    SOME,
    SOME_BYTES,
    SUBDOMAIN,
    Duration,
    ListMap,
    ObjectName,
    Part,
    Quantity,
    Rule,
    is_label_key,
)
from crds.healing import Healing, HealthStatus
from crds.rollout import Rollout, RolloutStatus
from crds.routing import Fallback, Routing
from crds.scaling import Scaling, ScalingStatus
from crds.traffic import TrafficShare

AUTO: Final = "auto"
"""In the place of a MIG profile: the operator chooses."""


class CPU(Part):
    """Workers without an accelerator."""

    cores: Annotated[Quantity, SOME, Field(description="CPU cores of one worker; requested, not limited.")] = "1"
    memory: Annotated[
        Quantity, SOME_BYTES, Field(description="Memory of one worker: weights, KV cache and 0.7 GB of runtime.")
    ] = "2Gi"


class GPU(Part):
    """Workers on whole GPUs."""

    count: Annotated[int, Field(description="GPUs of one worker.", ge=1, le=16)] = 1
    cores: Annotated[Quantity, SOME, Field(description="CPU cores of one worker; requested, not limited.")] = "2"
    memory: Annotated[Quantity, SOME_BYTES, Field(description="Host memory of one worker.")] = "16Gi"


class MIG(Part):
    """Workers on MIG slices."""

    profile: Annotated[
        str,
        Field(
            description="MIG profile of one worker as NVIDIA names it, for example 1g.10gb; or auto: the smallest that "
            "GPU pools offer and that holds the Model within its SLA (status.slice says which, and why).",
            pattern=r"^(auto|[1-7]g\.[1-9][0-9]{0,2}gb(\.me)?)$",
            max_length=12,
        ),
    ]
    cores: Annotated[Quantity, SOME, Field(description="CPU cores of one worker; requested, not limited.")] = "1"
    memory: Annotated[Quantity, SOME_BYTES, Field(description="Host memory of one worker.")] = "8Gi"

    @property
    def is_auto(self) -> bool:
        """The profile is not named, and not chosen yet."""
        return self.profile == AUTO

    @property
    def gigabytes(self) -> int:
        """Of one slice, as the profile's name says it; 0 where none is chosen."""
        return 0 if self.is_auto else int(self.profile.partition(".")[2].partition("gb")[0])


class SharingStrategy(StrEnum):
    """How a GPU is shared without MIG."""

    TIME_SLICING = "timeSlicing"
    MPS = "mps"


class SharedGPU(Part):
    """Workers on a part of a GPU that others use as well, without the isolation of MIG."""

    strategy: Annotated[
        SharingStrategy,
        Field(
            description="How its node's device plugin shares GPUs: mps (memory and threads limited for each client) or "
            "timeSlicing (turns; memory limited by the worker itself). With either, a GPU fault of one ends all."
        ),
    ]
    gigabytes: Annotated[
        int,
        Field(
            description="GB of GPU memory of one worker: weights, KV cache, activations and libraries. It runs where "
            "the GPU's memory, divided by those who share it, is at least this.",
            ge=1,
            le=288,
        ),
    ]
    cores: Annotated[Quantity, SOME, Field(description="CPU cores of one worker; requested, not limited.")] = "1"
    memory: Annotated[Quantity, SOME_BYTES, Field(description="Host memory of one worker.")] = "8Gi"


class Accelerator(Part):
    """What one worker runs on: exactly one of cpu, gpu, mig and shared."""

    rules: ClassVar = (
        Rule(
            "[has(self.cpu), has(self.gpu), has(self.mig), has(self.shared)].filter(x, x).size() == 1",
            "set exactly one of cpu, gpu, mig and shared",
        ),
    )
    cpu: Annotated[CPU | None, Field(description="Run on CPU cores.")] = None
    gpu: Annotated[GPU | None, Field(description="Run on whole GPUs.")] = None
    mig: Annotated[MIG | None, Field(description="Run on one MIG slice.")] = None
    shared: Annotated[
        SharedGPU | None, Field(description="Run on a part of a GPU that the device plugin shares without MIG.")
    ] = None

    @property
    def part(self) -> CPU | GPU | MIG | SharedGPU:
        """The one that is set."""
        found = self.cpu or self.gpu or self.mig or self.shared
        assert found, "the API server refuses an accelerator without any"
        return found


class Allocation(StrEnum):
    """How pods get the GPUs and slices of a pool's nodes."""

    DEVICE_PLUGIN = "devicePlugin"
    RESOURCE_CLAIMS = "resourceClaims"


class Scheduling(Part):
    """In which order an engine serves its requests, and how it puts them into batches."""

    rules: ClassVar = (
        Rule(
            "!has(self.minBatch) || !has(self.maxBatch) || self.minBatch <= self.maxBatch",
            "minBatch must not be larger than maxBatch",
        ),
        Rule(
            "!has(self.minWait) || (has(self.maxWait) && duration(self.minWait) <= duration(self.maxWait))",
            "minWait needs a maxWait that is at least as long",
        ),
    )
    policy: Annotated[
        str | None,
        Field(
            description="Who comes first: fcfs (the default), priority (P0 to P3), fair (shares of tenants in tokens), "
            "edf (earliest deadline) or feedback (short work first).",
            json_schema_extra={"enum": ["fcfs", "priority", "fair", "edf", "feedback"]},
        ),
    ] = None
    batching: Annotated[
        str | None,
        Field(
            description="When requests may join those that run: continuous (the default, at once), adaptive (in "
            "groups, smaller the fuller the engine), dynamic (a batch runs to its end) or static (full batches only).",
            json_schema_extra={"enum": ["continuous", "adaptive", "dynamic", "static"]},
        ),
    ] = None
    packing: Annotated[
        str | None,
        Field(
            description="Which of the waiting requests make up a batch: order (the default), first-fit (fills whole "
            "steps, the longest prompts first) or buckets (prompts of like length).",
            json_schema_extra={"enum": ["order", "first-fit", "buckets"]},
        ),
    ] = None
    min_batch: Annotated[int | None, Field(description="Fewer requests begin no batch.", ge=1, le=4096)] = None
    max_batch: Annotated[int | None, Field(description="Requests that run at once, at most.", ge=1, le=4096)] = None
    batch_base: Annotated[
        int | None,
        Field(description="Adaptive batching: size of a group where nothing runs; base × (1 - use).", ge=1, le=4096),
    ] = None
    min_wait: Annotated[
        Duration | None, Field(description="A batch begins no sooner after its first request came.")
    ] = None
    max_wait: Annotated[Duration | None, Field(description="A batch waits no longer to be filled.")] = None
    ageing: Annotated[
        Duration | None, Field(description="After this wait a request counts as one of the next better class.")
    ] = None


class Engine(Part):
    """Settings of the inference engine; what is left out follows from the model."""

    max_model_len: Annotated[
        int | None,
        Field(
            description="Longest prompt plus completion in tokens; at most what the model allows.", ge=16, le=10_000_000
        ),
    ] = None
    max_num_seqs: Annotated[
        int | None, Field(description="Requests that one worker runs at the same time.", ge=1, le=4096)
    ] = None
    kv_cache: Annotated[
        Quantity | None,
        SOME_BYTES,
        Field(description="Memory for the paged KV cache of one worker, for example 512Mi."),
    ] = None
    kv_swap: Annotated[
        Quantity | None,
        Field(
            description="Host memory of one worker for the KV cache of requests that give way, for example 8Gi, beside "
            "all that it needs otherwise; when left out, their cache is computed again."
        ),
    ] = None
    scheduling: Annotated[
        Scheduling | None, Field(description="Order and batches; first come, first served when left out.")
    ] = None


class Toleration(Part):
    """A taint that the workers accept (as in a Pod)."""

    rules: ClassVar = (
        Rule(
            "self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "operator Exists accepts every value: leave value out, or set operator to Equal",
        ),
        Rule(
            "self.operator == 'Exists' || (has(self.key) && self.key != '')",
            "only operator Exists goes without a key",
        ),
        Rule(f"!has(self.key) || self.key == '' || {is_label_key('self.key')}", "key is no key of a taint"),
        Rule(f"!has(self.value) || self.value.matches('{LABEL_VALUE}')", "value is no value of a taint"),
    )
    key: Annotated[str | None, Field(description="Key of the taint; all keys when left out.", max_length=316)] = None
    operator: Annotated[str, Field(description="Equal or Exists.", json_schema_extra={"enum": ["Equal", "Exists"]})] = (
        "Equal"
    )
    value: Annotated[str | None, Field(description="Value of the taint for Equal.", max_length=63)] = None
    effect: Annotated[
        str | None,
        Field(
            description="Effect of the taint; all effects when left out.",
            json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        ),
    ] = None


class ZoneSpread(StrEnum):
    """What a worker does where its zone would get too many."""

    PREFERRED = "preferred"
    REQUIRED = "required"


class Placement(Part):
    """How the workers of a revision lie over failure domains; Kubernetes' own scheduler decides."""

    zones: Annotated[
        ZoneSpread,
        Field(
            description="Workers of a revision are spread evenly over zones: preferred (one starts in a full zone "
            "rather than not at all) or required (it waits for a place in another)."
        ),
    ] = ZoneSpread.PREFERRED


class InferenceServiceSpec(Part):
    """What should be served, on what, by how many."""

    rules: ClassVar = (
        Rule(
            "!(has(self.replicas) && has(self.scaling)) || self.scaling.policy == 'advisory'",
            "set either replicas or scaling, not both; only scaling with policy advisory leaves replicas to others",
        ),
    )
    model: Annotated[ObjectName, Field(description="Name of the Model, in the same namespace.")]
    sla: Annotated[
        ObjectName | None,
        Field(description="Name of the SLA, in the same namespace. Without one no target is measured."),
    ] = None
    accelerator: Annotated[Accelerator, Field(description="What one worker runs on.")]
    replicas: Annotated[
        int | None, Field(description="Workers; 1 when left out, unless scaling chooses their number.", ge=0, le=1000)
    ] = None
    scaling: Annotated[Scaling | None, Field(description="Let the operator choose the number of workers.")] = None
    engine: Annotated[Engine, Field(description="Settings of the inference engine.")] = Engine()
    rollout: Annotated[Rollout, Field(description="How a new revision replaces the old one.")] = Rollout()
    routing: Annotated[Routing, Field(description="How requests find a worker.")] = Routing()
    fallbacks: Annotated[
        list[Fallback] | None,
        Field(
            description="Tried in this order, and told to the client in the header x-foretide-fallback, when the "
            "service has no healthy worker, sheds the request or cannot meet its deadline.",
            max_length=8,
        ),
    ] = None
    healing: Annotated[
        Healing | None, Field(description="What the operator may do about workers that are not well.")
    ] = None
    node_selector: Annotated[
        dict[str, str] | None,
        Field(description="Labels that a worker's node must have.", max_length=32),
        *SELECTOR_RULES,
    ] = None
    placement: Annotated[Placement, Field(description="How workers lie over zones.")] = Placement()
    tolerations: Annotated[
        list[Toleration] | None, Field(description="Taints of nodes that the workers accept.", max_length=32)
    ] = None
    priority_class_name: Annotated[
        str | None,
        Rule("!self.startsWith('system-')", "the platform's own classes (system-…) are not for workers"),
        Field(
            description="PriorityClass of the workers' pods: who waits and who gives way where nodes are full. The "
            "cluster's default when left out.",
            pattern=f"^{SUBDOMAIN}$",
            max_length=253,
        ),
    ] = None


class RevisionStatus(Part):
    """One revision: a Deployment of its own."""

    name: Annotated[str, Field(description="Hash of everything that makes a worker.", max_length=63)]
    replicas: Annotated[int, Field(description="Workers that exist.", ge=0)]
    ready_replicas: Annotated[int, Field(description="Workers that are ready.", ge=0)]


class RefusedProfile(Part):
    """A MIG profile that is too small."""

    profile: Annotated[str, Field(description="As NVIDIA names it.", max_length=12)]
    reason: Annotated[str, Field(description="Why, as arithmetic.", max_length=1024)]


class SliceChoice(Part):
    """Which MIG profile `auto` stands for, and why."""

    profile: Annotated[
        str | None, Field(description="Of the workers; absent where none has ever fitted.", max_length=12)
    ] = None
    fits: Annotated[bool, Field(description="False: no profile that is offered holds the Model within its SLA.")]
    inputs: Annotated[
        str, Field(description="Hash of all that the choice follows from; it stands until this changes.", max_length=16)
    ]
    reason: Annotated[str, Field(description="Why it fits, or why none does, as arithmetic.", max_length=2048)]
    smaller: Annotated[
        list[RefusedProfile] | None,
        ListMap(("profile",)),
        Field(description="Profiles that do not fit, the smallest first.", max_length=64),
    ] = None


class InferenceServiceStatus(Part):
    """What stands now; written by the operator."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(
            description="Ready, Servable and, while they apply, Reconciling, Stalled, Degraded, ScalingHeld, "
            "ScalingLimited, ForecastTrusted, QualityDrift, WeakIsolation and WorkersOutdated.",
            max_length=16,
        ),
    ] = None
    url: Annotated[str | None, Field(description="Base URL for OpenAI clients inside the cluster.", max_length=512)] = (
        None
    )
    model_name: Annotated[
        str | None, Field(description="What a client writes into the field `model`.", max_length=128)
    ] = None
    tenant: Annotated[str | None, Field(description="Tenant that owns the namespace.", max_length=63)] = None
    current_revision: Annotated[
        str | None,
        Field(
            description="Revision that all workers should have: of the present spec, or the one that stands for it "
            "(after a rollback, while the spec cannot be followed, after an upgrade of the operator).",
            max_length=63,
        ),
    ] = None
    revisions: Annotated[
        list[RevisionStatus] | None,
        ListMap(("name",)),
        Field(description="Revisions that have workers.", max_length=32),
    ] = None
    traffic: Annotated[
        list[TrafficShare] | None,
        ListMap(("revision",)),
        Field(
            description="How gateways split sessions between revisions; absent while there is no split, and every "
            "ready worker is as good as any other.",
            max_length=4,
        ),
    ] = None
    desired_replicas: Annotated[int | None, Field(description="Workers wanted now.", ge=0)] = None
    replicas: Annotated[int | None, Field(description="Workers that exist, of all revisions.", ge=0)] = None
    ready_replicas: Annotated[int | None, Field(description="Workers that are ready, of all revisions.", ge=0)] = None
    replica_status: Annotated[str | None, Field(description="Ready of desired workers, for people.", max_length=16)] = (
        None
    )
    selector: Annotated[
        str | None, Field(description="Label selector of the workers, for autoscalers.", max_length=512)
    ] = None
    scaling: Annotated[ScalingStatus | None, Field(description="What the operator makes of spec.scaling.")] = None
    slice: Annotated[
        SliceChoice | None, Field(description="The MIG profile chosen for `profile: auto`; absent otherwise.")
    ] = None
    allocation: Annotated[
        Allocation | None,
        Field(description="resourceClaims where workers get their devices so; absent where by the device plugin."),
    ] = None
    rollout: Annotated[
        RolloutStatus | None, Field(description="How far the rollout is; absent with strategy rolling.")
    ] = None
    health: Annotated[HealthStatus | None, Field(description="What self-healing found, did and remembers.")] = None
    diagnosis: Annotated[
        DiagnosisStatus | None, Field(description="What was wrong when an alert last asked for a diagnosis.")
    ] = None
