"""The plan of one InferenceService: all decisions in their order, from a snapshot to what has to be written.

Never asks and never writes. Planning again after the plan was applied gives nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from controllers.plans.alerting.wishes import hold_now
from controllers.plans.canary.values import Pair
from controllers.plans.carried import follows_from_lengths
from controllers.plans.children import Surroundings, claim_template, deployment, surrounding_children
from controllers.plans.deletion import plan_deletion
from controllers.plans.diagnosis import plan_diagnosis
from controllers.plans.evacuation import successors
from controllers.plans.findings import Finding, referred
from controllers.plans.floor import floor_news, raised_floor, with_floor
from controllers.plans.healing.plan import plan_healing
from controllers.plans.healing.values import HealPlan, Restart
from controllers.plans.limits import Limit, limits, lowest
from controllers.plans.mig.chosen import with_profile
from controllers.plans.mig.claims import allocation_of
from controllers.plans.mig.profile_choice import Choice, choose
from controllers.plans.mig.sharing import weak_isolation
from controllers.plans.quality_status import quality_conditions
from controllers.plans.quota import Grant, plan_quota
from controllers.plans.release import called_for, outdated
from controllers.plans.rollout import Move, RolloutPlan
from controllers.plans.scaling import Doubt, ScalingPlan, Signals, plan_scaling
from controllers.plans.scaling_status import LENGTHS_UNKNOWN, scaling_conditions, scaling_status
from controllers.plans.servable import Verdict, judge_servable
from controllers.plans.service_rollout import pinned_revision, plan_revisions
from controllers.plans.service_status import (
    Manifest,
    NewCondition,
    conditions,
    degraded,
    deleting_conditions,
    healing_status,
    standing,
    status_fields,
    transitions,
)
from controllers.plans.snapshot import Claim, Snapshot
from controllers.plans.tenancy import demand_of
from controllers.plans.transitions import Transition
from controllers.plans.worker_pod import WorkerImages, WorkerTemplate, check_image, worker_template
from crds.conditions import WEAK_ISOLATION, WORKERS_OUTDATED, ConditionStatus
from crds.inference_service import Allocation, SliceChoice
from crds.reading import concerns, explained
from forecasting.policy import Direction, Memory


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What the administrator chose."""

    images: WorkerImages
    around: Surroundings
    url: str
    roll_releases: bool = False
    """Workers are replaced when another release of the operator would make them otherwise."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What to write, in this order, and what to do after it."""

    children: tuple[Manifest, ...] = ()
    """Wanted as they are, the Deployment of the present revision included."""
    lowered: tuple[str, ...] = ()
    """Revisions that lose workers: their pods get a deletion cost before anything else is written."""
    moves: tuple[Move, ...] = ()
    """Revisions whose template is not ours to say any more: only their number changes."""
    remove: tuple[str, ...] = ()
    """Revisions whose Deployments are deleted."""
    remove_claims: tuple[str, ...] = ()
    """Revisions whose ResourceClaimTemplates are deleted: their Deployments are gone."""
    release: bool = False
    """The finalizer goes: nothing is left to wait for."""
    status: Manifest | None = None
    """Without conditions."""
    conditions: tuple[NewCondition, ...] = ()
    notes: tuple[Transition, ...] = ()
    """Events about conditions that change."""
    moved: tuple[Transition, ...] = ()
    """Events about numbers that change."""
    probe_now: bool = False
    forget_probe: bool = False
    look_again_s: float | None = None
    over_quota: bool = False
    """It waits for quota of others, or may have to give back what it borrows of them."""
    memory: Memory | None = None
    scaling: ScalingPlan | None = None
    limits: tuple[Limit, ...] = ()
    """What Tenant and pools leave of what the spec allows."""
    pair: Pair | None = None
    """Two revisions that are compared from now on."""
    healing: HealPlan | None = None
    """None where a person wants none."""

    @property
    def restarts(self) -> tuple[Restart, ...]:
        """Pods to delete, after the status that records it was written."""
        return self.healing.restarts if self.healing else ()


def _soonest(*delays_s: float | None) -> float | None:
    return min((one for one in delays_s if one is not None), default=None)


def plan_service(snapshot: Snapshot, settings: PlanSettings, memory: Memory, now_s: float) -> ServicePlan:
    """The whole plan of this moment; `now_s` is Unix time."""
    servable = judge_servable(snapshot, settings.around.system_namespace)
    if snapshot.deleting:
        return _plan_end(snapshot, settings, servable)
    # 0. Which MIG profile `auto` stands for: everything below counts with it.
    choice = _choice(snapshot)
    if choice.status is not None and choice.status.profile:
        snapshot = replace(snapshot, spec=with_profile(snapshot.spec, choice.status.profile))
    # ... and how workers get it: by the device plugin, or by claims.
    allocation = allocation_of(snapshot.spec.accelerator, snapshot.givers, snapshot.allocation)
    snapshot = replace(snapshot, allocation=allocation)
    # 1. What the spec refers to: without a Tenant, a ready Model and a slice no new worker may start.
    findings = referred(snapshot)
    if choice.reason and not any(one.blocks_start for one in findings):
        findings.append(Finding(choice.reason, choice.message, blocks_start=True, needs_person=choice.needs_person))
    # 2. The revision that all workers should have. It cannot be known while something blocks. A new release of the
    # operator alone is no reason for another one.
    template, image_findings = _template(snapshot, findings, settings.images)
    findings += image_findings
    pinned, pin_findings = pinned_revision(snapshot)
    findings += pin_findings
    called = _called_for(snapshot, template, settings)
    target = pinned or called or _last_target(snapshot)
    # 3. How many: what the spec, the load or an alert calls for, within what Tenant and pools leave ...
    limited = _limits(snapshot)
    seen = _signals(snapshot, lowest(one for one in limited if one.bounds))
    floor = raised_floor(snapshot, now_s)
    scaling = plan_scaling(with_floor(snapshot.spec, floor), snapshot.status.desired_replicas, seen, memory, now_s)
    # 4. ... and what the Tenant's quota leaves of the wish: the rest is what a person is told.
    grant = plan_quota(snapshot.tenant, _my_claim(snapshot, scaling.wished), snapshot.other_claims, snapshot.cohort)
    findings += [grant.finding] if grant.finding else []
    desired = min(grant.replicas, scaling.replicas)
    # 5. And successors for workers whose node will be cut anew.
    moving = successors(snapshot.workers, snapshot.evacuating, desired)
    # 6. Workers that are not well; a revision that can only crash gives way to the last that stood.
    healing = plan_healing(snapshot, pinned or called, desired, now_s)
    if healing and healing.serve:
        target = healing.serve
        findings.append(Finding("RolledBack", healing.refused or ""))
    # 7. From what exists towards that, one safe step; a new revision may have to show first that it is no worse.
    revisions = plan_revisions(snapshot, target, desired + moving, now_s, template=template)
    hold = hold_now(snapshot.wishes, now_s)
    rollout, canary = revisions.rollout, revisions.canary
    findings += revisions.findings
    # 8. The words for people.
    now = standing(snapshot, target, desired, findings, revisions.moving)
    made = [
        *conditions(now, servable),
        *degraded(healing),
        *scaling_conditions(snapshot, scaling, lowest(limited)),
        *_isolation(snapshot),
        *_outdated(snapshot, target, template),
        *quality_conditions(snapshot.drifts, snapshot.status.conditions),
    ]
    diagnosed = plan_diagnosis(snapshot, findings, made, desired, now_s)
    return ServicePlan(
        children=_children(snapshot, settings.around, template, rollout),
        lowered=tuple(move.revision for move in rollout.moves if move.after < move.before),
        moves=tuple(move for move in rollout.moves if template is None or move.revision != template.revision),
        remove=rollout.remove,
        remove_claims=_unclaimed(snapshot, target, template),
        status=status_fields(snapshot, now, settings.url)
        | scaling_status(snapshot, scaling, desired, grant.replicas, floor, now_s)
        | revisions.status()
        | healing_status(healing)
        | ({"diagnosis": diagnosed.status.dump()} if diagnosed.status else {})
        | _slice_status(choice.status)
        | _allocation_status(allocation),
        conditions=tuple(made),
        notes=(
            *transitions(snapshot.status.conditions, made),
            *(canary.notes if canary else ()),
            *(healing.told if healing else ()),
            *floor_news(snapshot, floor),
            *diagnosed.told,
        ),
        moved=tuple(_moved(scaling, rollout, grant)),
        probe_now=servable.probe_now,
        forget_probe=servable.look_again_s is None,
        look_again_s=_soonest(
            servable.look_again_s,
            canary.look_again_s if canary else None,
            healing.look_again_s if healing else None,
            floor.until_s - now_s if floor else None,
            hold.until_s - now_s if hold and hold.until_s < math.inf else None,
        ),
        over_quota=grant.finding is not None or grant.borrows,
        memory=scaling.memory,
        scaling=scaling,
        limits=limited,
        pair=canary.pair if canary else None,
        healing=healing,
    )


def _plan_end(snapshot: Snapshot, settings: PlanSettings, servable: Verdict) -> ServicePlan:
    end = plan_deletion(snapshot)
    message = f"{end.message} {snapshot.refused}" if snapshot.refused else end.message
    made = deleting_conditions(message, servable)
    now = standing(snapshot, _last_target(snapshot), 0, (), end.message)
    return ServicePlan(
        remove=end.delete,
        release=end.release,
        status=None
        if end.release and not snapshot.refused
        else status_fields(snapshot, now, settings.url)
        | _slice_status(snapshot.status.slice)
        | _allocation_status(snapshot.allocation),
        conditions=tuple(made),
        notes=tuple(transitions(snapshot.status.conditions, made)),
        forget_probe=True,
    )


def _choice(snapshot: Snapshot) -> Choice:
    if snapshot.slices is None:
        return Choice(None)
    return choose(snapshot.spec, snapshot.known.targets, snapshot.slices, snapshot.status.slice)


def _isolation(snapshot: Snapshot) -> list[NewCondition]:
    weak = weak_isolation(snapshot.spec.accelerator)
    return [NewCondition(WEAK_ISOLATION, ConditionStatus.TRUE, *weak)] if weak else []


def _called_for(snapshot: Snapshot, template: WorkerTemplate | None, settings: PlanSettings) -> str | None:
    if template is None:
        return None
    return called_for(template, snapshot.revisions, snapshot.status.current_revision, roll=settings.roll_releases)


def _outdated(snapshot: Snapshot, target: str | None, template: WorkerTemplate | None) -> list[NewCondition]:
    message = outdated(target, template, snapshot.revisions)
    return [NewCondition(WORKERS_OUTDATED, ConditionStatus.TRUE, "EarlierRelease", message)] if message else []


def _slice_status(chosen: SliceChoice | None) -> Manifest:
    return {} if chosen is None else {"slice": chosen.dump()}


def _allocation_status(allocation: Allocation) -> Manifest:
    return {} if allocation is Allocation.DEVICE_PLUGIN else {"allocation": str(allocation)}


def _unclaimed(snapshot: Snapshot, target: str | None, template: WorkerTemplate | None) -> tuple[str, ...]:
    """Pods of a Deployment need its template for as long as it stands."""
    needed = {one.name for one in snapshot.revisions} | {target, template.revision if template else None}
    return tuple(sorted(snapshot.claim_templates - needed))


def _template(
    snapshot: Snapshot, findings: Sequence[Finding], images: WorkerImages
) -> tuple[WorkerTemplate | None, list[Finding]]:
    image_finding = check_image(snapshot.spec, images)
    if image_finding:
        return None, [image_finding]
    if snapshot.model is None or any(finding.blocks_start for finding in findings):
        return None, []
    return worker_template(snapshot, snapshot.model, images), []


def _last_target(snapshot: Snapshot) -> str | None:
    """The revision wanted until now, else the newest that exists."""
    names = {revision.name for revision in snapshot.revisions}
    if snapshot.status.current_revision in names:
        return snapshot.status.current_revision
    newest = max(snapshot.revisions, key=lambda revision: (revision.created, revision.name), default=None)
    return newest.name if newest else None


def _limits(snapshot: Snapshot) -> tuple[Limit, ...]:
    """None of a service that does not scale: what its spec says is asked for, and told where it is refused."""
    if snapshot.spec.scaling is None:
        return ()
    placed = sum(worker.node is not None and not worker.leaving for worker in snapshot.workers)
    most = _my_claim(snapshot, snapshot.spec.scaling.max)
    return limits(snapshot.tenant, most, snapshot.other_claims, snapshot.pool_share, placed, snapshot.cohort)


def _signals(snapshot: Snapshot, limit: Limit | None) -> Signals:
    return Signals(
        loads=[snapshot.loads.get(name) for name in sorted(snapshot.ready_workers)],
        demand=snapshot.demand,
        forecast=snapshot.forecast,
        lead_time_s=snapshot.lead_time_s,
        known=snapshot.known,
        autoscaler=snapshot.autoscaler,
        limit=limit,
        judged=snapshot.judged,
        doubt=_doubt(snapshot),
    )


def _doubt(snapshot: Snapshot) -> Doubt | None:
    """Without targets or lengths, what was learned would count, whatever the latency was."""
    spec = snapshot.spec
    if spec.scaling is None:
        return None
    if concerns(snapshot.sla_unread, "targets"):
        return Doubt("SLANotUnderstood", explained(snapshot.sla_unread))
    if spec.sla and not snapshot.sla_found and not spec.scaling.tokens_per_second:
        return Doubt("SLANotFound", f"what one worker may carry follows from SLA '{spec.sla}', which is not there")
    if snapshot.lengths_awaited and follows_from_lengths(spec, snapshot.known):
        return Doubt(LENGTHS_UNKNOWN, "how long its requests are was not read from its history yet")
    return None


def _my_claim(snapshot: Snapshot, wanted: int) -> Claim:
    running = sum(revision.replicas for revision in snapshot.revisions)
    if snapshot.status.desired_replicas is not None:
        # As all others see it: workers of a rollout's surge are not held, or they would stay beyond the quota.
        running = min(running, snapshot.status.desired_replicas)
    spec = snapshot.spec.model_copy(update={"replicas": wanted, "scaling": None})
    held = spec.model_copy(update={"replicas": min(running, wanted)})
    return Claim(
        snapshot.namespace,
        snapshot.name,
        snapshot.created,
        demand_of(spec, None),
        demand_of(held, None),
        priority=snapshot.priority,
    )


def _children(
    snapshot: Snapshot, around: Surroundings, template: WorkerTemplate | None, rollout: RolloutPlan
) -> tuple[Manifest, ...]:
    children = surrounding_children(snapshot, around)
    if template and template.revision in rollout.replicas:
        children += claim_template(snapshot, template)
        children.append(deployment(snapshot, template, rollout.replicas[template.revision]))
    return tuple(children)


def _moved(scaling: ScalingPlan, rollout: RolloutPlan, grant: Grant) -> list[Transition]:
    notes = []
    reason = {Direction.UP: "ScaledUp", Direction.DOWN: "ScaledDown"}.get(scaling.direction)
    if reason:
        notes.append(Transition(reason, scaling.message, warning=False))
    if grant.finding and grant.reclaims:
        notes.append(Transition(grant.finding.reason, grant.finding.message, warning=False))
    if rollout.moves:
        notes.append(Transition("WorkersMoved", rollout.message, warning=False))
    return notes
