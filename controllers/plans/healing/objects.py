"""Workers and nodes as plans see them, from the API server's objects. For the operator's caches and for the command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from controllers.plans.healing.values import NodeFacts
from controllers.plans.health import GATED
from controllers.plans.mig.faults import action_of, read_faults, read_quarantine
from controllers.plans.snapshot import Snapshot, Worker
from controllers.plans.worker_pod import CONTAINER
from crds import contract
from crds.inference_service import InferenceServiceSpec, InferenceServiceStatus

Object = Mapping[str, Any]

_PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure")
_FAULTS_MOST: Final = 3
_ORDINARY: Final = frozenset({None, "PodInitializing"})


def worker_of(pod: Object) -> Worker:
    """The worker that a pod is."""
    meta, status = pod["metadata"], pod.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    scheduled, ready = conditions.get("PodScheduled") or {}, conditions.get("Ready") or {}
    unschedulable = scheduled.get("reason") == "Unschedulable" and scheduled.get("status") == "False"
    containers: list[Object] = status.get("containerStatuses") or []
    # An injector may have put others beside it, and before it.
    container = next((one for one in containers if one.get("name") == CONTAINER), next(iter(containers), {}))
    state = container.get("state") or {}
    waiting = {"reason": GATED} if scheduled.get("reason") == GATED else _waiting(container)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    is_ready = ready.get("status") == "True"
    return Worker(
        name=meta["name"],
        revision=(meta.get("labels") or {}).get(contract.LABEL_REVISION, ""),
        ready=is_ready,
        leaving=bool(meta.get("deletionTimestamp")),
        ip=status.get("podIP"),
        node=(pod.get("spec") or {}).get("nodeName"),
        deletion_cost=_cost(meta),
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message") or _held_up_by(status.get("initContainerStatuses") or ()),
        ended_code=ended.get("exitCode"),
        ended_message=ended.get("message"),
        ended_reason=ended.get("reason"),
        ran_s=seconds_between(ended.get("startedAt"), ended.get("finishedAt")),
        restarts=container.get("restartCount") or 0,
        unschedulable=scheduled.get("message") if unschedulable else None,
        uid=meta.get("uid", ""),
        created=meta.get("creationTimestamp"),
        started=container.get("started") is True,
        ready_since=ready.get("lastTransitionTime") if is_ready else None,
        unready_since=None if is_ready else ready.get("lastTransitionTime"),
    )


def _held_up_by(before: Iterable[Object]) -> str | None:
    """The container before the worker's that does not come to its end."""
    held = ((one.get("name"), _waiting(one)) for one in before)
    said = ((name, one["reason"], one.get("message")) for name, one in held if one.get("reason") not in _ORDINARY)
    return next((f"init container '{name}': {reason} {message or ''}".strip() for name, reason, message in said), None)


def _waiting(container: Object) -> Object:
    return (container.get("state") or {}).get("waiting") or {}


def seconds_between(first: str | None, last: str | None) -> float | None:
    """Of two times as the API server writes them; None without one of them."""
    if not first or not last:
        return None
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def _cost(meta: Object) -> int:
    """Anyone may write the annotation; what is no number is Kubernetes' default, 0."""
    text = str((meta.get("annotations") or {}).get(contract.ANNOTATION_DELETION_COST, "0"))
    return int(text) if text.lstrip("-").isdecimal() else 0


def node_facts(node: Object) -> NodeFacts:
    """What matters of a node. Heartbeats are left out, so that it stays equal while nothing happens."""
    meta, status = node["metadata"], node.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    annotations = meta.get("annotations") or {}
    ready = conditions.get("Ready") or {}
    quarantine = read_quarantine(annotations.get(contract.ANNOTATION_QUARANTINE))
    faults = read_faults(annotations.get(contract.ANNOTATION_FAULTS))
    return NodeFacts(
        name=meta["name"],
        # A node without conditions is one of which nothing is known.
        ready=ready.get("status", "True") == "True",
        said="" if ready.get("status") == "True" else str(ready.get("message") or ready.get("reason") or ""),
        since=ready.get("lastTransitionTime"),
        pressures=tuple(one for one in _PRESSURES if (conditions.get(one) or {}).get("status") == "True"),
        quarantine=f"XID {quarantine.xid} of GPU {quarantine.gpu}: {action_of(quarantine.xid).value}"
        if quarantine and not quarantine.over
        else None,
        faults=tuple((one.at_s, f"XID {one.xid} of GPU {one.gpu}") for one in faults[-_FAULTS_MOST:]),
    )


def view_of(service: Object, pods: Iterable[Object], nodes: Iterable[Object]) -> Snapshot:
    """As much of a snapshot as objects alone can tell: enough for `diagnose`, without what gateways say."""
    meta = service["metadata"]
    status = InferenceServiceStatus.model_validate(service.get("status") or {})
    return Snapshot(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        generation=meta.get("generation", 0),
        created=meta.get("creationTimestamp", ""),
        spec=InferenceServiceSpec.model_validate(service["spec"]),
        status=status,
        workers=tuple(worker_of(pod) for pod in pods if not _has_ended(pod)),
        nodes={one.name: one for one in map(node_facts, nodes)},
        health=status.health,
    )


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
