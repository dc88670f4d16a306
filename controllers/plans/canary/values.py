"""What a decision about a rollout looks at, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from controllers.plans.canary.evidence import Evidence
from controllers.plans.canary.outputs import OutputFinding
from controllers.plans.canary.samples import Sample
from controllers.plans.rollout import Beside, RevisionState
from controllers.plans.transitions import Transition
from crds.rollout import Rollout, RolloutStatus
from crds.traffic import TrafficShare


@dataclass(frozen=True, slots=True)
class Pair:
    """Two revisions that are compared."""

    stable: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Compared:
    """What is known of a pair beyond what the API server says."""

    pair: Pair
    evidence: Evidence = field(default_factory=Evidence)
    recent: Sample = field(default_factory=Sample)
    """Of the candidate, over the last minute."""
    outputs: OutputFinding | None = None
    """Of the fixed prompts; None until they were asked."""
    asked_s: float = 0.0
    """How long they have been asked, without an answer so far or until there was one."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Something beside the rollout itself that it waits for; a sentence without a full stop."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CanaryInput:
    """One moment of one service."""

    spec: Rollout
    memory: RolloutStatus | None
    target: str
    """The revision of the spec."""
    states: Sequence[RevisionState]
    desired: int
    traffic: Sequence[TrafficShare] = ()
    """As it was last written."""
    compared: Compared | None = None
    crash: str | None = None
    """Why workers of the target cannot live, when that is certain."""
    hold: Hold | None = None
    """Why nothing may begin or go on now."""
    now_s: float = 0.0

    def state(self, revision: str) -> RevisionState:
        """What exists of it; nothing is a state, too."""
        return next((one for one in self.states if one.name == revision), RevisionState(revision, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """Who serves, who is tried beside it, who gets which share, and what is written down."""

    serving: str
    """The revision that workers move towards."""
    beside: Beside | None = None
    traffic: tuple[TrafficShare, ...] = ()
    """None of it: no split."""
    status: RolloutStatus | None = None
    pair: Pair | None = None
    """To be measured from now on."""
    refused: str | None = None
    """Why the revision of the spec does not serve, when it was rolled back."""
    notes: tuple[Transition, ...] = ()
    look_again_s: float | None = None
    max_surge: int | None = None
    """In place of the spec's, where the strategy needs room for twice the workers."""
