"""The plan of one GPUPool: which nodes are cut anew now, the next act on those under way, and the words for people.

In this order: the nodes and what holds them → what services want → the best layout (`planner`) → as many starts as
windows and the share at once allow → the status, with its arithmetic. Planning again after the plan was carried out
starts nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controllers.plans.mig.demand import Plan, PlanSettings, Unit, Want, worth
from controllers.plans.mig.faults import guard, is_out
from controllers.plans.mig.geometry import Family
from controllers.plans.mig.layouts import Layout, slices_of
from controllers.plans.mig.leaving import leave
from controllers.plans.mig.offers import allowed_by
from controllers.plans.mig.planner import plan_layouts
from controllers.plans.mig.records import GpuPod, NodeView, Step, total
from controllers.plans.mig.released import release
from controllers.plans.mig.repartition import Limits, Move, advance, start
from controllers.plans.mig.sharing import Share, ShareServed, ShareWant, serve_shares
from crds.fields import seconds
from crds.gpu_pool import GPUPoolSpec, QuietWindow
from crds.scaling import Weekday
from forecasting.policy.limits import is_open
from forecasting.policy.values import Window

UNDER_WAY = (Step.MOVE, Step.ASK, Step.BACK)


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One GPUPool and everything around it, at one moment."""

    name: str
    generation: int
    spec: GPUPoolSpec
    nodes: tuple[NodeView, ...]
    """Of this pool."""
    pods: tuple[GpuPod, ...]
    """That hold GPUs of these nodes."""
    wants: tuple[Want, ...]
    """Of services that count in this pool."""
    deleting: bool = False
    share_wants: tuple[ShareWant, ...] = ()
    """Of services on GPUs that are shared without MIG."""
    missing_api: tuple[str, str] | None = None
    """Reason and message where the cluster cannot give devices in the way that the spec says."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What to do now. `layout` is the whole picture that it leads to."""

    moves: tuple[Move, ...]
    layout: Plan
    starting: tuple[str, ...]
    waiting: Mapping[str, str]
    """Nodes that should be cut anew but may not yet, and why."""
    look_again_s: float | None
    shared: tuple[ShareServed, ...] = ()


Solve = Callable[[Sequence[Want], Sequence[Unit], Mapping[str, Family], PlanSettings], Plan]
"""`plan_layouts`, or something that remembers what it answered."""


def plan_pool(seen: PoolSnapshot, now_s: float, solve: Solve = plan_layouts) -> PoolPlan:
    """The whole plan of this moment; `now_s` is Unix time."""
    limits = limits_of(seen.spec)
    held = _pods_by_node(seen.pods)
    act = _last_act if seen.deleting else _act
    acts = [act(node, held.get(node.name, ()), now_s, limits) for node in seen.nodes]
    moves = [move for move in acts if move is not None]
    plan = best_layout(seen, held, now_s, solve)
    shared = serve_shares(seen.share_wants, free_shares(seen))
    if seen.deleting or seen.missing_api:
        # Nothing is cut for devices that nobody could get.
        return PoolPlan(tuple(moves), plan, (), {}, _soonest(moves), shared)
    wanted = _in_order(seen, plan)
    allowed, waiting = _starts(seen, wanted)
    fresh = _share_out(plan, wanted, seen.wants)
    # Where a node is changing just now, the next look knows more.
    settled = not any(move.patch for move in moves)
    started = [
        start(node, fresh[node.name], now_s) for node in allowed if settled and total(fresh[node.name]) != node.now
    ]
    return PoolPlan(
        moves=(*moves, *started),
        layout=plan,
        starting=tuple(move.node for move in started),
        waiting=waiting,
        look_again_s=_soonest([*moves, *started]) or (60.0 if waiting or seen.spec.repartition.windows else None),
        shared=shared,
    )


def _act(node: NodeView, pods: Sequence[GpuPod], now_s: float, limits: Limits) -> Move | None:
    """A node that goes comes first; then a repartition to its end, which empties the node anyway; then a fault."""
    if (move := leave(node, pods, now_s)) is not None:
        return move
    if node.record is not None and node.record.step is not Step.HELD:
        return advance(node, node.record, pods, now_s, limits)
    move = guard(node, pods, now_s, limits)
    return advance(node, node.record, pods, now_s, limits) if move is None and node.record else move


def _last_act(node: NodeView, pods: Sequence[GpuPod], now_s: float, limits: Limits) -> Move | None:
    """Of a pool that goes: a repartition to its end, unless the machine goes as well; then the node is given back."""
    if node.record is not None and node.record.step in UNDER_WAY and node.notice is None:
        return advance(node, node.record, pods, now_s, limits)
    return release(node)


def best_layout(
    seen: PoolSnapshot, held: Mapping[str, Sequence[GpuPod]], now_s: float, solve: Solve = plan_layouts
) -> Plan:
    """What the planner makes of the pool; nodes that must not be touched now are frozen."""
    families = {node.family.name: node.family for node in seen.nodes if node.family is not None}
    priorities = {want.service: want.priority for want in seen.wants}
    quiet = is_quiet(seen.spec, now_s)
    units = [_unit(node, held.get(node.name, ()), priorities, quiet) for node in seen.nodes]
    return solve(seen.wants, units, families, planner_settings(seen.spec))


def planner_settings(spec: GPUPoolSpec) -> PlanSettings:
    """The person's choices for the planner."""
    allowed = allowed_by(spec)
    repartition = spec.repartition
    return PlanSettings(
        allowed=allowed,
        whole_gpus=spec.whole_gpus,
        repartition_s=min(seconds(repartition.move_timeout), 300.0),
        horizon_s=seconds(repartition.horizon),
    )


def limits_of(spec: GPUPoolSpec) -> Limits:
    return Limits(seconds(spec.repartition.move_timeout), seconds(spec.repartition.timeout))


def is_quiet(spec: GPUPoolSpec, now_s: float) -> bool:
    """Whether workers may be moved now."""
    windows = spec.repartition.windows
    return windows is None or any(is_open(_window(one), now_s) for one in windows)


def _window(one: QuietWindow) -> Window:
    days = list(Weekday) if one.days is None else one.days
    return Window(
        min_replicas=0,
        max_replicas=0,
        start_minute=_minute(one.start),
        end_minute=_minute(one.end),
        days=tuple(list(Weekday).index(day) for day in days),
        zone=one.time_zone,
    )


def _minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def frozen_because(node: NodeView, pods: Sequence[GpuPod], quiet: bool) -> str | None:
    """Why a node is not to be cut anew now; None when it may be."""
    if node.problem is not None:
        return node.problem
    if node.notice is not None:
        return f"It will be taken away ({node.notice.mark})."
    if node.share is not None:
        how = f"{node.share.strategy}, {node.share.replicas} on each, {node.share.gigabytes} GB for one"
        return f"Its device plugin shares its GPUs ({how}), so they are not cut."
    if node.record is not None:
        return "Its repartition is under way or has just failed."
    if not node.ready:
        return "It is not ready."
    if is_out(node):
        return "It is in quarantine after a GPU fault."
    if node.cordoned:
        return "Somebody else has cordoned it."
    foreign = next((pod for pod in pods if pod.service is None), None)
    if foreign is not None:
        return f"{foreign.what} '{foreign.namespace}/{foreign.name}', which is no worker of ours, holds a GPU."
    if pods and not quiet:
        return "It has workers, and no window of spec.repartition.windows is open."
    return None


def _unit(node: NodeView, pods: Sequence[GpuPod], priorities: Mapping[str, int], quiet: bool) -> Unit:
    used = [(pod, sum(slices_of(name) * count for name, count in pod.slices)) for pod in pods]
    return Unit(
        name=node.name,
        families={node.family.name: node.gpu_count} if node.family else {},
        stays=(gives(node),),
        used_slices=sum(slices for _, slices in used),
        used_worth=float(sum(slices * worth(_priority(pod, priorities)) for pod, slices in used)),
        worker_count=len(pods),
        frozen=frozen_because(node, pods, quiet) is not None,
    )


def _priority(pod: GpuPod, priorities: Mapping[str, int]) -> int:
    return priorities.get(f"{pod.namespace}/{pod.service}", 3)


def gives(node: NodeView) -> Layout:
    """What can be counted on: the layout it is getting, or the one that it has."""
    record = node.record
    if node.notice is not None:
        return ()
    if record is not None and record.step in (Step.MOVE, Step.ASK):
        return record.wanted
    if record is not None and record.step in (Step.BACK, Step.STUCK):
        return record.was if record.step is Step.BACK else ()
    return node.now if node.ready and not node.cordoned else ()


def free_shares(seen: PoolSnapshot) -> Counter[Share]:
    """What workers of ours have or may get: shares of usable nodes without those that pods of others hold."""
    others = Counter[str]()
    for pod in seen.pods:
        if pod.node is not None and pod.service is None:
            others[pod.node] += pod.shares
    found: Counter[Share] = Counter()
    for node in seen.nodes:
        if node.share is not None and node.ready and not node.cordoned:
            found[node.share] += max(0, node.shares - others[node.name])
    return found


def _in_order(seen: PoolSnapshot, plan: Plan) -> list[NodeView]:
    """Nodes to be cut anew, the emptiest first."""
    holders = Counter(pod.node for pod in seen.pods)
    return sorted((node for node in seen.nodes if node.name in plan.recut), key=lambda n: (holders[n.name], n.name))


def _starts(seen: PoolSnapshot, wanted: Sequence[NodeView]) -> tuple[Sequence[NodeView], dict[str, str]]:
    """As many as may be under way at once."""
    under_way = sum(node.record is not None and node.record.step in UNDER_WAY for node in seen.nodes)
    percent = seen.spec.repartition.max_percent_at_once
    at_once = max(1, math.floor(len(seen.nodes) * percent / 100))
    room = max(0, at_once - under_way)
    why = f"It waits: {at_once} of {len(seen.nodes)} nodes may be cut anew at once ({percent}%)."
    return wanted[:room], {node.name: why for node in wanted[room:]}


def _share_out(plan: Plan, nodes: Sequence[NodeView], wants: Sequence[Want]) -> dict[str, tuple[Layout, ...]]:
    """Layouts to GPUs: those that serve the most demand which has no slice yet go to the nodes that start first."""
    left = Counter[str]()
    for given in plan.stays.values():
        left.update(dict(given))
    gain = Counter[str]()
    for want in sorted(wants, key=lambda one: one.priority):
        needed = want.replicas * want.gpus
        gain[want.profile] += worth(want.priority) * max(0, needed - left[want.profile])
        left[want.profile] = max(0, left[want.profile] - needed)
    shared = {}
    piles = {
        name: [one for one, n in sorted(pile, key=lambda item: (_gain(item[0], gain), item[0])) for _ in range(n)]
        for name, pile in plan.pool.items()
    }
    for node in nodes:
        assert node.family is not None, "a node without a family is frozen"
        shared[node.name] = tuple(piles[node.family.name].pop() for _ in range(node.gpu_count))
    return shared


def _gain(one: Layout, gain: Mapping[str, int]) -> int:
    return sum(gain.get(name, 0) * count for name, count in one)


def _pods_by_node(pods: Sequence[GpuPod]) -> dict[str, list[GpuPod]]:
    held: dict[str, list[GpuPod]] = {}
    for pod in pods:
        if pod.node is not None:
            held.setdefault(pod.node, []).append(pod)
    return held


def _soonest(moves: Sequence[Move]) -> float | None:
    return min((move.look_again_s for move in moves if move.look_again_s is not None), default=None)
