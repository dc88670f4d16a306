"""How many workers each revision should have next. One revision is one Deployment, whose template never changes.

Keeps no memory: every step follows from what exists now, so an edit, a revert, a dead worker or a restart of the
operator in the middle is no special case. Two promises, for N wanted workers:

- never fewer than N - maxUnavailable ready workers over all revisions together, if that many were ready before;
- never more than N + maxSurge workers are asked for, but a worker that serves is not taken away only to honour that.

A revision that is tried out stands `beside` the target with a number of its own; both promises count it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RevisionState:
    """What exists of one revision."""

    name: str
    replicas: int
    """Workers its Deployment asks for."""
    ready: int
    """Workers that are ready and stay."""
    pods: int
    """Workers that exist and stay, ready or not."""
    leaving: int = 0
    """Workers that drain."""
    broken: int = 0
    """Workers that waiting will not make ready: their image cannot be pulled, they crash, no node takes them."""
    created: str = ""
    """When its Deployment was made (RFC 3339, UTC)."""
    settled: bool = True
    """Kubernetes has seen the present number; while it has not, `ready` may count workers that are about to go."""


@dataclass(frozen=True, slots=True)
class RolloutLimits:
    """The wanted number of workers and how far a rollout may stray from it."""

    desired: int
    max_surge: int
    max_unavailable: int
    history_limit: int

    @property
    def minimum_ready(self) -> int:
        return max(0, self.desired - self.max_unavailable)

    @property
    def most(self) -> int:
        return self.desired + self.max_surge


@dataclass(frozen=True, slots=True)
class Move:
    """One revision's number changes."""

    revision: str
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.revision} {self.before}→{self.after}"


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The next step. `replicas` names every revision; `remove` are Deployments beyond the history limit."""

    replicas: Mapping[str, int]
    moves: tuple[Move, ...]
    remove: tuple[str, ...]
    reason: str
    message: str

    @property
    def is_empty(self) -> bool:
        return not self.moves and not self.remove


@dataclass(frozen=True, slots=True)
class Beside:
    """A revision that is tried out next to the target, and how many workers it should have."""

    name: str
    replicas: int


def plan_rollout(
    target: str,
    states: Sequence[RevisionState],
    limits: RolloutLimits,
    *,
    may_grow: bool = True,
    beside: Beside | None = None,
) -> RolloutPlan:
    """The next step towards all workers being of revision `target`, which need not exist yet, but for those `beside`.

    `may_grow=False` when no new worker may start: then numbers only fall.
    """
    new = _named(target, states)
    tried = _named(beside.name, states) if beside else None
    olds = _least_worth_first(state for state in states if state not in (new, tried))
    everyone = (new, *olds, *([tried] if tried else []))
    step = _Step(new, tuple(olds), limits, {state.name: state.replicas for state in everyone}, tried, beside)
    # Workers that help nobody go first: they make room without costing a ready one.
    step.drop_broken()
    if all(state.settled for state in states):
        # Taking workers away needs a true count of those that are ready; growing does not.
        step.lower_target()
        step.drop_unready()
        step.retire_ready()
        # What is tried beyond the surge takes the place of workers of the target, once it can.
        step.lower_tried()
        step.make_place()
    if may_grow:
        step.grow_target()
        step.restore_serving()
        step.grow_tried()
    return step.plan(remove=may_grow)


def _named(name: str, states: Sequence[RevisionState]) -> RevisionState:
    return next((state for state in states if state.name == name), RevisionState(name, 0, 0, 0))


def _least_worth_first(states: Iterable[RevisionState]) -> list[RevisionState]:
    """Revisions in between, which never served, go before the one that carries the traffic; among equals the newest."""
    newest_first = sorted(states, key=lambda state: (state.created, state.name), reverse=True)
    return sorted(newest_first, key=lambda state: state.ready)


class _Step:
    """One step while it is worked out; `wanted` is what changes."""

    def __init__(
        self,
        new: RevisionState,
        olds: tuple[RevisionState, ...],
        limits: RolloutLimits,
        wanted: dict[str, int],
        tried: RevisionState | None = None,
        beside: Beside | None = None,
    ) -> None:
        self.new, self.olds, self.limits, self.wanted = new, olds, limits, wanted
        self.tried, self.beside = tried, beside
        self.everyone = (new, *olds, *([tried] if tried else []))
        share = beside.replicas if beside else 0
        self.goal = min(limits.desired, max(0, limits.most - share))

    # --- counting ----------------------------------------------------------------------------------------------
    def ready(self, state: RevisionState) -> int:
        """Ready workers that remain: a ReplicaSet deletes those that are not ready first."""
        return min(state.ready, self.wanted[state.name])

    def unready(self, state: RevisionState) -> int:
        return self.wanted[state.name] - self.ready(state)

    def ready_total(self) -> int:
        return sum(self.ready(state) for state in self.everyone)

    def spare_ready(self) -> int:
        return max(0, self.ready_total() - self.limits.minimum_ready)

    def spare_total(self) -> int:
        """Workers of old revisions that the minimum does not need, should all of them be or become ready."""
        unready = self.unready(self.new) + (self.unready(self.tried) if self.tried else 0)
        return sum(self.wanted.values()) - unready - self.limits.minimum_ready

    def room(self) -> int:
        """Workers that may be added. What is about to go still counts: it occupies its node."""
        held = sum(max(state.pods, self.wanted[state.name]) for state in self.everyone)
        return max(0, self.limits.most - held)

    def room_for(self, state: RevisionState) -> int:
        """How many more it may be asked for: pods that were about to go and stay after all take no new place."""
        return max(0, state.pods - self.wanted[state.name]) + self.room()

    # --- the parts of a step, in order ---------------------------------------------------------------------------
    def drop_broken(self) -> None:
        for old in self.olds:
            going = old.pods - old.replicas  # Asked for before and not acted on yet.
            if old.settled and going >= 0:  # Else workers are being made, and a lower number would only spare those.
                self.wanted[old.name] -= min(max(0, old.broken - going), self.unready(old))

    def lower_target(self) -> None:
        """The wanted number fell: the target never needs more than all of it."""
        self.wanted[self.new.name] = min(self.wanted[self.new.name], self.limits.desired)

    def drop_unready(self) -> None:
        """Old workers that are not ready, as far as the minimum could be met without them.

        The limit guards workers that are not ready for a moment only, such as all at once in a network cut.
        """
        for old in self.olds:
            self.wanted[old.name] -= max(0, min(self.unready(old), self.spare_total()))

    def retire_ready(self) -> None:
        for old in self.olds:
            self.wanted[old.name] -= min(self.ready(old), self.spare_ready())

    def lower_tried(self) -> None:
        """The wanted number fell, and the share of what is tried with it."""
        if self.tried and self.beside:
            excess = max(0, self.wanted[self.tried.name] - self.beside.replicas)
            self.wanted[self.tried.name] -= min(excess, self.unready(self.tried) + self.spare_ready())

    def make_place(self) -> None:
        """Only workers that the minimum can spare, ready or not, and broken ones: those that blink will be needed."""
        excess = max(0, self.wanted[self.new.name] - self.goal)
        broken = min(self.new.broken, self.unready(self.new))
        self.wanted[self.new.name] -= min(excess, self.spare_ready() + broken)

    def grow_target(self) -> None:
        """While old workers serve, a revision that has not shown that it works gets no more than the allowance."""
        wanted = min(self.goal, self.wanted[self.new.name] + self.room_for(self.new))
        if any(self.ready(old) for old in self.olds):
            allowance = self.limits.max_surge + self.limits.max_unavailable
            wanted = min(wanted, self.ready(self.new) + allowance)
        self.wanted[self.new.name] = max(wanted, self.wanted[self.new.name])

    def restore_serving(self) -> None:
        """The wanted number rose, or new workers failed, in the middle: the revision that serves fills the gap.

        Never brings back a revision that has no workers: a finished rollout stays finished.
        """
        serving = [old for old in self.olds if self.wanted[old.name] and self.ready(old)]
        if not serving:
            return
        best = max(serving, key=lambda old: (old.ready, old.created))
        covered = self.ready(self.new) + sum(self.wanted[old.name] for old in self.olds)
        covered += self.ready(self.tried) if self.tried else 0
        self.wanted[best.name] += min(max(0, self.limits.minimum_ready - covered), self.room_for(best))

    def grow_tried(self) -> None:
        """Last of all: until it has shown that it works it gets no more than the allowance."""
        if self.tried and self.beside:
            allowance = self.limits.max_surge + self.limits.max_unavailable
            wanted = min(self.beside.replicas, self.wanted[self.tried.name] + self.room_for(self.tried))
            wanted = min(wanted, self.ready(self.tried) + allowance)
            self.wanted[self.tried.name] = max(wanted, self.wanted[self.tried.name])

    # --- the result ------------------------------------------------------------------------------------------------
    def plan(self, *, remove: bool) -> RolloutPlan:
        moves = tuple(
            Move(state.name, state.replicas, self.wanted[state.name])
            for state in (*self.everyone[1:], self.new)
            if state.replicas != self.wanted[state.name]
        )
        reason, message = self._why(moves)
        removed = _beyond_history(self.olds, self.wanted, self.limits.history_limit) if remove else ()
        return RolloutPlan(dict(self.wanted), moves, removed, reason, message)

    def _why(self, moves: tuple[Move, ...]) -> tuple[str, str]:
        ready, minimum = self.ready_total(), self.limits.minimum_ready
        arithmetic = f"{ready} ready {'≥' if ready >= minimum else '<'} {minimum} minimum"
        if moves:
            total = sum(self.wanted.values())
            return "Moving", f"{', '.join(map(str, moves))}: {arithmetic}, {total} of at most {self.limits.most}"
        old = sum(self.wanted[state.name] for state in self.olds)
        if old:
            waiting = self.unready(self.new)
            return "Waiting", f"{old} old stay until {waiting} new are ready: {arithmetic}"
        if self.tried and self.beside:
            tried = f"{self.ready(self.tried)} of {self.beside.replicas} of {self.tried.name}"
            return (
                "Settled",
                f"{self.ready(self.new)} of {self.goal} of {self.new.name} and {tried} ready: {arithmetic}",
            )
        return "Settled", f"{self.ready(self.new)} of {self.limits.desired} ready"


def _beyond_history(olds: Iterable[RevisionState], wanted: Mapping[str, int], limit: int) -> tuple[str, ...]:
    idle = [old for old in olds if not (old.replicas or wanted[old.name] or old.pods or old.leaving)]
    newest_first = sorted(idle, key=lambda old: (old.created, old.name), reverse=True)
    return tuple(old.name for old in newest_first[limit:])
