"""What is done about a diagnosis: the mildest remedy that others do not apply, within a budget, with patience. Pure.

Decides nothing that it does not also record: `memory` is written into the status before anything is done, so that a
restart in between does it again and never twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controllers.plans.healing.checks import checked, ended
from controllers.plans.healing.diagnose import diagnose
from controllers.plans.healing.symptoms import shows_later_s
from controllers.plans.healing.values import Counted, Diagnosis, HealPlan, Restart, Rollback, Symptom
from controllers.plans.healing.words import finding, findings, said_of, with_action
from controllers.plans.snapshot import Snapshot
from controllers.plans.times import rfc3339, unix_s
from controllers.plans.transitions import Transition
from crds.healing import (
    ACTIONS_MOST,
    ErrorClass,
    Healing,
    HealingMode,
    HealthAction,
    HealthFinding,
    HealthStatus,
    Outcome,
    Remedy,
)
from crds.rollout import Strategy

STANDS_S: Final = 60.0
"""A revision of which all workers were ready for so long is one to go back to."""
PATIENCE_S: Final = 30.0
PATIENCE_MOST_S: Final = 1800.0
REMEMBER_S: Final = 3600.0
"""Attempts before that do not count any more."""
ROLLBACKS_MOST: Final = 2
"""Of one revision, in that time."""
LOOK_S: Final = 2.0
AT_WORK_MOST: Final = ACTIONS_MOST // 2
"""All that is at work fits into what is remembered."""
AGAIN_S: Final = 5.0
GRACE_S: Final = 5
"""A worker that does nothing has nothing to drain."""
_DELETES: Final = (Remedy.RESTART_WORKER, Remedy.MOVE_WORKER)


def plan_healing(snapshot: Snapshot, wanted: str | None, desired: int, now_s: float) -> HealPlan | None:
    """`wanted`: the revision that the spec asks for, where that can be known. None where a person wants no healing."""
    allowed = snapshot.spec.healing or Healing()
    if allowed.mode is HealingMode.OFF:
        return None
    healer = _Healer(snapshot, allowed, wanted, desired, now_s)
    healer.learn_what_stands()
    healer.check_what_was_done()
    healer.end_rollback()
    for one in healer.found:
        healer.treat(one)
    return healer.plan()


@dataclass(slots=True)
class _Doing:
    """One diagnosis, and the sentence about what comes next."""

    diagnosis: Diagnosis
    next: str


class _Healer:
    def __init__(self, snapshot: Snapshot, allowed: Healing, wanted: str | None, desired: int, now_s: float) -> None:
        self.seen, self.allowed, self.wanted, self.desired, self.now_s = snapshot, allowed, wanted, desired, now_s
        memory = snapshot.health or HealthStatus()
        self.before = memory.findings or []
        self.last_good, self.rollback = memory.last_good, Rollback.of(memory)
        self.actions: list[HealthAction] = list(memory.actions or [])
        self.found = diagnose(snapshot, now_s)
        self.doing: list[_Doing] = []
        self.restarts: list[Restart] = []
        self.told: list[Transition] = []
        self.acted: list[Transition] = []
        """Told after what they are for."""
        self.counted: list[Counted] = []
        self.waits_s: list[float] = []

    # --- memory --------------------------------------------------------------------------------------------------
    def learn_what_stands(self) -> None:
        """The wanted revision, once all of its workers have been ready for a minute; the first one at once, since there
        is none that is better."""
        if self.wanted is None or self.wanted == self.last_good or self.rollback or not self.desired:
            return
        mine = [one for one in self.seen.workers if one.revision == self.wanted and not one.leaving]
        since = [unix_s(one.ready_since) for one in mine if one.ready and one.ready_since]
        if len(mine) < self.desired or len(since) < len(mine):
            return
        left_s = max(since) + STANDS_S - self.now_s
        if left_s <= 0 or self.last_good is None:
            self.last_good = self.wanted
        else:
            self.waits_s.append(left_s)

    def check_what_was_done(self) -> None:
        after = checked(self.seen, self.actions, self.found, self.desired, self.now_s)
        for old, new in zip(self.actions, after, strict=True):
            if new.outcome is not old.outcome:
                self._ended(new)
            elif new.outcome is Outcome.PENDING:
                self.waits_s.append(LOOK_S)
                self._again(new)
        self.actions = after

    def _again(self, action: HealthAction) -> None:
        """Recorded, and perhaps not done: the operator may have ended in between. Not before the pod would be seen to
        leave, since a second delete may cut the first one's drain short."""
        worker = next((one for one in self.seen.workers if one.name == action.worker and not one.leaving), None)
        if worker is None or action.remedy not in _DELETES or self.now_s - unix_s(action.time) < AGAIN_S:
            return
        shown = [each for one in self.found for each in one.symptoms if each.worker == worker.name]
        is_dead = bool(shown) and not any(each.serving for each in shown)
        self.restarts.append(Restart(worker.name, worker.uid, GRACE_S if is_dead else None))

    def _ended(self, action: HealthAction) -> None:
        self.counted.append(Counted(action.cause, action.remedy, action.outcome.value))
        words = {Outcome.HELPED: "It helped", Outcome.NOT_HELPED: "It did not help", Outcome.UNDONE: "It was undone"}
        message = f"{words[action.outcome]}: {said_of(action)} for {action.cause}."
        self.told.append(
            Transition(f"Remedy{action.outcome.value}", message, warning=action.outcome is not Outcome.HELPED)
        )

    def end_rollback(self) -> None:
        """An edit ends it, and so does a revision that does not come up either: all is as the spec says again."""
        if self.rollback is None or self.wanted is None:
            return
        back = self.rollback
        mine = next((one for one in self.actions if _is_of(one, back)), None)
        gone = all(one.name != back.serves or one.leaving for one in self.seen.revisions)
        if self.wanted == back.refused and not gone and (mine is None or mine.outcome is not Outcome.NOT_HELPED):
            return
        self.rollback = None
        if mine is not None and mine.outcome in (Outcome.PENDING, Outcome.NOT_HELPED):
            undone = ended(mine, Outcome.UNDONE, self.now_s)
            self.actions = [undone if one is mine else one for one in self.actions]
            self._ended(undone)

    # --- one diagnosis -------------------------------------------------------------------------------------------
    def treat(self, one: Diagnosis) -> None:
        self.doing.append(_Doing(one, self._next(one)))

    def _next(self, one: Diagnosis) -> str:
        """What happens now, or why nothing does; the first answer counts."""
        ours = next((remedy for remedy in one.remedies if remedy in (*_DELETES, Remedy.ROLL_BACK)), None)
        if one.hold:
            return f"Held: {one.hold}."
        if ours is None:
            return f"Left to others: {one.healer}."
        if self.allowed.mode is HealingMode.ADVISE:
            return f"Advised only (spec.healing.mode is advise): {ours.value}."
        if ours is Remedy.ROLL_BACK:
            return self._roll_back(one)
        return self._delete(one, ours)

    def _delete(self, one: Diagnosis, remedy: Remedy) -> str:
        if one.for_s < one.patience_s:
            self.waits_s.append(min(LOOK_S, one.patience_s - one.for_s))
            return f"First {one.healer}; after {one.patience_s:g} s the operator: {remedy.value}."
        chosen, wait_s = self._chosen(one)
        if chosen is None:
            self.waits_s.append(wait_s or LOOK_S)
            return "It was tried lately; each further attempt waits longer." if wait_s else "A remedy is being checked."
        budget = self._budget()
        if self._at_work() >= budget:
            self.waits_s.append(LOOK_S)
            return f"Waits: remedies may take {budget} of {self.desired} workers at a time."
        if chosen.serving and not self._all_stand():
            self.waits_s.append(LOOK_S)
            return "Waits: it still serves, and not all other workers are ready."
        self._act(one, remedy, chosen)
        return f"{remedy.value} for {chosen.worker}, checked before anything else is done to it."

    def _chosen(self, one: Diagnosis) -> tuple[Symptom | None, float]:
        """The worker to begin with, not one that something was done to already; else how long until there is one."""
        treated = {action.worker for action in self.actions if action.outcome is Outcome.PENDING}
        waits: list[float] = []
        for symptom in sorted(one.symptoms, key=lambda each: each.worker):
            if symptom.worker in treated:
                continue
            wait_s = self._patience(one, symptom)
            if wait_s <= 0:
                return symptom, 0.0
            waits.append(wait_s)
        return None, min(waits, default=0.0)

    def _act(self, one: Diagnosis, remedy: Remedy, symptom: Symptom) -> None:
        worker = next(each for each in self.seen.workers if each.name == symptom.worker)
        # One that answers drains first.
        self.restarts.append(Restart(worker.name, worker.uid, None if symptom.serving else GRACE_S))
        self._record(one, remedy, symptom.worker, symptom.node, symptom.revision)

    def _record(self, one: Diagnosis, remedy: Remedy, worker: str | None, node: str | None, revision: str) -> None:
        action = HealthAction(
            time=rfc3339(self.now_s),
            cause=one.cause,
            remedy=remedy,
            worker=worker,
            node=node,
            revision=revision,
            reason=one.evidence[:1024],
            outcome=Outcome.PENDING,
        )
        self.actions = with_action(action, self.actions)
        self.counted.append(Counted(one.cause, remedy, "Applied"))
        self.acted.append(Transition(remedy.value, f"{one.cause}: {said_of(action)}. {one.evidence}", warning=True))
        self.waits_s.append(LOOK_S)

    # --- rollback ------------------------------------------------------------------------------------------------
    def _roll_back(self, one: Diagnosis) -> str:
        rollout = self.seen.spec.rollout
        bad = one.symptoms[0].revision
        if self.rollback and self.rollback.refused == bad:
            return f"Revision {self.rollback.serves} serves instead of {bad}."
        if rollout.strategy is not Strategy.ROLLING:
            return f"Left to others: the rollout with strategy {rollout.strategy.value} judges it."
        if rollout.rollback_to is not None or bad != self.wanted:
            return "Left to others: the rollout replaces it."
        good = next((each for each in self.seen.revisions if each.name == self.last_good and not each.leaving), None)
        if good is None:
            return f"No earlier revision is kept ({self.last_good} stood last); a person has to correct the spec."
        before = [one for one in self.actions if one.remedy is Remedy.ROLL_BACK and one.revision == bad]
        if sum(self._lately(each) for each in before) >= ROLLBACKS_MOST:
            return f"It was rolled back {ROLLBACKS_MOST} times within the last hour; a person has to correct the spec."
        message = f"{one.evidence} Revision {good.name} serves instead. Any edit of the spec is tried again."
        self.rollback = Rollback(refused=bad, serves=good.name, message=message[:1024])
        self._record(one, Remedy.ROLL_BACK, None, None, bad)
        return f"Rolled back to {good.name}, the last revision that stood."

    # --- limits --------------------------------------------------------------------------------------------------
    def _budget(self) -> int:
        share = float(self.allowed.max_unavailable.rstrip("%")) / 100
        return min(AT_WORK_MOST, max(1, math.ceil(share * self.desired - 1e-9)))

    def _at_work(self) -> int:
        return sum(one.outcome is Outcome.PENDING and one.remedy in _DELETES for one in self.actions)

    def _all_stand(self) -> bool:
        ready = sum(one.ready and not one.leaving for one in self.seen.workers)
        return ready >= self.desired

    def _lately(self, one: HealthAction) -> bool:
        return self.now_s - unix_s(one.time) < REMEMBER_S

    def _tried(self, one: Diagnosis, symptom: Symptom) -> list[HealthAction]:
        """At this cause on this node. A node that is gone is left once by each worker, so there only failures count."""
        mine = [
            each
            for each in self.actions
            if each.cause == one.cause and each.node == symptom.node and each.remedy in _DELETES and self._lately(each)
        ]
        of_node = one.cause.startswith("Node")
        return [each for each in mine if not of_node or each.outcome is Outcome.NOT_HELPED]

    def _patience(self, one: Diagnosis, symptom: Symptom) -> float:
        """Seconds to wait still: 30 s after the first attempt, twice as long after each further one."""
        tried = self._tried(one, symptom)
        if not tried:
            return 0.0
        wait_s = min(PATIENCE_S * 2.0 ** (len(tried) - 1), PATIENCE_MOST_S)
        return max(unix_s(each.time) for each in tried) + wait_s - self.now_s

    # --- the result ----------------------------------------------------------------------------------------------
    def plan(self) -> HealPlan:
        made = [finding(one.diagnosis, one.next, self.before, self.now_s) for one in self.doing]
        if self.rollback and not any(one.cause == "BadRevision" for one in made):
            made.insert(0, self._refusal(self.rollback))
        self._tell_news(made)
        self.waits_s += shows_later_s(self.seen, self.now_s)
        back = self.rollback
        memory = HealthStatus(
            last_good=self.last_good,
            refused=back.refused if back else None,
            serves=back.serves if back else None,
            why=back.message if back else None,
            findings=findings(made),
            actions=self.actions or None,
        )
        return HealPlan(
            memory,
            tuple(self.restarts),
            serve=self.rollback.serves if self.rollback else None,
            refused=self.rollback.message if self.rollback else None,
            worst=made[0] if made else None,
            told=(*self.told, *self.acted),
            counted=tuple(self.counted),
            look_again_s=min(self.waits_s, default=None),
        )

    def _refusal(self, back: Rollback) -> HealthFinding:
        known = next((one for one in self.before if one.cause == "BadRevision"), None)
        return HealthFinding(
            cause="BadRevision",
            error_class=ErrorClass.MODEL,
            since=known.since if known else rfc3339(self.now_s),
            evidence=known.evidence if known else back.message,
            next=f"Revision {back.serves} serves instead of {back.refused}.",
            advice="Correct the spec; any edit is tried again.",
            effect="The corrected revision is rolled out.",
        )

    def _tell_news(self, made: Sequence[HealthFinding]) -> None:
        old = {one.cause for one in self.before}
        for one in made:
            if one.cause not in old:
                self.told.append(Transition(f"Found{one.cause}", f"{one.evidence} {one.next}"[:1024], warning=True))


def _is_of(action: HealthAction, back: Rollback) -> bool:
    return action.remedy is Remedy.ROLL_BACK and action.revision == back.refused
