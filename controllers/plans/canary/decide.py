"""The next step of a rollout, from what was decided before (the status), what exists, and what was measured.

Reading order: `plan_canary`, then a function for each phase. Nothing is done twice by being decided twice: a crash
between two writes, a stale cache and a look at any moment give the same plan or an earlier one.
"""

from __future__ import annotations

import math

from controllers.plans.canary.checks import Stop, find_stop
from controllers.plans.canary.evidence import remembered
from controllers.plans.canary.traffic import lowered, raised, split, weight_of
from controllers.plans.canary.values import CanaryInput, CanaryPlan, Pair
from controllers.plans.canary.verdicts import Judgement, judge
from controllers.plans.canary.words import record
from controllers.plans.rollout import Beside
from controllers.plans.times import rfc3339, seconds_since
from controllers.plans.transitions import Transition
from crds.fields import seconds
from crds.rollout import RolloutOutcome, RolloutPhase, RolloutStatus, RolloutStep, Strategy
from crds.traffic import TrafficShare

_TRYING = (RolloutPhase.PREPARING, RolloutPhase.ANALYSING, RolloutPhase.PROMOTING)


def plan_canary(seen: CanaryInput) -> CanaryPlan:
    """Who serves and who is tried. Asks in this order, and the first answer counts."""
    stable = stable_revision(seen)
    # 1. Nobody else serves, or nothing is to be compared: the revision of the spec, worker by worker.
    if stable is None or stable == seen.target or seen.spec.strategy is Strategy.ROLLING:
        return _settle(seen)
    if not seen.desired and seen.memory:
        return _sleep(stable, seen.memory)
    trial = _Trial(seen, stable)
    # 2. It was refused before, and nobody has said otherwise.
    if trial.is_refused:
        return trial.stay_refused()
    # 3. A person's word.
    if seen.spec.promote == seen.target:
        return trial.promote("PromotedByPerson", f"spec.rollout.promote names {seen.target}")
    if seen.spec.abort == seen.target:
        return trial.refuse(Stop("AbortedByPerson", f"spec.rollout.abort names {seen.target}"))
    # 4. What must not go on.
    stop = find_stop(seen, trial.phase, trial.judgement)
    if stop:
        return trial.refuse(stop)
    # 5. The next step, if it is time.
    match trial.phase:
        case RolloutPhase.PREPARING:
            return trial.prepare()
        case RolloutPhase.ANALYSING:
            return trial.analyse()
        case _:
            return trial.promote()


def stable_revision(seen: CanaryInput) -> str | None:
    """The one remembered, as long as its Deployment exists; else the one that serves most, if it is another's."""
    names = {state.name for state in seen.states}
    if seen.memory and seen.memory.stable in names:
        return seen.memory.stable
    others = [state for state in seen.states if state.name != seen.target and state.ready]
    return max(others, key=lambda state: (state.ready, state.created)).name if others else None


def _settle(seen: CanaryInput) -> CanaryPlan:
    """All workers become the spec's. A candidate that was tried meanwhile loses its sessions first."""
    memory, target = seen.memory, seen.target
    if memory is None and seen.spec.strategy is Strategy.ROLLING:
        return CanaryPlan(target)
    history = memory.history if memory else None
    traffic: tuple[TrafficShare, ...] = ()
    notes: tuple[Transition, ...] = ()
    left = memory.candidate if memory and memory.candidate != target else None
    if memory and left and memory.phase in _TRYING:
        message = f"{left} was given up for {target}."
        history = record(memory, RolloutOutcome.SUPERSEDED, "Superseded", message, seen.now_s)
        notes = (Transition("RolloutSuperseded", message, warning=False),)
    if left and memory and memory.stable == target and (seen.state(left).pods or seen.state(left).replicas):
        before = weight_of(seen.traffic, left)
        traffic = split(target, left, lowered(before, seen.state(target), seen.state(left), seen.desired))
    # Who never had a worker ready must not become what its mending edit is compared with.
    serves = bool(seen.state(target).ready) or (memory is not None and memory.stable == target)
    status = RolloutStatus(
        phase=RolloutPhase.STABLE,
        summary=f"{target} {'serves' if serves or not seen.desired else 'starts'}",
        stable=target if serves else memory.stable if memory else None,
        candidate=left if traffic else None,
        history=history,
    )
    return CanaryPlan(target, traffic=traffic, status=status, notes=notes)


def _sleep(stable: str, memory: RolloutStatus) -> CanaryPlan:
    """No worker is wanted: what was begun goes on, from the start of its step, when there are some again."""
    return CanaryPlan(stable, status=memory.model_copy(update={"since": None}))


class _Trial:
    """The candidate `target` beside `stable`, with what is remembered of it."""

    def __init__(self, seen: CanaryInput, stable: str) -> None:
        self.seen, self.stable, self.target = seen, stable, seen.target
        self.memory = seen.memory or RolloutStatus(phase=RolloutPhase.STABLE, summary="")
        self.is_known = self.memory.candidate == self.target and self.memory.phase is not RolloutPhase.STABLE
        self.phase = self.memory.phase if self.is_known else RolloutPhase.PREPARING
        self.steps = seen.spec.stages
        self.at = min(self.memory.step or 0, len(self.steps) - 1) if self.is_known else 0
        self.since = self.memory.since if self.is_known else None
        self.before = weight_of(seen.traffic, self.target)
        known = remembered(self.memory.verdicts if self.is_known else None)
        self.evidence = seen.compared.evidence if seen.compared else known
        self.judgement: Judgement = judge(self.evidence, seen.spec.comparison)

    @property
    def is_refused(self) -> bool:
        refused = self.is_known and self.memory.phase is RolloutPhase.ROLLED_BACK
        return refused and self.seen.spec.promote != self.target

    # --- phases --------------------------------------------------------------------------------------------------
    def prepare(self) -> CanaryPlan:
        """Its first workers start, warm up and answer the fixed prompts; nobody else asks them anything."""
        seen, ready = self.seen, self.seen.state(self.target).ready
        needed = self.workers(self.steps[0])
        if seen.hold and not seen.state(self.target).replicas:
            message = f"{self.target} waits: {seen.hold.message}."
            return self._plan(RolloutPhase.PREPARING, seen.hold.reason, message, beside=0)
        if ready < needed:
            message = f"{self.target} starts: {ready} of {needed} workers are ready."
            return self._plan(RolloutPhase.PREPARING, "Starting", message, beside=needed)
        if seen.compared is None or seen.compared.outputs is None:
            message = f"{self.target} is ready and warms up."
            return self._plan(RolloutPhase.PREPARING, "WarmingUp", message, beside=needed)
        if seen.spec.paused:
            return self._plan(RolloutPhase.PREPARING, "Paused", f"{self.target} is ready; paused.", beside=needed)
        return self._enter(0)

    def analyse(self) -> CanaryPlan:
        """The present step, until its time is over and what was measured allows the next."""
        if self.since is None:
            return self._enter(self.at)
        why = self._held()
        if why:
            return self._step(*why)
        if self.at + 1 < len(self.steps):
            return self._enter(self.at + 1)
        return self.promote("StepsDone", self._shown())

    def promote(self, reason: str | None = None, message: str | None = None) -> CanaryPlan:
        """It takes over worker by worker, and sessions follow the workers."""
        seen, old, new = self.seen, self.seen.state(self.stable), self.seen.state(self.target)
        begins = self.phase is not RolloutPhase.PROMOTING
        reason = reason if begins and reason else self.memory.reason or "StepsDone"
        message = message if begins and message else self.memory.message or ""
        if not begins and not (old.replicas or old.pods) and new.ready:
            return self._promoted(reason, message)
        if not begins and seen.spec.paused and seen.spec.promote != self.target:
            paused = f"spec.rollout.paused is true at {new.replicas} workers of {self.target}."
            return self._plan(RolloutPhase.PROMOTING, "Paused", paused, beside=new.replicas, weight=self.before)
        weight = raised(self.before, old, new)
        text = f"{self.target} takes over, {weight}% of sessions"
        status = self._status(
            RolloutPhase.PROMOTING, text, reason, message, rfc3339(seen.now_s) if begins else self.since
        )
        note = Transition("RolloutPromoting", f"{self.target} replaces {self.stable}: {message}", warning=False)
        return CanaryPlan(
            self.target,
            traffic=split(self.stable, self.target, weight),
            status=status,
            pair=self.pair,
            notes=(note,) if begins else (),
            max_surge=self.surge,
        )

    def refuse(self, stop: Stop) -> CanaryPlan:
        """The way back, from whatever phase."""
        message = f"{self.target} was rolled back to {self.stable}: {stop.message}."
        history = record(self._named(), RolloutOutcome.ROLLED_BACK, stop.reason, message, self.seen.now_s)
        since = rfc3339(self.seen.now_s)
        status = self._status(RolloutPhase.ROLLED_BACK, f"{self.target} refused", stop.reason, message, since)
        status = status.model_copy(update={"history": history, "step": None})
        return self._back(status, (Transition("RolledBack", message, warning=True),))

    def stay_refused(self) -> CanaryPlan:
        return self._back(self.memory, ())

    def _back(self, status: RolloutStatus, notes: tuple[Transition, ...]) -> CanaryPlan:
        new = self.seen.state(self.target)
        traffic: tuple[TrafficShare, ...] = ()
        if new.replicas or new.pods:
            weight = lowered(self.before, self.seen.state(self.stable), new, self.seen.desired)
            traffic = split(self.stable, self.target, weight)
        refused = f"{status.message} To try again, edit the spec, or name the revision in spec.rollout.promote."
        return CanaryPlan(
            self.stable, traffic=traffic, status=status, refused=refused, notes=notes, max_surge=self.surge
        )

    def _promoted(self, reason: str, message: str) -> CanaryPlan:
        text = f"{self.target} replaced {self.stable}: {message}"
        history = record(self.memory, RolloutOutcome.PROMOTED, reason, text, self.seen.now_s)
        status = RolloutStatus(
            phase=RolloutPhase.STABLE, summary=f"{self.target} serves", stable=self.target, history=history
        )
        return CanaryPlan(self.target, status=status, notes=(Transition("Promoted", text, warning=False),))

    # --- steps ---------------------------------------------------------------------------------------------------
    def _enter(self, at: int) -> CanaryPlan:
        """Step `at`, which begins when as many workers are ready as its share takes."""
        step, ready = self.steps[at], self.seen.state(self.target).ready
        needed = self.workers(step)
        notes: tuple[Transition, ...] = ()
        if at != self.at or self.phase is RolloutPhase.PREPARING:
            reason = "CanaryStarted" if self.phase is RolloutPhase.PREPARING else "CanaryAdvanced"
            told = f"{self.target}, step {at + 1} of {len(self.steps)}: {_traffic_text(step)}"
            notes = (
                Transition(reason, told if reason == "CanaryStarted" else f"{told}; {self._shown()}", warning=False),
            )
        self.at = at
        if ready < needed:
            self.since = None
            message = f"{ready} of {needed} workers for {_traffic_text(step)} are ready."
            return self._step("Growing", message, notes=notes, weight=self.before)
        self.since = rfc3339(self.seen.now_s)
        return self._step("Measuring", f"{_traffic_text(step)} for {step.duration} at least.", notes=notes)

    def _step(
        self, reason: str, message: str, *, notes: tuple[Transition, ...] = (), weight: int | None = None
    ) -> CanaryPlan:
        step = self.steps[self.at]
        share = max(self.before, step.weight if weight is None else weight)
        return self._plan(
            RolloutPhase.ANALYSING,
            reason,
            message,
            beside=self.workers(step),
            weight=share,
            mirror=step.mirror,
            notes=notes,
        )

    def _held(self) -> tuple[str, str] | None:
        """What the present step waits for, as reason and message."""
        seen, step, judgement = self.seen, self.steps[self.at], self.judgement
        if seen.spec.paused:
            return "Paused", f"spec.rollout.paused is true at {_traffic_text(step)}."
        if seconds_since(self.since, seen.now_s) < seconds(step.duration):
            return "Measuring", f"{_traffic_text(step)} for {step.duration} at least."
        if seen.hold:
            return seen.hold.reason, f"{seen.hold.message}."
        if not self._compares(self.at):
            return None
        if self.evidence.requests < seen.spec.comparison.min_requests:
            return "TooLittleData", f"Fewer than {seen.spec.comparison.min_requests:,} requests ended.{self._silence()}"
        if self._is_last_comparison() and (judgement.open or not judgement.verdicts):
            named = ", ".join(one.metric.value for one in judgement.open) or "anything"
            return "Undecided", f"Not yet shown to be no worse: {named}."
        return None

    def _silence(self) -> str:
        """What a person can do where nothing will ever be compared."""
        if self.seen.state(self.stable).ready:
            return ""
        way_out = f"to replace it without a comparison, name {self.target} in spec.rollout.promote"
        return f" {self.stable} has no ready worker: {way_out}."

    def _compares(self, at: int) -> bool:
        step = self.steps[at]
        return 0 < step.weight < 100 or step.mirror is not None

    def _is_last_comparison(self) -> bool:
        return not any(self._compares(at) for at in range(self.at + 1, len(self.steps)))

    def _shown(self) -> str:
        said = "; ".join(one.message for one in self.judgement.verdicts)
        return said or "nothing was compared"

    # --- what is written -----------------------------------------------------------------------------------------
    @property
    def pair(self) -> Pair:
        return Pair(self.stable, self.target)

    @property
    def surge(self) -> int | None:
        return self.seen.desired if self.seen.spec.strategy is Strategy.BLUE_GREEN else None

    def workers(self, step: RolloutStep) -> int:
        """So many that each carries as much as one of the old revision."""
        if self.seen.spec.strategy is Strategy.BLUE_GREEN:
            return self.seen.desired
        return max(1, math.ceil(self.seen.desired * step.weight / 100))

    def _named(self) -> RolloutStatus:
        return self.memory.model_copy(update={"stable": self.stable, "candidate": self.target})

    def _plan(
        self,
        phase: RolloutPhase,
        reason: str,
        message: str,
        *,
        beside: int,
        weight: int | None = None,
        mirror: int | None = None,
        notes: tuple[Transition, ...] = (),
    ) -> CanaryPlan:
        new, share = self.seen.state(self.target), self.before if weight is None else weight
        since = self._began() if phase is RolloutPhase.PREPARING else self.since
        step = f", step {self.at + 1} of {len(self.steps)}" if phase is RolloutPhase.ANALYSING else ""
        text = f"{self.target} at {share}%{step}" if step else f"{self.target} prepares"
        status = self._status(phase, text, reason, message, since)
        if not self.is_known and self.memory.candidate and self.memory.phase in _TRYING:
            gone = f"{self.memory.candidate} was given up for {self.target}."
            history = record(self.memory, RolloutOutcome.SUPERSEDED, "Superseded", gone, self.seen.now_s)
            status = status.model_copy(update={"history": history})
        if self.seen.hold and reason == self.seen.hold.reason != self.memory.reason:
            notes = (*notes, Transition("RolloutHeld", message, warning=True))
        traffic: tuple[TrafficShare, ...] = split(self.stable, self.target, share, mirror)
        return CanaryPlan(
            self.stable,
            beside=Beside(self.target, beside if self._is_split() else min(beside, new.replicas)),
            traffic=traffic,
            status=status,
            pair=self.pair,
            notes=notes,
            look_again_s=self._due_s(phase),
            max_surge=self.surge,
        )

    def _is_split(self) -> bool:
        """Gateways know that it gets no more than its share. Before that no worker starts: it would be one like all."""
        return any(one.revision == self.target for one in self.seen.traffic)

    def _began(self) -> str | None:
        """When its first worker was asked for; nobody waits for one that is not."""
        return (self.since or rfc3339(self.seen.now_s)) if self.seen.state(self.target).replicas else None

    def _due_s(self, phase: RolloutPhase) -> float | None:
        """When time alone changes something; None when that time is over, and something else is waited for."""
        if phase is RolloutPhase.PREPARING:
            limit, since = seconds(self.seen.spec.limits.ready_timeout), self.since
        else:
            limit, since = seconds(self.steps[self.at].duration), self.since
        left_s = limit - seconds_since(since, self.seen.now_s)
        return max(1.0, left_s) if left_s > 0 else None

    def _status(self, phase: RolloutPhase, summary: str, reason: str, message: str, since: str | None) -> RolloutStatus:
        said = self.seen.compared.outputs if self.seen.compared else None
        outputs = said.message if said else self.memory.outputs if self.is_known else None
        return RolloutStatus(
            phase=phase,
            summary=summary,
            stable=self.stable,
            candidate=self.target,
            step=self.at if phase is RolloutPhase.ANALYSING else None,
            since=since,
            reason=reason,
            message=message[:1024],
            verdicts=list(self.judgement.verdicts) or None,
            outputs=outputs,
            history=self.memory.history,
        )


def _traffic_text(step: RolloutStep) -> str:
    copies = f" and copies of {step.mirror}%" if step.mirror else ""
    return f"{step.weight}% of sessions{copies}"
