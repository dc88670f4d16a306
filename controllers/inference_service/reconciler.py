"""The reconciler of InferenceServices: one look is observe → plan → write, then probes and Events."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from controllers.inference_service.budgets import BudgetBoard
from controllers.inference_service.caches import Caches, service_place
from controllers.inference_service.canaries import CanaryBoard
from controllers.inference_service.demand import DemandBoard
from controllers.inference_service.foresight import Foresight
from controllers.inference_service.healings import Healings
from controllers.inference_service.loads import Kind, LoadBoard
from controllers.inference_service.objections import ObjectionBoard
from controllers.inference_service.observe import Heard, Observer
from controllers.inference_service.probes import ProbeBoard
from controllers.inference_service.profiles import ProfileBoard
from controllers.inference_service.quality import QualityBoard
from controllers.inference_service.write import Writer
from controllers.plans.alerting.wishes import Hold, Wishes
from controllers.plans.canary.evidence import remembered
from controllers.plans.capacity import profile_of
from controllers.plans.limits import Limit
from controllers.plans.mig.chosen import spec_of
from controllers.plans.service import PlanSettings, ServicePlan, plan_service
from controllers.plans.snapshot import Snapshot
from controllers.plans.transitions import Transition
from controllers.refusals import NOT_TAKEN, Refusals
from controllers.runtime.interface import Key, Outcome
from crds.contract import FINALIZER_SERVICE
from crds.inference_service import InferenceServiceSpec
from crds.reading import unread_of
from crds.rollout import Strategy
from crds.scaling import ScalingPolicy
from forecasting.policy import Memory
from kube.errors import AnswerError, Conflict, NotFound, Unreachable
from kube.events import Recorder
from kube.resources import INFERENCE_SERVICES, Object

log = logging.getLogger(__name__)

KIND: Final = INFERENCE_SERVICES.kind
BEHIND_S: Final = 1.0


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class InferenceServiceReconciler:
    """Keeps in memory only what a restart may lose: the history of scaling, what limits leave, refusals."""

    kind = KIND

    def __init__(
        self,
        caches: Caches,
        writer: Writer,
        probes: ProbeBoard,
        loads: LoadBoard,
        demands: DemandBoard,
        foresight: Foresight,
        profiles: ProfileBoard,
        canaries: CanaryBoard,
        budgets: BudgetBoard,
        qualities: QualityBoard,
        alert_wishes: Callable[[Key], Wishes | None],
        objections: ObjectionBoard,
        healings: Healings,
        recorder: Recorder,
        settings: PlanSettings,
        *,
        wall_clock: Callable[[], datetime] = _wall_clock,
    ) -> None:
        self._caches, self._writer, self._probes, self._loads = caches, writer, probes, loads
        self._demands, self._foresight, self._profiles = demands, foresight, profiles
        self._canaries, self._budgets, self._qualities = canaries, budgets, qualities
        self._alert_wishes = alert_wishes
        self._objections, self._healings = objections, healings
        self._recorder, self._settings = recorder, settings
        self._wall_clock = wall_clock
        self._observer = Observer(caches)
        self._uids: dict[Key, str] = {}
        """Whose memories these are."""
        self._memories: dict[Key, Memory] = {}
        self._refusals = Refusals()
        self._over_quota: set[Key] = set()
        self._limits: dict[Key, tuple[Limit, ...]] = {}

    @property
    def over_quota(self) -> frozenset[Key]:
        """Services that wait for quota or borrow it: any change of another may let them go on, or ask it back."""
        return frozenset(self._over_quota)

    def limits(self, key: Key) -> tuple[Limit, ...]:
        """What Tenant and pools leave of a service that scales, as of the last look at it."""
        return self._limits.get(key, ())

    async def reconcile(self, key: Key) -> Outcome:
        service = self._caches.services.get(key.namespace, key.name)
        if service is None:
            self._forget(key)
            return Outcome()
        uid = service["metadata"]["uid"]
        if self._uids.setdefault(key, uid) != uid:
            self._forget(key)  # It went and was made anew between two looks.
            self._uids[key] = uid
        try:
            return await self._look(key, self._writer.newest(service))
        except (Conflict, NotFound) as error:
            if self._refusals.told(key) is not None:
                raise
            # The cache is behind: what is on its way wakes the key, and the look is there in case it does not.
            log.debug("%s: %s", key, error)
            return Outcome(BEHIND_S)

    async def _look(self, key: Key, service: Object) -> Outcome:
        meta = service["metadata"]
        if unread_of(service) and not meta.get("deletionTimestamp"):
            await self._writer.misread(self._recorder, service, self._wall_clock())
            return Outcome()  # Its workers stay as they are.
        if not meta.get("deletionTimestamp") and FINALIZER_SERVICE not in (meta.get("finalizers") or ()):
            await self._hold(key, service)
            return Outcome()  # The change it makes wakes the key.
        seen, plan = self._decide(key, service)
        refusal = await self._write_children(key, service, seen, plan)
        if refusal is not None and self._refusals.told(key) is None:
            raise refusal  # It may be gone at the next look.
        if seen.refused != self._refusals.told(key):
            seen, plan = self._decide(key, service)  # What was found of refusals is out of date.
        await self._write_status(service, plan)
        # Only what the status remembers is done: whoever comes after knows of it.
        for one in plan.restarts:
            await self._writer.restart(seen.namespace, one)
        self._ask(key, seen, plan)
        if refusal is not None:
            raise refusal
        return Outcome(plan.look_again_s)

    async def _hold(self, key: Key, service: Object) -> None:
        try:
            await self._writer.hold(service)
        except NOT_TAKEN as error:
            if self._hear(key, service, error):
                await self._write_status(service, self._decide(key, service)[1])
            raise

    def _decide(self, key: Key, service: Object) -> tuple[Snapshot, ServicePlan]:
        seen = self._observe(key, service)
        memory = self._memories.get(key) or Memory()
        plan = plan_service(seen, self._settings, memory, self._wall_clock().timestamp())
        self._remember(key, seen, plan)
        return seen, plan

    def _observe(self, key: Key, service: Object) -> Snapshot:
        profile = self._profile(service["metadata"]["namespace"], spec_of(service))
        heard = Heard(
            self._loads.last(key),
            self._probes.last(key),
            self._refusals.told(key),
            self._writer.is_unseen,
            compared=self._canaries.last(key),
            budget_spent=self._budgets.spent(key, held_by(service, "ErrorBudgetSpent"))
            if service["spec"].get("sla")
            else None,
            wishes=self._wishes(key, service),
            drifts=self._qualities.drifts(key),
            demand=self._demands.last(key),
            forecast=self._foresight.view(key),
            lead_time_s=self._foresight.lead_time_s(profile),
            lengths=self._foresight.lengths(key),
            lengths_awaited=self._foresight.is_awaited(key),
            judged=self._foresight.judged(key),
            learned_work_per_s=self._loads.capacities.get(profile),
            objections=self._objections.last(key),
            health=self._healings.last(key),
        )
        return self._observer.snapshot(service, heard)

    def _profile(self, namespace: str, spec: InferenceServiceSpec) -> str:
        return profile_of(namespace, spec, self._caches.models.get(namespace, spec.model))

    def _wishes(self, key: Key, service: Object) -> Wishes:
        """Until the alerts have been looked at once, what the status says that one held goes on holding."""
        wishes = self._alert_wishes(key)
        if wishes is not None:
            return wishes
        held = held_by(service, "HeldByAlert")
        return Wishes(holds=(Hold(math.inf, held),)) if held else Wishes()

    async def _write_children(
        self, key: Key, service: Object, seen: Snapshot, plan: ServicePlan
    ) -> AnswerError | Unreachable | None:
        """The first refusal."""
        written = await self._writer.children(service, seen, plan)
        if written.moved:
            self._tell(service, plan.moved)
        if written.refusal is None:
            self._refusals.forget(key)
        else:
            self._hear(key, service, written.refusal)
        return written.refusal

    def _hear(self, key: Key, service: Object, refusal: AnswerError | Unreachable) -> bool:
        generation = service["metadata"].get("generation", 0)
        return self._refusals.hear(key, refusal, self._wall_clock(), generation=generation)

    async def _write_status(self, service: Object, plan: ServicePlan) -> None:
        if plan.status is not None and await self._writer.status(service, plan, self._wall_clock()):
            self._tell(service, plan.notes)

    def _remember(self, key: Key, seen: Snapshot, plan: ServicePlan) -> None:
        if plan.memory is not None:
            self._memories[key] = plan.memory
        self._healings.remember(key, plan.healing)
        if plan.over_quota:
            self._over_quota.add(key)
        else:
            self._over_quota.discard(key)
        self._limits[key] = plan.limits
        self._follow(key, seen)
        self._qualities.follow(key, () if seen.deleting else seen.workers)
        self._compare(key, seen, plan)
        self._profiles.offer(seen)
        if plan.scaling is not None and plan.scaling.decision is not None:
            self._foresight.record(key, plan.scaling.decision)

    def _follow(self, key: Key, seen: Snapshot) -> None:
        scaling = seen.spec.scaling
        if scaling is None or seen.deleting:
            self._unfollow(key)
            return
        self._loads.follow(
            key, seen.workers, Kind(self._profile(seen.namespace, seen.spec), scaling.target_concurrency)
        )
        if scaling.fewest == 0 and scaling.policy is not ScalingPolicy.ADVISORY:
            self._demands.follow(key)
        else:
            self._demands.forget(key)
        # Reactive ones too: their CapacityForecast says what the other policy would know.
        self._foresight.follow(key, seen.lead_time_s)

    def _compare(self, key: Key, seen: Snapshot, plan: ServicePlan) -> None:
        """Measure what the plan compares, and go on from what the status remembers of it."""
        compares = seen.spec.rollout.strategy is not Strategy.ROLLING and not seen.deleting
        self._budgets.follow(key, None if seen.deleting else seen.spec.sla, gates=compares)
        if plan.pair is None:
            self._canaries.forget(key)
            return
        known = seen.status.rollout
        mine = known is not None and known.candidate == plan.pair.candidate
        evidence = remembered(known.verdicts if known and mine else None)
        ready = any(one.ready and one.revision == plan.pair.candidate for one in seen.workers)
        self._canaries.follow(key, plan.pair, seen.spec.rollout, evidence, candidate_is_ready=ready)

    def _unfollow(self, key: Key) -> None:
        self._loads.forget(key)
        self._demands.forget(key)
        self._foresight.forget(key)

    def _tell(self, service: Object, notes: Iterable[Transition]) -> None:
        for note in notes:
            tell = self._recorder.warning if note.warning else self._recorder.normal
            tell(service, note.reason, note.message)

    def _ask(self, key: Key, seen: Snapshot, plan: ServicePlan) -> None:
        if plan.forget_probe:
            self._probes.forget(key)
        elif plan.probe_now:
            self._probes.send(key, seen.ready_workers, seen.gateways)

    def _forget(self, key: Key) -> None:
        self._probes.forget(key)
        self._canaries.forget(key)
        self._budgets.forget(key)
        self._qualities.forget(key)
        self._healings.forget(key)
        self._unfollow(key)
        self._uids.pop(key, None)
        self._memories.pop(key, None)
        self._refusals.forget(key)
        self._over_quota.discard(key)
        self._limits.pop(key, None)
        self._observer.forget(service_place(key.namespace, key.name))
        self._writer.forget(key.namespace or "", key.name)


def held_by(service: Object, reason: str) -> str | None:
    """What its rollout waits for by its own status, without a full stop; None where it is something else."""
    rollout = (service.get("status") or {}).get("rollout") or {}
    if rollout.get("reason") != reason:
        return None
    return str(rollout.get("message", "")).rpartition(" waits: ")[2].rstrip(".")
