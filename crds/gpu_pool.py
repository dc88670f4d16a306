"""GPUPool: nodes whose GPUs are cut into MIG slices as the demand of services calls for."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from crds.conditions import Condition
from crds.fields import Duration, ListMap, ListSet, ObjectName, Part, Quantity, Rule
from crds.inference_service import Allocation, SharingStrategy
from crds.scaling import CLOCK, TimeZone, Weekday

PROFILE = r"^[1-7]g\.[1-9][0-9]{0,2}gb(\.me)?$"


class CapacityClass(StrEnum):
    """How the nodes are paid for."""

    RESERVED = "reserved"
    ON_DEMAND = "onDemand"
    SPOT = "spot"


class QuietWindow(Part):
    """A time of the week in which workers may be moved."""

    rules: ClassVar = (
        Rule("self.start != self.end", "start and end must differ; a window that ends before it starts ends next day"),
    )
    name: Annotated[ObjectName, Field(description="Name of the window.")]
    days: Annotated[
        list[Weekday] | None,
        ListSet(),
        Field(description="Days on which it starts; every day when left out.", min_length=1, max_length=7),
    ] = None
    start: Annotated[str, Field(description="First minute, for example 01:00.", pattern=CLOCK, max_length=5)]
    end: Annotated[str, Field(description="First minute after it, for example 05:30.", pattern=CLOCK, max_length=5)]
    time_zone: Annotated[TimeZone, Field(description="IANA name of the time zone, for example Europe/Berlin.")] = "UTC"


class Repartition(Part):
    """When and how nodes are cut anew."""

    windows: Annotated[
        list[QuietWindow] | None,
        ListMap(("name",)),
        Field(
            description="Times in which nodes with workers may be cut anew; any time when left out. "
            "Nodes without workers are cut whenever it helps.",
            max_length=16,
        ),
    ] = None
    max_percent_at_once: Annotated[
        int, Field(description="Nodes that may be cut anew at the same time, in percent; at least one.", ge=1, le=100)
    ] = 25
    move_timeout: Annotated[
        Duration,
        Field(description="How long workers get to move to other nodes before they are drained without a successor."),
    ] = "5m"
    timeout: Annotated[
        Duration,
        Field(description="How long the MIG manager may take before the node is put back to its former layout."),
    ] = "15m"
    horizon: Annotated[
        Duration,
        Field(
            description="How long a new layout is expected to be right: moving a worker costs its slice the time of a "
            "repartition out of this."
        ),
    ] = "60m"


class GPUPoolSpec(Part):
    """Which nodes, and what they may be cut into."""

    node_selector: Annotated[
        dict[str, str],
        Field(
            description="Labels of the nodes. A node belongs to one pool: the first by name.",
            min_length=1,
            max_length=32,
        ),
    ]
    profiles: Annotated[
        list[Annotated[str, Field(pattern=PROFILE, max_length=12)]] | None,
        ListSet(),
        Field(
            description="MIG profiles that may be cut, for example 1g.10gb; all but those with media engines (.me) "
            "when left out.",
            min_length=1,
            max_length=32,
        ),
    ] = None
    whole_gpus: Annotated[bool, Field(description="GPUs may also be left whole, for services on `gpu`.")] = True
    allocation: Annotated[
        Allocation,
        Field(
            description="How workers get devices of these nodes: devicePlugin (resources like nvidia.com/mig-1g.10gb) "
            "or resourceClaims (of NVIDIA's DRA driver, Kubernetes 1.34 or newer)."
        ),
    ] = Allocation.DEVICE_PLUGIN
    capacity_class: Annotated[
        CapacityClass, Field(description="How the nodes are paid for: reserved, onDemand or spot.")
    ] = CapacityClass.ON_DEMAND
    price_per_gpu_hour: Annotated[
        Quantity | None,
        Field(
            description="Of one GPU, in the currency of the chart's prices. The cost plans of CapacityForecasts reckon "
            "with it; a slice costs its share."
        ),
    ] = None
    repartition: Annotated[Repartition, Field(description="When and how nodes are cut anew.")] = Repartition()


class ProfileStatus(Part):
    """Slices of one profile over the whole pool."""

    profile: Annotated[str, Field(description="MIG profile, or gpu for whole GPUs.", max_length=16)]
    slices: Annotated[int, Field(description="That exist or are on their way.", ge=0)]
    used: Annotated[int, Field(description="With a worker.", ge=0)]
    wanted: Annotated[int, Field(description="That services ask for.", ge=0)]


class NodeStatus(Part):
    """One node."""

    name: Annotated[str, Field(description="Name of the node.", max_length=253)]
    layout: Annotated[str, Field(description="What its GPUs are cut into now.", max_length=512)]
    target: Annotated[str | None, Field(description="What it is being cut into.", max_length=512)] = None
    state: Annotated[
        str,
        Field(
            description="Ready, Moving, Asking, GoingBack, Held, Stuck, Quarantined, Leaving, Frozen or Shared.",
            max_length=16,
        ),
    ]
    message: Annotated[str | None, Field(description="Why, as a sentence.", max_length=1024)] = None


class SharingStatus(Part):
    """GPUs that the device plugin shares without MIG, all alike."""

    strategy: Annotated[SharingStrategy, Field(description="timeSlicing or mps.")]
    replicas: Annotated[int, Field(description="How many share one GPU.", ge=2)]
    gigabytes: Annotated[int, Field(description="GB of memory of one share.", ge=0)]
    shares: Annotated[int, Field(description="That ready nodes offer.", ge=0)]
    used: Annotated[int, Field(description="With a pod.", ge=0)]


class UnmetDemand(Part):
    """Workers for which there is no slice."""

    service: Annotated[str, Field(description="namespace/name.", max_length=128)]
    profile: Annotated[
        str, Field(description="MIG profile, gpu, or the share of a GPU, for example mps 20gb.", max_length=32)
    ]
    wanted: Annotated[int, Field(description="Workers.", ge=0)]
    served: Annotated[int, Field(description="Workers with a slice.", ge=0)]


class GPUPoolStatus(Part):
    """What the pool is cut into, and why."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(description="Ready, DemandMet and, while they apply, Reconciling and Stalled.", max_length=16),
    ] = None
    gpus: Annotated[int | None, Field(description="GPUs of the pool.", ge=0)] = None
    layout: Annotated[str | None, Field(description="Slices of the pool, largest first.", max_length=512)] = None
    fragmentation: Annotated[
        str | None, Field(description="Of the spare slices: 0% when they are whole GPUs.", max_length=8)
    ] = None
    served: Annotated[str | None, Field(description="Workers with a slice, of those wanted.", max_length=32)] = None
    reason: Annotated[str | None, Field(description="Why the pool is cut as it is.", max_length=2048)] = None
    profiles: Annotated[
        list[ProfileStatus] | None, ListMap(("profile",)), Field(description="By profile.", max_length=64)
    ] = None
    sharing: Annotated[
        list[SharingStatus] | None,
        ListMap(("strategy", "replicas", "gigabytes")),
        Field(description="GPUs that are shared without MIG; they are not cut.", max_length=64),
    ] = None
    nodes: Annotated[list[NodeStatus] | None, ListMap(("name",)), Field(description="By node.", max_length=1000)] = None
    unmet: Annotated[
        list[UnmetDemand] | None,
        ListMap(("service",)),
        Field(description="Services that wait for slices, the most important first.", max_length=100),
    ] = None
