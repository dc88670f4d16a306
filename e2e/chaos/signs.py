"""What an onlooker sees of the fleet, as signs with a time: the difference of two looks at an object. Pure.

A sign that is an *action* is something that the cluster or Foretide did: a worker made, ended or restarted, a rollout
moved, a number of workers changed, a worker left out by a gateway. Without a fault none of them should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from crds.contract import ANNOTATION_QUARANTINE, LABEL_REVISION, LABEL_SERVICE

Object = dict[str, Any]


class By(StrEnum):
    """Where a sign was seen."""

    GATEWAY = "gateway"
    POD = "pod"
    STATUS = "status"
    EVENT = "event"
    NODE = "node"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Sign:
    """`service` and `pod` are empty where the sign is of neither; `at_s` is monotonic."""

    at_s: float
    by: By
    service: str
    what: str
    pod: str = ""
    action: bool = False


@dataclass(frozen=True, slots=True)
class PodLook:
    """What is kept of a worker's pod."""

    name: str
    uid: str
    service: str
    revision: str
    node: str
    ready: bool
    leaving: bool
    failed: str
    """Why it ended for good (an evicted worker that drained has "succeeded"); empty for one that has not."""
    restarts: int
    container: str
    """Its container's id, without the runtime's name."""


def pod_look(obj: Object) -> PodLook | None:
    """None for a pod of no service."""
    meta, status = obj["metadata"], obj.get("status", {})
    labels = meta.get("labels") or {}
    if LABEL_SERVICE not in labels:
        return None
    containers = status.get("containerStatuses") or [{}]
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    return PodLook(
        name=meta["name"],
        uid=meta["uid"],
        service=labels[LABEL_SERVICE],
        revision=labels.get(LABEL_REVISION, ""),
        node=obj["spec"].get("nodeName") or "",
        ready=ready,
        leaving="deletionTimestamp" in meta,
        failed=str(status.get("reason") or status["phase"]) if status.get("phase") in ("Failed", "Succeeded") else "",
        restarts=int(containers[0].get("restartCount") or 0),
        container=str(containers[0].get("containerID") or "").rpartition("://")[2],
    )


def pod_signs(at_s: float, old: PodLook | None, new: PodLook | None) -> list[Sign]:
    """What changed between two looks at one pod."""
    pod = new or old
    assert pod is not None, "a change has an old or a new side"

    def sign(what: str, *, action: bool = False) -> Sign:
        return Sign(at_s, By.POD, pod.service, what, pod.name, action)

    if old is None:
        return [sign("made", action=True)]
    if new is None:
        return [] if old.leaving or old.failed else [sign("gone", action=True)]
    found = []
    if new.leaving and not (old.leaving or old.failed):
        found.append(sign("leaves", action=True))
    if new.failed and not old.failed:
        found.append(sign(f"failed: {new.failed}", action=True))
    if new.restarts > old.restarts:
        found.append(sign(f"restarted, {new.restarts} so far", action=True))
    if old.ready and not new.ready:
        found.append(sign("not ready"))
    return found


@dataclass(frozen=True, slots=True)
class ServiceLook:
    """What is kept of an InferenceService: its conditions, its rollout and what is wanted."""

    name: str
    generation: int
    observed: int
    desired: int
    conditions: Mapping[str, tuple[str, str]]
    phase: str
    rollout: str
    """What the rollout does or waits for."""
    stable: str
    candidate: str
    outcome: str
    """Of the last rollout that ended, and why."""
    remedy: tuple[str, str]
    """The newest that self-healing applied: what, when and why, and to which pod; empty before the first."""
    findings: frozenset[str]
    """What self-healing finds wrong now."""


def service_look(obj: Object) -> ServiceLook:
    meta, status = obj["metadata"], obj.get("status") or {}
    rollout = status.get("rollout") or {}
    last: Object = next(iter(rollout.get("history") or ()), {})
    return ServiceLook(
        name=meta["name"],
        generation=int(meta["generation"]),
        observed=int(status.get("observedGeneration") or 0),
        desired=int(status.get("desiredReplicas") or 0),
        conditions={one["type"]: (one["status"], one.get("reason", "")) for one in status.get("conditions") or ()},
        phase=str(rollout.get("phase") or ""),
        rollout=str(rollout.get("reason") or ""),
        stable=str(rollout.get("stable") or status.get("currentRevision") or ""),
        candidate=str(rollout.get("candidate") or ""),
        outcome=f"{last.get('revision')} {last.get('outcome')} {last.get('reason')}" if last else "",
        remedy=_remedy(status.get("health") or {}),
        findings=frozenset(one["cause"] for one in (status.get("health") or {}).get("findings") or ()),
    )


def _remedy(health: Object) -> tuple[str, str]:
    """Without its outcome: that changes later, and is no other remedy."""
    newest: Object = next(iter(health.get("actions") or ()), {})
    words = " ".join(str(newest[key]) for key in ("remedy", "cause", "time") if key in newest)
    return words, str(newest.get("worker") or "")


def service_signs(at_s: float, old: ServiceLook | None, new: ServiceLook | None) -> list[Sign]:
    """What changed between two looks at one service."""
    if old is None or new is None:
        return []

    def sign(what: str, *, action: bool = False) -> Sign:
        return Sign(at_s, By.STATUS, new.name, what, action=action)

    found = [
        sign(f"{name} {' '.join(value)}")
        for name, value in new.conditions.items()
        if old.conditions.get(name) != value
    ]  # fmt: skip
    found += [sign(f"{name} no longer said") for name in old.conditions if name not in new.conditions]
    if new.phase != old.phase:
        found.append(sign(f"rollout {new.phase} {new.rollout}".rstrip(), action=True))
    if new.outcome != old.outcome and new.outcome:
        found.append(sign(f"rollout ended: {new.outcome}"))
    if new.desired != old.desired:
        found.append(sign(f"{old.desired} → {new.desired} workers wanted", action=True))
    found += [sign(f"finding {cause}") for cause in sorted(new.findings - old.findings)]
    if new.remedy != old.remedy and new.remedy[0]:
        found.append(Sign(at_s, By.STATUS, new.name, f"remedy {new.remedy[0]}", new.remedy[1], action=True))
    return found


@dataclass(frozen=True, slots=True)
class ModelLook:
    name: str
    stalled: bool


def model_look(obj: Object) -> ModelLook:
    conditions = obj.get("status", {}).get("conditions") or ()
    stalled = any(one["type"] == "Stalled" and one["status"] == "True" for one in conditions)
    return ModelLook(obj["metadata"]["name"], stalled)


def model_signs(at_s: float, old: ModelLook | None, new: ModelLook | None) -> list[Sign]:
    """A Model that cannot be had."""
    if new is None or not new.stalled or (old is not None and old.stalled):
        return []
    return [Sign(at_s, By.STATUS, "", f"Model {new.name} Stalled")]


@dataclass(frozen=True, slots=True)
class NodeLook:
    name: str
    ready: bool
    cordoned: bool
    quarantined: bool


def node_look(obj: Object) -> NodeLook:
    conditions = obj.get("status", {}).get("conditions") or ()
    return NodeLook(
        name=obj["metadata"]["name"],
        ready=any(one["type"] == "Ready" and one["status"] == "True" for one in conditions),
        cordoned=bool(obj["spec"].get("unschedulable")),
        quarantined=ANNOTATION_QUARANTINE in (obj["metadata"].get("annotations") or {}),
    )


def node_signs(at_s: float, old: NodeLook | None, new: NodeLook | None) -> list[Sign]:
    """What changed between two looks at one node."""
    if old is None or new is None:
        return []
    said = (
        (old.ready != new.ready, "ready" if new.ready else "not ready"),
        (old.cordoned != new.cordoned, "cordoned" if new.cordoned else "uncordoned"),
        (old.quarantined != new.quarantined, "quarantined" if new.quarantined else "no longer quarantined"),
    )
    return [Sign(at_s, By.NODE, "", f"{new.name} {what}") for changed, what in said if changed]


HURT: Final = ("lost", "ejected", "not_ready")
"""States of an endpoint that a gateway sends nothing to, and that nobody asked for."""


@dataclass(frozen=True, slots=True)
class GatewayLook:
    """What one gateway's metrics say of one service."""

    states: Mapping[str, int]
    losses: float
    ejections: float

    @property
    def ready(self) -> int:
        return self.states.get("ready", 0)


def gateway_looks(page: str, namespace: str) -> dict[str, GatewayLook]:
    """By service, from a page of Prometheus' text format."""
    states: dict[str, dict[str, int]] = {}
    counts: dict[str, dict[str, float]] = {}
    for line in page.splitlines():
        name, brace, rest = line.partition("{")
        short = name.removeprefix("foretide_gateway_")
        if not brace or short not in ("endpoints", "losses_total", "ejections_total"):
            continue
        text, _, value = rest.rpartition("} ")
        labels = dict(part.split("=", 1) for part in text.replace('"', "").split(",") if "=" in part)
        if labels.get("namespace") != namespace:
            continue
        if short == "endpoints":
            states.setdefault(labels["service"], {})[labels["state"]] = int(float(value))
        else:
            own = counts.setdefault(labels["service"], {})
            own[short] = own.get(short, 0.0) + float(value)
    return {
        service: GatewayLook(
            found, counts.get(service, {}).get("losses_total", 0.0), counts.get(service, {}).get("ejections_total", 0.0)
        )
        for service, found in states.items()
    }


def gateway_signs(at_s: float, service: str, old: GatewayLook | None, new: GatewayLook) -> list[Sign]:
    """What changed between two looks at one gateway's numbers of one service."""
    if old is None:
        return []

    def sign(what: str, *, action: bool = False) -> Sign:
        return Sign(at_s, By.GATEWAY, service, what, action=action)

    found = []
    if new.losses > old.losses:
        found.append(sign("a worker is lost", action=True))
    if new.ejections > old.ejections:
        found.append(sign("a worker is ejected", action=True))
    more = [state for state in HURT if new.states.get(state, 0) > old.states.get(state, 0)]
    found += [sign(f"{new.states[state]} {state}") for state in more]
    return found


def first(signs: Sequence[Sign], since_s: float) -> Sign | None:
    """The earliest at or after a time."""
    return min((one for one in signs if one.at_s >= since_s), key=lambda one: one.at_s, default=None)
