"""The diagnosis tree, as data: symptom → cause → check → remedies, in the order in which a person would look.

A check returns the evidence as a sentence, or None. The first branch whose check finds something is the cause; each
symptom has one last branch that always does. To teach it something new, add a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controllers.plans.healing.values import Kind, NodeFacts, Symptom
from controllers.plans.snapshot import Worker
from crds.contract import WORKER_EXIT_REFUSED, WORKER_EXIT_SCRATCH_FULL, WORKER_MODEL_MOUNT
from crds.healing import ErrorClass, Remedy

OUT_OF_MEMORY: Final = 137
FAULT_S: Final = 600.0
"""A fault of a GPU that was longer ago explains nothing of today."""


@dataclass(frozen=True, slots=True)
class Case:
    """One symptom with what is known around it."""

    symptom: Symptom
    worker: Worker
    node: NodeFacts | None
    siblings_ready: int
    """Other ready workers of its revision."""
    now_s: float
    is_new: bool
    """Its revision is not the last that stood."""


Check = Callable[[Case], str | None]


@dataclass(frozen=True, slots=True)
class Branch:
    """One way to explain a symptom. `healer` goes first and gets `patience_s`."""

    cause: str
    error_class: ErrorClass
    symptoms: frozenset[Kind]
    check: Check
    remedies: tuple[Remedy, ...]
    healer: str
    patience_s: float
    advice: str
    effect: str
    proven_s: float = 15.0
    """How long a successor must do well until a remedy is said to have helped: longer than a symptom takes to show."""


def _node_lost(case: Case) -> str | None:
    node = case.node
    return f"Node {node.name} is not ready: {node.said or 'no word'}" if node and not node.ready else None


def _quarantined(case: Case) -> str | None:
    node = case.node
    return f"Node {node.name} is in quarantine: {node.quarantine}" if node and node.quarantine else None


def _gpu_fault(case: Case) -> str | None:
    node = case.node
    recent = [said for at_s, said in node.faults if case.now_s - at_s <= FAULT_S] if node else []
    return f"{', '.join(recent)} on node {case.symptom.node}; {case.symptom.said}" if recent else None


def _pressure(case: Case) -> str | None:
    node = case.node
    if node is None or not node.pressures:
        return None
    return f"Node {node.name} has {' and '.join(node.pressures)}; {case.symptom.said}"


def _new_revision(case: Case) -> str | None:
    if not case.is_new or case.siblings_ready:
        return None
    return f"Revision {case.symptom.revision} has no ready worker and never stood; {case.symptom.said}"


def _model_file(case: Case) -> str | None:
    worker = case.worker
    said = (worker.ended_message or "").strip()
    if worker.ended_code != WORKER_EXIT_REFUSED or f"{WORKER_MODEL_MOUNT}/" not in said:
        return None
    return f"It cannot read its model; {case.symptom.said}"


def _memory(case: Case) -> str | None:
    worker = case.worker
    killed = worker.ended_reason == "OOMKilled" or (worker.ended_code == OUT_OF_MEMORY and not worker.ended_message)
    return f"Killed for memory; {case.symptom.said}" if killed else None


def _scratch(case: Case) -> str | None:
    return (
        f"Its scratch volume was too full; {case.symptom.said}"
        if case.worker.ended_code == WORKER_EXIT_SCRATCH_FULL
        else None
    )


def _alone(case: Case) -> str | None:
    """Its equals do well."""
    ready = case.siblings_ready
    return f"{case.symptom.said}, while {ready} of its revision are ready" if ready else None


def _always(case: Case) -> str | None:
    return case.symptom.said


_LOST = frozenset({Kind.HUNG, Kind.SILENT, Kind.REFUSED, Kind.UNREADY})
_BAD = frozenset({Kind.SLOW, Kind.FAILING})
_DEAD = frozenset({Kind.CRASHING, Kind.NOT_STARTED})
_KUBELET = "the kubelet restarts it in its place (liveness: no progress for 6 s)"
_MOVED = "Gateways have moved its requests to others"

TREE: Final[tuple[Branch, ...]] = (
    # The node explains everything on it.
    Branch(
        "NodeNotReady", ErrorClass.SYSTEM, _LOST | _BAD | _DEAD | {Kind.NODE_GONE}, _node_lost,
        (Remedy.SHIFT_TRAFFIC, Remedy.MOVE_WORKER), "its node may come back", 10.0,
        "Look at the node: kubelet, network, power.", "Its workers start on other nodes.",
    ),
    Branch(
        "NodeInQuarantine", ErrorClass.SYSTEM, _LOST | _BAD | _DEAD, _quarantined,
        (Remedy.SHIFT_TRAFFIC, Remedy.QUARANTINE), "the GPU pool moves its workers, successors first", 600.0,
        "Replace or reset the GPU; kubectl describe gpupool says until when it is out of use.",
        "The node's slices come back; until then the capacity is missing.",
    ),
    Branch(
        "GpuFault", ErrorClass.SYSTEM, _LOST | _BAD | _DEAD, _gpu_fault,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), _KUBELET, 20.0,
        "Follow NVIDIA's catalogue for this XID; a fault that returns is one of the hardware.",
        "The worker starts with a fresh context on the GPU.",
    ),
    Branch(
        "NodeUnderPressure", ErrorClass.RESOURCE, _LOST | _BAD | _DEAD, _pressure,
        (Remedy.SHIFT_TRAFFIC, Remedy.MOVE_WORKER), "the kubelet evicts what is over its requests", 20.0,
        "Free memory or disk on the node, or lower what its pods ask for.",
        "Its workers start where there is room; Kubernetes keeps new pods off the node meanwhile.",
    ),
    # A revision that never worked.
    Branch(
        "BadRevision", ErrorClass.MODEL, _DEAD, _new_revision,
        (Remedy.ROLL_BACK,), "one crash may be chance", 0.0,
        "Correct the spec; any edit is tried again.", "The last revision that stood serves until then.",
    ),
    # What a worker said as it ended.
    Branch(
        "ModelUnreadable", ErrorClass.MODEL, _DEAD, _model_file,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), "the kubelet restarts it in its place", 60.0,
        "Compare the Model's digest and source; where other nodes can read it, delete this node's copy.",
        "The node agent fetches and verifies the file again.",
    ),
    Branch(
        "OutOfMemory", ErrorClass.RESOURCE, _DEAD, _memory,
        (Remedy.SHIFT_TRAFFIC,), "the kubelet restarts it in its place", 0.0,
        "Raise accelerator memory, or lower engine.kvCache or engine.maxNumSeqs.",
        "The worker's peak fits into its limit; a restart alone would end in the same way.",
    ),
    Branch(
        "ScratchFull", ErrorClass.RESOURCE, _DEAD, _scratch,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), "it empties the volume and starts in its place", 60.0,
        "kubectl debug -it POD --image=busybox --target=worker, and there du -a /proc/1/root/tmp, shows what grows.",
        "A new pod begins with an empty volume.",
    ),
    Branch(
        "CrashingAlone", ErrorClass.SYSTEM, _DEAD, _alone,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), "the kubelet restarts it, each time later", 60.0,
        "kubectl logs --previous of the worker; compare its node with those of its siblings.",
        "A new pod starts at once, without the kubelet's back-off, and may find another node.",
    ),
    Branch(
        "Crashing", ErrorClass.SYSTEM, _DEAD, _always,
        (Remedy.SHIFT_TRAFFIC, Remedy.FALL_BACK), "the kubelet restarts it, each time later", 0.0,
        "kubectl logs --previous of a worker. No worker of this revision is ready, so another start helps nobody.",
        "Workers start again when what they say is set right.",
    ),
    # Its engine, its path, its speed.
    Branch(
        "WorkerHung", ErrorClass.SYSTEM, frozenset({Kind.HUNG, Kind.UNREADY}), _always,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), f"{_MOVED}; {_KUBELET}", 30.0,
        "kubectl logs of the worker around that time; a hang that returns is worth a report.",
        "A fresh worker takes its share again.",
    ),
    Branch(
        "WorkerUnreachable", ErrorClass.NETWORK, frozenset({Kind.SILENT, Kind.REFUSED}), _always,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), f"{_MOVED}; {_KUBELET}", 30.0,
        "Look at the network between gateways and the worker's node: NetworkPolicies, CNI, conntrack.",
        "A fresh pod has a new address and may be reachable where this one is not.",
    ),
    Branch(
        "GatewayPath", ErrorClass.NETWORK, frozenset({Kind.ONE_SIDED}), _always,
        (Remedy.SHIFT_TRAFFIC,), "the other gateways reach it; that one uses other workers", 0.0,
        "Look at the named gateway and its node; the worker is well.", "All gateways use all workers again.",
    ),
    Branch(
        "WorkerSlow", ErrorClass.SYSTEM, frozenset({Kind.SLOW}), _always,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), "gateways eject it, each time for longer", 10.0,
        "Compare its node with those of its siblings: clocks, neighbours, GPU faults, throttling.",
        "A fresh worker is as fast as its siblings; if it is slow again on the same node, it is the node.", 60.0,
    ),
    Branch(
        "WorkerFailing", ErrorClass.SYSTEM, frozenset({Kind.FAILING}), _always,
        (Remedy.SHIFT_TRAFFIC, Remedy.RESTART_WORKER), "gateways eject it, each time for longer", 10.0,
        "kubectl logs of the worker; its siblings answer what it fails.", "A fresh worker answers as its siblings do.",
        60.0,
    ),
    # What no restart changes.
    Branch(
        "CannotStart", ErrorClass.RESOURCE, frozenset({Kind.WAITING}), _always,
        (Remedy.FALL_BACK,), "Kubernetes tries again by itself", 0.0,
        "Ready and Stalled of the service say what is missing: nodes, quota or the image.",
        "The worker starts as soon as it is there.",
    ),
    Branch(
        "CacheFull", ErrorClass.RESOURCE, frozenset({Kind.KV_FULL}), _always,
        (Remedy.SHIFT_TRAFFIC,), "gateways prefer workers with room; scaling adds some where it may", 0.0,
        "Raise engine.kvCache, or scaling.max, or replicas.", "Fewer requests wait and none are preempted.",
    ),
)  # fmt: skip

PROVEN_S: Final = {one.cause: one.proven_s for one in TREE}
