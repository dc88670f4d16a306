"""How one node gets another layout: move workers away → drain → ask the MIG manager → see the devices → use it again.

A step follows from the record on the Node and from what is seen; each act is one patch that carries the next record, so
a restart at any point continues where it was. The manager stops every GPU client of a node, therefore the node is the
unit: it is cordoned first, and emptied of workers before the manager is asked.

What can go wrong, and where it ends: devices that never come, a failed or silent manager, a manager that says `success`
without devices → the former layout is asked for; that fails, too → the node stays cordoned (Stuck) and says what a
person should do; it is used again as soon as either layout shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from controllers.plans.mig.former import divided
from controllers.plans.mig.layouts import WHOLE, Layout, layout_text
from controllers.plans.mig.records import LABEL_CONFIG, LABEL_STATE, GpuPod, NodeView, Record, Step, dump_gpus, total
from controllers.plans.units import duration_text
from crds.contract import ANNOTATION_MIG_LAYOUT, ANNOTATION_REPARTITION, LABEL_EVACUATE

ATTEMPTS: Final = 2
"""How often a layout is asked for before the node goes back."""
HOLD_S: Final = 1800.0
"""After a failure, before the node is tried again."""
ALL_DISABLED: Final = "all-disabled"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a pool, in seconds."""

    move_timeout_s: float
    timeout_s: float
    devices_s: float = 120.0
    """How long after `success` the devices may still be missing: the device plugin starts anew."""
    retry_s: float = 90.0
    """Before a layout is asked for again after `failed`, though never longer than `timeout_s`: so long a kubelet may
    take to bring our configuration to the manager, which fails on a name that it does not find."""


@dataclass(frozen=True, slots=True)
class Move:
    """What to do on one node now. `patch` is a merge patch of the Node."""

    node: str
    patch: Mapping[str, Any] | None = None
    drain: tuple[GpuPod, ...] = ()
    """Workers to delete; they end their streams first."""
    look_again_s: float | None = None
    message: str = ""


def config_names(gpus: Sequence[Layout]) -> tuple[str, ...]:
    """All names of one layout in the manager's configuration. The manager acts on a change of the label, so asking
    again needs another name for the same thing."""
    digest = hashlib.sha256(dump_gpus(gpus).encode()).hexdigest()[:10]
    return tuple(f"foretide-{digest}-{turn}" for turn in (1, 2))


def _config(node: NodeView, gpus: Sequence[Layout]) -> str:
    return next(name for name in config_names(gpus) if name != node.config)


def start(node: NodeView, gpus: tuple[Layout, ...], now_s: float) -> Move:
    """The first step: no new pod comes, workers are asked to move. One patch."""
    before = node.asked if node.asked is not None and total(node.asked) == node.now else None
    if before is None and node.family is not None:
        before = divided(node.family, node.gpu_count, node.now)
    record = Record(Step.MOVE, now_s, gpus, before, node.now, cordoned=not node.cordoned)
    text = f"From {layout_text(node.now)} to {layout_text(record.wanted)}: workers move first."
    return Move(node.name, _patch(record, cordon=True, evacuate=True), message=text, look_again_s=1.0)


def advance(node: NodeView, record: Record, pods: Sequence[GpuPod], now_s: float, limits: Limits) -> Move:
    """The next act on a node whose repartition is under way; `pods` are those that hold its GPUs."""
    elapsed_s = max(0.0, now_s - record.since_s)
    if record.step is Step.MOVE:
        return _move(node, record, pods, now_s, elapsed_s, limits)
    if record.step is Step.ASK:
        return _ask(node, record, now_s, elapsed_s, limits)
    if record.step is Step.BACK:
        return _back(node, record, now_s, elapsed_s, limits)
    if record.step is Step.HELD:
        return _held(node, record, elapsed_s)
    return _stuck(node, record, now_s)


def _move(
    node: NodeView, record: Record, pods: Sequence[GpuPod], now_s: float, elapsed_s: float, limits: Limits
) -> Move:
    if not pods:
        asked = replace(record, step=Step.ASK, since_s=now_s)
        return Move(node.name, _patch(asked, config=_config(node, record.gpus)), message="Empty; the manager is asked.")
    foreign = [pod for pod in pods if pod.service is None]
    if foreign and elapsed_s >= limits.move_timeout_s:
        who = f"{foreign[0].what} '{foreign[0].namespace}/{foreign[0].name}'"
        return _give_up(node, record, now_s, f"{who} is not a worker of ours and holds a GPU; it is left alone.")
    if elapsed_s < limits.move_timeout_s:
        left_s = limits.move_timeout_s - elapsed_s
        text = f"{len(pods)} pods hold its GPUs; workers move for up to {duration_text(left_s)} more."
        return Move(node.name, look_again_s=left_s, message=text)
    text = f"{len(pods)} workers found no other place in {duration_text(limits.move_timeout_s)}; they are drained."
    return Move(node.name, drain=one_of_each_service(pods), look_again_s=5.0, message=text)


def one_of_each_service(pods: Sequence[GpuPod]) -> tuple[GpuPod, ...]:
    """What is drained next, so that a service never loses two workers at once; one that leaves already counts."""
    busy = {(pod.namespace, pod.service) for pod in pods if pod.leaving}
    first: dict[tuple[str, str | None], GpuPod] = {}
    for pod in sorted(pods, key=lambda one: (one.namespace, one.name)):
        key = pod.namespace, pod.service
        if pod.service is not None and key not in busy:
            first.setdefault(key, pod)
    return tuple(first.values())


def _give_up(node: NodeView, record: Record, now_s: float, why: str) -> Move:
    """Nothing was asked yet: the node is as it was."""
    held = replace(record, step=Step.HELD, since_s=now_s, reason=why)
    return Move(node.name, _patch(held, uncordon=record.cordoned, evacuate=False), message=why)


def _ask(node: NodeView, record: Record, now_s: float, elapsed_s: float, limits: Limits) -> Move:
    if _shows(node, record.wanted) and node.state == "success":
        return _finish(node, record, f"Cut into {layout_text(record.wanted)}.")
    why = _failed(node, record, record.wanted, now_s, elapsed_s, limits)
    if why is None:
        text = f"Waiting for {layout_text(record.wanted)}; the manager says '{node.state or 'nothing'}'."
        return _wait(node, record, now_s, elapsed_s, limits, text)
    retry_s = min(limits.retry_s, limits.timeout_s)
    if record.attempt < ATTEMPTS and node.state == "failed" and elapsed_s < retry_s:
        return Move(node.name, look_again_s=retry_s - elapsed_s, message=f"{why} It is asked again soon.")
    if record.attempt < ATTEMPTS:
        again = replace(record, since_s=now_s, attempt=record.attempt + 1, reason=why, success_s=None)
        return Move(node.name, _patch(again, config=_config(node, record.gpus)), message=f"{why} Once more.")
    back = replace(record, step=Step.BACK, since_s=now_s, reason=why, success_s=None)
    config = ALL_DISABLED if record.before is None else _config(node, record.before)
    return Move(node.name, _patch(back, config=config), message=f"{why} Back to {layout_text(record.was)}.")


def _wait(node: NodeView, record: Record, now_s: float, elapsed_s: float, limits: Limits, text: str) -> Move:
    """Until the devices come, or the time for it is over; the first `success` is written down, from which it counts."""
    if node.state == "success" and record.success_s is None:
        seen = replace(record, success_s=now_s)
        return Move(node.name, _patch(seen), look_again_s=limits.devices_s, message=text)
    if node.state != "success" and record.success_s is not None:
        return Move(node.name, _patch(replace(record, success_s=None)), look_again_s=1.0, message=text)
    ends = [limits.timeout_s - elapsed_s]
    if record.success_s is not None:
        ends.append(record.success_s + limits.devices_s - now_s)
    return Move(node.name, look_again_s=max(min(ends), 1.0), message=text)


def _failed(
    node: NodeView, record: Record, wanted: Layout, now_s: float, elapsed_s: float, limits: Limits
) -> str | None:
    """Why waiting on makes no sense; None while it does."""
    shown_s = 0.0 if record.success_s is None else now_s - record.success_s
    if node.state == "failed":
        return f"The MIG manager of '{node.name}' says 'failed'."
    if node.state == "success" and shown_s < limits.devices_s:
        return None
    if node.state == "success":
        return (
            f"The MIG manager of '{node.name}' says 'success', but {duration_text(shown_s)} later the node offers"
            f" {layout_text(node.now)} instead of {layout_text(wanted)}."
        )
    if elapsed_s >= limits.timeout_s:
        return (
            f"The MIG manager of '{node.name}' says '{node.state or 'nothing'}' after {duration_text(elapsed_s)}."
            " See its log: `kubectl -n gpu-operator logs -l app=nvidia-mig-manager`."
        )
    return None


def _finish(node: NodeView, record: Record, text: str) -> Move:
    patch = _patch(None, uncordon=record.cordoned, evacuate=False, gpus=record.gpus)
    return Move(node.name, patch, message=text)


def _back(node: NodeView, record: Record, now_s: float, elapsed_s: float, limits: Limits) -> Move:
    wanted = _former(node, record)
    if _shows(node, wanted):
        held = replace(record, step=Step.HELD, since_s=now_s)
        return Move(
            node.name,
            _patch(held, uncordon=record.cordoned, evacuate=False, gpus=_former_gpus(node, record)),
            message=f"Back to {layout_text(wanted)}. {record.reason}",
        )
    if _failed(node, record, wanted, now_s, elapsed_s, limits) is None:
        text = f"Going back to {layout_text(wanted)}. {record.reason}"
        return _wait(node, record, now_s, elapsed_s, limits, text)
    stuck = replace(record, step=Step.STUCK, since_s=now_s)
    return Move(node.name, _patch(stuck), message=_stuck_text(node, record))


def _former_gpus(node: NodeView, record: Record) -> tuple[Layout, ...]:
    """What going back asks for: without a layout of ours, MIG is switched off."""
    return (WHOLE,) * node.gpu_count if record.before is None else record.before


def _former(node: NodeView, record: Record) -> Layout:
    return total(_former_gpus(node, record))


def _held(node: NodeView, record: Record, elapsed_s: float) -> Move:
    if elapsed_s >= HOLD_S:
        return Move(node.name, _patch(None), message="May be cut anew again.")
    return Move(
        node.name,
        look_again_s=HOLD_S - elapsed_s,
        message=f"Not tried again for {duration_text(HOLD_S - elapsed_s)}. {record.reason}",
    )


def _stuck(node: NodeView, record: Record, now_s: float) -> Move:
    if _shows(node, record.wanted):
        return _finish(node, record, f"Its devices came after all: {layout_text(record.wanted)}.")
    if _shows(node, _former(node, record)):
        held = replace(record, step=Step.HELD, since_s=now_s)
        patch = _patch(held, uncordon=record.cordoned, evacuate=False, gpus=_former_gpus(node, record))
        return Move(node.name, patch, message=f"Its former devices came back. {record.reason}")
    return Move(node.name, message=_stuck_text(node, record))


def _stuck_text(node: NodeView, record: Record) -> str:
    return (
        f"Node '{node.name}' shows {layout_text(node.now)}: neither {layout_text(record.wanted)} nor its former"
        f" {layout_text(_former(node, record))}. It stays cordoned. Reboot it; it is used again when either shows."
    )


def _shows(node: NodeView, wanted: Layout) -> bool:
    return node.ready and node.now == wanted


def _patch(
    record: Record | None,
    *,
    cordon: bool = False,
    uncordon: bool = False,
    evacuate: bool | None = None,
    config: str | None = None,
    gpus: Sequence[Layout] | None = None,
) -> dict[str, Any]:
    """One merge patch: the act and the record of it together."""
    annotations: dict[str, Any] = {ANNOTATION_REPARTITION: None if record is None else record.dump()}
    labels: dict[str, Any] = {}
    if evacuate is not None:
        labels[LABEL_EVACUATE] = "true" if evacuate else None
    if config is not None:
        # What the manager said of the last layout is not its answer to this one.
        labels |= {LABEL_CONFIG: config, LABEL_STATE: None}
    if gpus is not None:
        annotations[ANNOTATION_MIG_LAYOUT] = dump_gpus(gpus)
    patch: dict[str, Any] = {"metadata": {"annotations": annotations, "labels": labels}}
    if cordon or uncordon:
        patch["spec"] = {"unschedulable": True if cordon else None}
    return patch
