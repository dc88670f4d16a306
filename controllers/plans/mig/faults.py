"""GPU faults: what each XID calls for, as data, and the quarantine of a node that has had one. Pure.

The scheduler cannot keep pods off one GPU of a node, and the slices of a GPU share its fate (the device plugin drops
the faults of siblings), so one that calls for a reset or a reboot takes the whole node out of use: cordoned, emptied
with successors first, kept so for a while, and on probation after it. A second fault on probation doubles the while.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from controllers.plans.mig.records import UNREADABLE, GpuPod, NodeView, moment
from controllers.plans.mig.repartition import Limits, Move, one_of_each_service
from controllers.plans.units import duration_text
from crds.contract import ANNOTATION_QUARANTINE, LABEL_EVACUATE

QUARANTINE_S: Final = 1800.0
LONGEST_S: Final = 86400.0
PROBATION_S: Final = 86400.0
PROLONGED_BY_S: Final = 60.0
"""At least: what says the same every few seconds is not written as often."""


class Action(StrEnum):
    """What a fault calls for, from NVIDIA's catalogue of XIDs."""

    IGNORE = "ignore"
    RESTART_WORKER = "restart the worker"
    """The process that caused it is at an end already: its liveness probe restarts it."""
    RESET_GPU = "reset the GPU"
    REBOOT_NODE = "reboot the node"
    RESTART_VM = "restart the virtual machine"
    WORKFLOW = "follow NVIDIA's workflow for this XID"
    """A person has to look. Unknown XIDs are of this kind, too."""

    @property
    def drains(self) -> bool:
        """No worker can go on there."""
        return self in (Action.RESET_GPU, Action.REBOOT_NODE, Action.RESTART_VM)


_ACTIONS: Final[Mapping[Action, tuple[int, ...]]] = {
    Action.RESET_GPU: (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158),
    Action.REBOOT_NODE: (79,),
    Action.RESTART_VM: (151,),
    Action.WORKFLOW: (48, 45, 74, *range(144, 151), 154),
    Action.RESTART_WORKER: (13, 31, 32, 43, 68, 69, 94),
    Action.IGNORE: (63, 92, 93, 121, 137),
}
XIDS: Final[Mapping[int, Action]] = {xid: action for action, xids in _ACTIONS.items() for xid in xids}


def action_of(xid: int) -> Action:
    """An XID that is not listed is for a person to look at."""
    return XIDS.get(xid, Action.WORKFLOW)


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One XID of one GPU, as the driver reported it."""

    at_s: float
    xid: int
    gpu: str
    """UUID."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A node out of use, or on probation after it."""

    since_s: float
    until_s: float
    xid: int
    gpu: str
    strikes: int
    cordoned: bool
    """By us."""
    over: bool = False
    """In use again, on probation."""

    def dump(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def read_quarantine(text: str | None) -> Quarantine | None:
    """None without one, and for text that is none."""
    try:
        raw = json.loads(text) if text else None
        if raw is None:
            return None
        return Quarantine(
            moment(raw["since_s"]), moment(raw["until_s"]), int(raw["xid"]), str(raw["gpu"]), int(raw["strikes"]),
            bool(raw["cordoned"]), bool(raw["over"]),
        )  # fmt: skip
    except UNREADABLE:
        return None


def dump_faults(faults: Sequence[Fault]) -> str:
    """The GPU agent's annotation: `[[at_s, xid, gpu], …]`."""
    return json.dumps([[one.at_s, one.xid, one.gpu] for one in faults], separators=(",", ":"))


def read_faults(text: str | None) -> tuple[Fault, ...]:
    """What `dump_faults` wrote; nothing for everything else."""
    try:
        return tuple(sorted(Fault(moment(at), int(xid), str(gpu)) for at, xid, gpu in json.loads(text or "[]")))
    except UNREADABLE:
        return ()


def last_of(faults: Iterable[Fault], most: int) -> tuple[Fault, ...]:
    """At most so many, oldest first: those that call for a drain, however many others follow them, then the latest."""
    weighed = sorted(set(faults), key=lambda one: (action_of(one.xid).drains, one))
    return tuple(sorted(weighed[-most:]))


def is_out(node: NodeView) -> bool:
    """In quarantine, and not on probation."""
    quarantine = read_quarantine(node.quarantine)
    return quarantine is not None and not quarantine.over


def guard(node: NodeView, pods: Sequence[GpuPod], now_s: float, limits: Limits) -> Move | None:
    """The next act of a quarantine; None where there is nothing to do or to say."""
    quarantine, faults = read_quarantine(node.quarantine), read_faults(node.faults)
    since_s = quarantine.since_s if quarantine else now_s - QUARANTINE_S
    fresh = [one for one in faults if one.at_s > since_s and action_of(one.xid).drains]
    if quarantine is None or quarantine.over:
        if fresh:
            return _begin(node, quarantine, fresh[-1], now_s)
    elif fresh and _end_s(quarantine, fresh[-1], now_s) > quarantine.until_s + PROLONGED_BY_S:
        return _prolong(node, quarantine, fresh[-1], now_s)
    if quarantine is None:
        return None
    if quarantine.over:
        return _probation(node, quarantine, now_s)
    if now_s < quarantine.until_s:
        return _empty(node, quarantine, pods, now_s, limits)
    back = Quarantine(now_s, now_s + PROBATION_S, quarantine.xid, quarantine.gpu, quarantine.strikes, False, over=True)
    patch = _patch(back, evacuate=False, uncordon=quarantine.cordoned)
    return Move(node.name, patch, message=f"In use again, on probation for {duration_text(PROBATION_S)}.")


def length_s(strikes: int) -> float:
    """Of a quarantine: twice as long each time that a node breaks on probation, up to LONGEST_S."""
    return min(QUARANTINE_S * 2.0 ** min(max(strikes - 1, 0), 16), LONGEST_S)


def _prolong(node: NodeView, quarantine: Quarantine, fault: Fault, now_s: float) -> Move:
    """One incident may tell of itself every few seconds: it is one fault in a row, and its workers leave on time."""
    longer = replace(quarantine, until_s=_end_s(quarantine, fault, now_s), xid=fault.xid, gpu=fault.gpu)
    patch = _patch(longer, evacuate=True, cordon=True)
    return Move(node.name, patch, look_again_s=1.0, message=why(longer, now_s))


def _end_s(quarantine: Quarantine, fault: Fault, now_s: float) -> float:
    """As of the fault; one that by its node's clock has not come yet changes nothing so far."""
    return fault.at_s + length_s(quarantine.strikes) if fault.at_s <= now_s else quarantine.until_s


def _begin(node: NodeView, before: Quarantine | None, fault: Fault, now_s: float) -> Move:
    strikes = 1 if before is None else before.strikes + 1
    mine = not node.cordoned or (before is not None and before.cordoned)
    quarantine = Quarantine(
        max(fault.at_s, now_s), now_s + length_s(strikes), fault.xid, fault.gpu, strikes, cordoned=mine
    )
    return Move(
        node.name, _patch(quarantine, evacuate=True, cordon=True), look_again_s=1.0, message=why(quarantine, now_s)
    )


def _empty(node: NodeView, quarantine: Quarantine, pods: Sequence[GpuPod], now_s: float, limits: Limits) -> Move:
    left_s = quarantine.since_s + limits.move_timeout_s - now_s
    if left_s > 0 or not pods:
        wait_s = quarantine.until_s - now_s if not pods else max(left_s, 1.0)
        return Move(node.name, look_again_s=wait_s, message=why(quarantine, now_s))
    return Move(node.name, drain=one_of_each_service(pods), look_again_s=5.0, message=why(quarantine, now_s))


def _probation(node: NodeView, quarantine: Quarantine, now_s: float) -> Move | None:
    if now_s >= quarantine.until_s:
        return Move(
            node.name, {"metadata": {"annotations": {ANNOTATION_QUARANTINE: None}}}, message="Probation is over."
        )
    return Move(node.name, look_again_s=quarantine.until_s - now_s)


def why(quarantine: Quarantine, now_s: float) -> str:
    """For people: which fault, what to do, until when."""
    left = duration_text(max(1.0, quarantine.until_s - now_s))
    return (
        f"GPU {quarantine.gpu} had XID {quarantine.xid}: {action_of(quarantine.xid).value}. All slices of the node are"
        f" out of use for {left} more (fault {quarantine.strikes} in a row)."
    )


def _patch(quarantine: Quarantine, *, evacuate: bool, cordon: bool = False, uncordon: bool = False) -> dict[str, Any]:
    patch: dict[str, Any] = {
        "metadata": {
            "annotations": {ANNOTATION_QUARANTINE: quarantine.dump()},
            "labels": {LABEL_EVACUATE: "true" if evacuate else None},
        }
    }
    if cordon or uncordon:
        patch["spec"] = {"unschedulable": True if cordon else None}
    return patch
