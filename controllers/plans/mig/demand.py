"""What services ask of a pool, and what its GPUs are now: the values that the partition planner takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from controllers.plans.mig.layouts import Layout, slices_of

CLASSES: Final = 4
"""Priority classes of an SLA: 0 is P0."""
CLASS_FACTOR: Final = 8
"""One compute slice of a class outweighs a whole GPU (7 slices) of the next: its worth is this often the next one's."""


def worth(priority: int) -> int:
    """Of one served compute slice: 512, 64, 8 and 1 for P0 to P3."""
    return int(CLASS_FACTOR ** (CLASSES - 1 - priority))


@dataclass(frozen=True, slots=True)
class Want:
    """One service: `replicas` workers, each on one slice of `profile` (or a whole GPU)."""

    service: str
    """`namespace/name`."""
    profile: str
    replicas: int
    priority: int = 3
    """0 for P0 to 3 for P3 and for services without an SLA."""
    gpus: int = 1
    """Of the profile for one worker; more than one only of whole GPUs."""
    turn: float = 0.0
    """Of its Tenant (`fair_share.turn_of`): within a class the lowest is served first."""


@dataclass(frozen=True, slots=True)
class Unit:
    """GPUs that can only be cut anew together: all of a node under the MIG manager, a single one elsewhere."""

    name: str
    families: Mapping[str, int]
    """GPUs by family."""
    stays: tuple[Layout, ...]
    """What it can give without a single worker having to move; what it gives now is the first."""
    used_slices: int = 0
    """Compute slices that are in use and would be out of service while it is cut anew."""
    used_worth: float = 0.0
    """The same, each slice with the worth of its worker's class (`worth`)."""
    worker_count: int = 0
    """Workers that would have to move."""
    frozen: bool = False
    """Must not be cut anew now: outside its windows, in quarantine, or on its way already."""


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What the planner weighs."""

    allowed: frozenset[str] | None = None
    """Profiles that may be cut; None for all but `+me`."""
    whole_gpus: bool = True
    """A GPU may be left whole."""
    repartition_s: float = 300.0
    """How long the slices in use of a unit that is cut anew are out of service."""
    horizon_s: float = 3600.0
    """How long the new layout is expected to be right."""
    relative_gap: float = 1e-7
    time_limit_s: float = 6.0
    """Of the solver; the bound that it has proven by then is part of the result."""

    @property
    def drain_price(self) -> float:
        """Part of its worth that one drained slice costs: repartition_s ÷ horizon_s."""
        return self.repartition_s / self.horizon_s


@dataclass(frozen=True, slots=True)
class Served:
    """Of one service."""

    want: Want
    replicas: int

    @property
    def missing(self) -> int:
        return self.want.replicas - self.replicas

    @property
    def slices(self) -> int:
        """Compute slices of the workers that are served; a whole GPU of 7."""
        return self.replicas * self.want.gpus * slices_of(self.want.profile)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which units are cut anew and into what, whom that serves, and how good it provably is."""

    recut: tuple[str, ...]
    """Names of units, sorted."""
    stays: Mapping[str, Layout]
    """What each other unit gives; differs from what it gives now only where free slices are cut without a drain."""
    pool: Mapping[str, tuple[tuple[Layout, int], ...]]
    """By family: layouts and how many of the GPUs of the recut units get each."""
    served: tuple[Served, ...]
    value: float
    """Served compute slices, those of a class worth eight times those of the next, less the price of drains."""
    bound: float
    """No plan is worth more than this: proven, whatever it may look like."""
    drained_slices: int = 0
    drained_workers: int = 0
    fragmentation: float = 0.0
    """Of the spare slices: 0 when they are as large as can be, towards 1 when they are crumbs."""
    notes: tuple[str, ...] = field(default=())

    @property
    def gap(self) -> float:
        """Share by which a better plan could be better at most."""
        return max(0.0, (self.bound - self.value) / self.bound) if self.bound > 0 else 0.0
