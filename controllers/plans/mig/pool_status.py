"""What a GPUPool says of itself: layout and reasons, what is missing with the arithmetic, who needs a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from controllers.plans.mig.demand import Served
from controllers.plans.mig.devices import unpublished
from controllers.plans.mig.faults import is_out
from controllers.plans.mig.geometry import resource_name
from controllers.plans.mig.layouts import layout, layout_text, slices_of
from controllers.plans.mig.pool import PoolPlan, PoolSnapshot, frozen_because, gives, is_quiet
from controllers.plans.mig.records import GpuPod, NodeView, Step
from controllers.plans.mig.share_status import missing_share, offered, sharing_rows, unmet_share
from controllers.plans.mig.sharing import offers_text
from controllers.plans.units import names_text
from crds.conditions import DEMAND_MET, READY, RECONCILING, STALLED
from crds.inference_service import Allocation

MOST_NODES = 1000
MOST_UNMET = 100
MOST_PROFILES = 64
_STATES = {
    Step.MOVE: "Moving",
    Step.ASK: "Asking",
    Step.BACK: "GoingBack",
    Step.HELD: "Held",
    Step.STUCK: "Stuck",
}
Fields = dict[str, Any]


def pool_status(seen: PoolSnapshot, plan: PoolPlan, now_s: float) -> tuple[Fields, list[Fields]]:
    """The status without conditions, and the conditions without times."""
    supply = _supply(seen)
    fields: Fields = {
        "observedGeneration": seen.generation,
        "gpus": sum(node.gpu_count for node in seen.nodes),
        "layout": _layout_text(seen, supply)[:512],
        "fragmentation": f"{plan.layout.fragmentation:.0%}",
        "served": _served_text(plan),
        "reason": reason(seen, plan)[:2048],
        "profiles": _profiles(seen, supply)[:MOST_PROFILES],
        "nodes": _nodes(seen, plan, now_s)[:MOST_NODES],
        "sharing": sharing_rows(seen),
        "unmet": [
            *(_unmet(one) for one in plan.layout.served if one.missing),
            *(unmet_share(one) for one in plan.shared if one.missing),
        ][:MOST_UNMET],
    }
    return fields, _conditions(seen, plan)


def reason(seen: PoolSnapshot, plan: PoolPlan) -> str:
    """Arithmetic: what is served of what is wanted, what the plan is worth beside its bound, what it moves."""
    layout_plan = plan.layout
    wanted = sum(one.want.replicas for one in layout_plan.served)
    served = sum(one.replicas for one in layout_plan.served)
    parts = [
        f"{served} of {wanted} workers get a slice on {sum(node.gpu_count for node in seen.nodes)} GPUs",
        f"worth {layout_plan.value:.0f} of at most {layout_plan.bound:.0f} (P0 ×512, P1 ×64, P2 ×8, P3 ×1 a slice)",
    ]
    if layout_plan.recut:
        parts.append(
            f"{len(layout_plan.recut)} nodes should be cut anew, which moves {layout_plan.drained_workers} workers"
        )
    if plan.shared:
        wanted = sum(one.want.replicas for one in plan.shared)
        parts.append(f"{sum(one.replicas for one in plan.shared)} of {wanted} workers get a share of a shared GPU")
    return "; ".join(parts) + "." + "".join(f" {note}" for note in layout_plan.notes)


def _supply(seen: PoolSnapshot) -> Counter[str]:
    supply: Counter[str] = Counter()
    for node in seen.nodes:
        supply.update(dict(gives(node)))
    return supply


def _layout_text(seen: PoolSnapshot, supply: Mapping[str, int]) -> str:
    shares = offers_text(offered(seen))
    return " + ".join(text for text in (layout_text(layout(supply)) if supply or not shares else "", shares) if text)


def _served_text(plan: PoolPlan) -> str:
    served = sum(one.replicas for one in plan.layout.served) + sum(one.replicas for one in plan.shared)
    wanted = sum(one.want.replicas for one in plan.layout.served) + sum(one.want.replicas for one in plan.shared)
    return f"{served}/{wanted}"


def _profiles(seen: PoolSnapshot, supply: Mapping[str, int]) -> list[Fields]:
    used, wanted = Counter[str](), Counter[str]()
    for pod in seen.pods:
        if pod.node is not None:
            used.update(dict(pod.slices))
    for want in seen.wants:
        wanted[want.profile] += want.replicas * want.gpus
    names = sorted({*supply, *used, *wanted}, key=lambda name: (-slices_of(name), name))
    return [{"profile": n, "slices": supply.get(n, 0), "used": used[n], "wanted": wanted[n]} for n in names]


def _nodes(seen: PoolSnapshot, plan: PoolPlan, now_s: float) -> list[Fields]:
    messages = {move.node: move.message for move in plan.moves} | dict(plan.waiting)
    pods: dict[str, list[GpuPod]] = {}
    for pod in seen.pods:
        pods.setdefault(pod.node or "", []).append(pod)
    quiet = is_quiet(seen.spec, now_s)
    return [_node(node, pods.get(node.name, ()), messages.get(node.name), quiet) for node in seen.nodes]


def _node(node: NodeView, pods: Sequence[GpuPod], message: str | None, quiet: bool) -> Fields:
    frozen = frozen_because(node, pods, quiet) if node.record is None else None
    state = _state(node, frozen)
    fields: Fields = {"name": node.name, "layout": layout_text(node.now)[:512], "state": state}
    if node.record is not None and node.record.step in (Step.MOVE, Step.ASK):
        fields["target"] = layout_text(node.record.wanted)[:512]
    text = message or frozen
    return fields | ({"message": text[:1024]} if text else {})


def _state(node: NodeView, frozen: str | None) -> str:
    if node.notice is not None:
        return "Leaving"
    if node.record is not None and node.record.step is not Step.HELD:
        return _STATES[node.record.step]
    if is_out(node):
        return "Quarantined"
    if node.record is None and node.share is not None and node.problem is None:
        return "Shared"
    return "Held" if node.record is not None else ("Frozen" if frozen else "Ready")


def _unmet(one: Served) -> Fields:
    want = one.want
    return {"service": want.service, "profile": want.profile, "wanted": want.replicas, "served": one.replicas}


def _conditions(seen: PoolSnapshot, plan: PoolPlan) -> list[Fields]:
    stuck = [node for node in seen.nodes if node.record is not None and node.record.step is Step.STUCK]
    unusable = [node for node in seen.nodes if node.problem is not None]
    under_way = [
        node.name for node in seen.nodes if node.record and node.record.step in (Step.MOVE, Step.ASK, Step.BACK)
    ]
    made = [_ready(seen, plan, stuck, unusable, under_way), _demand_met(seen, plan)]
    busy = [*under_way, *plan.starting]
    if busy:
        text = f"{len(busy)} of {len(seen.nodes)} nodes are being cut anew: {names_text(sorted(busy))}."
        made.append({"type": RECONCILING, "status": "True", "reason": "Repartitioning", "message": text})
    out = [node for node in seen.nodes if is_out(node)]
    if stuck or unusable or out or seen.missing_api or not seen.nodes:
        made.append({**made[0], "type": STALLED, "status": "True"})
    return made


def _ready(
    seen: PoolSnapshot,
    plan: PoolPlan,
    stuck: Sequence[NodeView],
    unusable: Sequence[NodeView],
    under_way: Sequence[str],
) -> Fields:
    if not seen.nodes:
        labels = ",".join(f"{key}={value}" for key, value in sorted(seen.spec.node_selector.items()))
        text = f"No node with GPUs has the labels {labels}. Label a node, or change spec.nodeSelector."
        return {"type": READY, "status": "False", "reason": "NoNodes", "message": text}
    if seen.missing_api:
        why, text = seen.missing_api
        return {"type": READY, "status": "False", "reason": why, "message": text}
    if stuck:
        messages = {move.node: move.message for move in plan.moves}
        text = messages.get(stuck[0].name) or f"Node '{stuck[0].name}' is stuck."
        return {"type": READY, "status": "False", "reason": "NodeStuck", "message": text}
    if unusable:
        return {"type": READY, "status": "False", "reason": "NodeUnusable", "message": unusable[0].problem}
    out = [node for node in seen.nodes if is_out(node)]
    if out:
        messages = {move.node: move.message for move in plan.moves}
        text = f"Node '{out[0].name}' is in quarantine. {messages.get(out[0].name, '')}"
        return {"type": READY, "status": "False", "reason": "GpuFault", "message": text}
    going = [node.name for node in seen.nodes if node.notice is not None]
    if going:
        text = f"Going away: {names_text(sorted(going))}. Their workers move to other nodes."
        return {"type": READY, "status": "False", "reason": "NodesLeaving", "message": text}
    if under_way or plan.starting:
        text = f"Being cut anew: {names_text(sorted([*under_way, *plan.starting]))}."
        return {"type": READY, "status": "False", "reason": "Repartitioning", "message": text}
    if plan.waiting:
        text = f"{names_text(sorted(plan.waiting))} should be cut anew. {next(iter(plan.waiting.values()))}"
        return {"type": READY, "status": "False", "reason": "Waiting", "message": text}
    held = {node.name: node.record.reason for node in seen.nodes if node.record and node.record.step is Step.HELD}
    if held:
        first, why = min(held.items())
        text = f"Not cut anew for half an hour: {names_text(sorted(held))}. '{first}': {why}"
        return {"type": READY, "status": "False", "reason": "RepartitionHeld", "message": text}
    text = f"{len(seen.nodes)} nodes are cut as planned."
    return {"type": READY, "status": "True", "reason": "AsPlanned", "message": text}


def _demand_met(seen: PoolSnapshot, plan: PoolPlan) -> Fields:
    missing = [one for one in plan.layout.served if one.missing]
    if missing:
        return {"type": DEMAND_MET, "status": "False", "reason": "TooFewSlices", "message": _missing(seen, missing)}
    short = [one for one in plan.shared if one.missing]
    if short:
        return {"type": DEMAND_MET, "status": "False", "reason": "TooFewShares", "message": missing_share(seen, short)}
    sliced = sum(one.want.replicas for one in plan.layout.served)
    text = f"All {sliced} workers have a slice."
    if plan.shared:
        text = f"All {sliced + sum(one.want.replicas for one in plan.shared)} workers have a slice or a share of a GPU."
    return {"type": DEMAND_MET, "status": "True", "reason": "AllServed", "message": text}


def _missing(seen: PoolSnapshot, missing: Sequence[Served]) -> str:
    """The arithmetic of the most important service that waits, and how many others do."""
    first = missing[0]
    want = first.want
    slices = sum(one.replicas * one.want.gpus * slices_of(one.want.profile) for one in _all(seen))
    have = sum(node.gpu_count * node.family.compute for node in seen.nodes if node.family is not None)
    text = (
        f"{want.service} (P{want.priority}) wants {want.replicas} workers on {resource_name(want.profile)} and gets"
        f" {first.replicas}: all services ask for {slices} compute slices, and the usable GPUs have {have}."
    )
    if len(missing) > 1:
        text += f" {len(missing) - 1} other services wait, too."
    if seen.spec.allocation is Allocation.RESOURCE_CLAIMS:
        text += unpublished(want.profile, seen.nodes)
    return text + " Add nodes to the pool, lower replicas, or choose a smaller profile."


def _all(seen: PoolSnapshot) -> list[Served]:
    return [Served(want, want.replicas) for want in seen.wants]
