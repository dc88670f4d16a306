"""What a Node says of its GPUs, and what we write on it: the only memory of a repartition.

Everything that a restart needs lies on the Node itself, written in one patch with the act that it records; a Node that
is deleted takes its record with it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from controllers.plans.interruption import Notice, notice_of
from controllers.plans.mig.geometry import (
    LABEL_COUNT,
    Family,
    UnknownGpu,
    family_of,
    profile_of_resource,
)
from controllers.plans.mig.layouts import MOST_PLACEMENTS, Layout, is_enumerable, layout
from controllers.plans.mig.sharing import SHARED_RESOURCE, Share, is_shared, share_of
from crds.contract import (
    ANNOTATION_FAULTS,
    ANNOTATION_INTERRUPTION,
    ANNOTATION_MIG_GEOMETRY,
    ANNOTATION_MIG_LAYOUT,
    ANNOTATION_QUARANTINE,
    ANNOTATION_REPARTITION,
)

LABEL_CONFIG: Final = "nvidia.com/mig.config"
LABEL_STATE: Final = "nvidia.com/mig.config.state"
LABEL_STRATEGY: Final = "nvidia.com/mig.strategy"


UNREADABLE: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What an annotation raises that is not as we write it: a kubelet may write anything onto its own Node."""


def moment(raw: Any) -> float:
    """Unix time as JSON has it. Raises ValueError for one that never comes."""
    if not math.isfinite(at_s := float(raw)):
        raise ValueError(f"{raw} is no time")
    return at_s


class Step(StrEnum):
    """Where a node is on its way to another layout."""

    MOVE = "move"
    """Cordoned; workers move to other nodes, then the rest is drained."""
    ASK = "ask"
    """The MIG manager was asked; its devices are awaited."""
    BACK = "back"
    """The former layout was asked for again."""
    HELD = "held"
    """Back in use with the former layout; not tried again before a while."""
    STUCK = "stuck"
    """Neither layout came: cordoned until a person acts or the devices appear."""


@dataclass(frozen=True, slots=True)
class Record:
    """A repartition under way."""

    step: Step
    since_s: float
    """Unix time at which the step began."""
    gpus: tuple[Layout, ...]
    """Wanted layout of each GPU."""
    before: tuple[Layout, ...] | None
    """Former layout of each GPU: as we had asked for it, else one that gives the same; None: MIG off."""
    was: Layout
    """What the node gave before."""
    cordoned: bool
    """By us: a node that somebody else had cordoned stays so afterwards."""
    attempt: int = 1
    reason: str = ""
    success_s: float | None = None
    """When the manager's `success` was first seen in this step."""

    @property
    def wanted(self) -> Layout:
        """What the whole node should give."""
        return total(self.gpus)

    def dump(self) -> str:
        """The annotation."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def read(cls, text: str | None) -> Record | None:
        """None without a record; one that cannot be read is none, and the node is looked at afresh."""
        try:
            raw = json.loads(text) if text else None
            if raw is None:
                return None
            return cls(
                step=Step(raw["step"]),
                since_s=moment(raw["since_s"]),
                gpus=tuple(_layout(one) for one in raw["gpus"]),
                before=None if raw["before"] is None else tuple(_layout(one) for one in raw["before"]),
                was=_layout(raw["was"]),
                cordoned=bool(raw["cordoned"]),
                attempt=int(raw["attempt"]),
                reason=str(raw["reason"]),
                success_s=None if raw.get("success_s") is None else moment(raw["success_s"]),
            )
        except UNREADABLE:
            return None


def total(gpus: Sequence[Layout]) -> Layout:
    """Of several GPUs together."""
    return layout(sum((Counter(dict(one)) for one in gpus), Counter()))


def dump_gpus(gpus: Sequence[Layout]) -> str:
    """The annotation that stays on a node: the layout of each of its GPUs."""
    return json.dumps([[list(part) for part in one] for one in gpus], separators=(",", ":"))


def read_gpus(text: str | None) -> tuple[Layout, ...] | None:
    """What `dump_gpus` wrote; None for everything else."""
    try:
        return tuple(_layout(one) for one in json.loads(text)) if text else None
    except UNREADABLE:
        return None


def _layout(raw: Any) -> Layout:
    return layout({str(name): int(count) for name, count in raw})


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as plans see it. Facts only."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    cordoned: bool
    gpu_count: int
    family: Family | None
    problem: str | None
    """Why its GPUs cannot be cut; None when they can."""
    now: Layout
    """Slices and whole GPUs that pods can be given now."""
    config: str
    state: str
    asked: tuple[Layout, ...] | None
    """Layout of each GPU, as last asked by us."""
    record: Record | None
    resource_version: str = ""
    faults: str | None = None
    """The GPU agent's annotation, unread."""
    quarantine: str | None = None
    """Ours, unread."""
    share: Share | None = None
    """What its device plugin makes of its GPUs where it shares them without MIG; such a node is never cut."""
    shares: int = 0
    """Of them, that pods can be given."""
    notice: Notice | None = None
    """That it will be taken away, as its cloud or an autoscaler says."""
    interruption: str | None = None
    """Ours, unread."""

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> NodeView | None:
        """From the object; None for a node without GPUs."""
        meta, status = node["metadata"], node.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        record = Record.read(annotations.get(ANNOTATION_REPARTITION))
        allocatable = status.get("allocatable") or {}
        now = _allocatable(allocatable)
        count = _count(labels.get(LABEL_COUNT, ""))
        if count == 0 and not now and record is None:
            return None
        shared = is_shared(labels)
        share, why_not = share_of(labels, allocatable) if shared else (None, "")
        found, problem = (None, None) if shared else _family(meta["name"], labels, annotations, count)
        if why_not:
            problem = f"Node '{meta['name']}' {why_not}."
        conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        return cls(
            name=meta["name"],
            labels=labels,
            ready=conditions.get("Ready") == "True" and not meta.get("deletionTimestamp"),
            cordoned=bool((node.get("spec") or {}).get("unschedulable")),
            gpu_count=count,
            family=found,
            problem=problem,
            now=now,
            config=labels.get(LABEL_CONFIG, ""),
            state=labels.get(LABEL_STATE, ""),
            asked=read_gpus(annotations.get(ANNOTATION_MIG_LAYOUT)),
            record=record,
            resource_version=str(meta.get("resourceVersion", "")),
            faults=annotations.get(ANNOTATION_FAULTS),
            quarantine=annotations.get(ANNOTATION_QUARANTINE),
            share=share,
            notice=notice_of(node),
            interruption=annotations.get(ANNOTATION_INTERRUPTION),
            shares=_count(str(allocatable.get(SHARED_RESOURCE, ""))),
        )


def _allocatable(resources: Mapping[str, str]) -> Layout:
    counts = {profile_of_resource(name): _count(str(amount)) for name, amount in resources.items()}
    return layout({name: count for name, count in counts.items() if name is not None})


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _family(
    name: str, labels: Mapping[str, str], annotations: Mapping[str, str], count: int
) -> tuple[Family | None, str | None]:
    if count == 0:
        return None, f"Node '{name}' has no label {LABEL_COUNT}; GPU feature discovery writes it."
    if labels.get(LABEL_STRATEGY) == "single":
        return None, (
            f"Node '{name}' has MIG strategy 'single', which shows slices as whole GPUs: a pod could get either."
            " Set the device plugin's strategy to 'mixed'."
        )
    try:
        found = family_of(name, labels, annotations)
    except UnknownGpu as unknown:
        return None, str(unknown)
    if not is_enumerable(found):
        return None, (
            f"Node '{name}' says in {ANNOTATION_MIG_GEOMETRY} that its GPUs can be cut in more than {MOST_PLACEMENTS}"
            " ways. Let the node agent write the annotation anew, or take the node out of the pool."
        )
    return found, None


@dataclass(frozen=True, slots=True)
class GpuPod:
    """A pod that holds slices or GPUs of a node, or waits for some."""

    namespace: str
    name: str
    uid: str
    node: str | None
    slices: Layout
    service: str | None
    """Name of the InferenceService; None for pods of others, which we never touch."""
    leaving: bool = False
    shares: int = 0
    """Of GPUs that are shared without MIG."""
    claims: bool = False
    """It has ResourceClaims; of which devices, these say."""
    what: str = "Pod"
    """Or the ResourceClaim that holds devices for nobody."""

    @classmethod
    def of(cls, pod: Mapping[str, Any], label_service: str) -> GpuPod | None:
        """None for a pod without GPUs and claims, and for one that has ended."""
        meta, spec = pod["metadata"], pod.get("spec") or {}
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return None
        held: Counter[str] = Counter()
        shares = 0
        for container in spec.get("containers") or ():
            limits = (container.get("resources") or {}).get("limits") or {}
            held.update(dict(_allocatable({name: str(amount) for name, amount in limits.items()})))
            shares += _count(str(limits.get(SHARED_RESOURCE, "")))
        claims = bool(spec.get("resourceClaims"))
        if not held and not shares and not claims:
            return None
        return cls(
            meta["namespace"],
            meta["name"],
            meta.get("uid", ""),
            spec.get("nodeName"),
            layout(held),
            (meta.get("labels") or {}).get(label_service),
            bool(meta.get("deletionTimestamp")),
            shares,
            claims,
        )
