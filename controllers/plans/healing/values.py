"""The words of self-healing: what is heard, what is seen, what it means. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from controllers.plans.transitions import Transition
from crds.healing import ErrorClass, HealthFinding, HealthStatus, Remedy


@dataclass(frozen=True, slots=True)
class Objection:
    """What one gateway holds against one worker. `times`: ejections in a row."""

    state: str
    """`lost`, `ejected` or, after an ejection, `returning`."""
    reason: str
    """Evidence of a loss (`hung`, `silent`, `refused`), or reason of an ejection (`LatencyOutlier`, …)."""
    since_s: float
    message: str = ""
    times: int = 0


@dataclass(frozen=True, slots=True)
class Objections:
    """Of all gateways that answered, by gateway and pod; and how long ago that was."""

    by_gateway: Mapping[str, Mapping[str, Objection]]
    age_s: float


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What matters of a node that a worker is on."""

    name: str
    ready: bool = True
    said: str = ""
    """Why it is not ready, in Kubernetes' words."""
    since: str | None = None
    """While it is, or is not, ready (RFC 3339)."""
    pressures: tuple[str, ...] = ()
    """`MemoryPressure`, `DiskPressure`, `PIDPressure`."""
    quarantine: str | None = None
    """The fault for which a GPU pool keeps it out of use."""
    faults: tuple[tuple[float, str], ...] = ()
    """The last ones that the driver reported: when (Unix time), and which."""


class Kind(StrEnum):
    """What can be seen of a worker."""

    HUNG = "Hung"
    SILENT = "Silent"
    REFUSED = "Refused"
    FAILING = "Failing"
    SLOW = "Slow"
    ONE_SIDED = "OneSided"
    """One of several gateways holds something against it, the others do not."""
    CRASHING = "Crashing"
    UNREADY = "Unready"
    NODE_GONE = "NodeGone"
    NOT_STARTED = "NotStarted"
    WAITING = "Waiting"
    """For a node or an image."""
    KV_FULL = "KvFull"


@dataclass(frozen=True, slots=True)
class Symptom:
    """One worker shows something. `for_s`: how long already, where that is known."""

    kind: Kind
    worker: str
    node: str | None
    revision: str
    said: str
    for_s: float = 0.0
    serving: bool = False
    """It still answers requests, so that a restart takes something away."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause behind the symptoms of some workers."""

    cause: str
    error_class: ErrorClass
    symptoms: tuple[Symptom, ...]
    evidence: str
    remedies: tuple[Remedy, ...]
    """In order; those that others apply included."""
    healer: str
    """Who goes first, and what they do."""
    patience_s: float
    """How long they get."""
    advice: str
    effect: str
    hold: str | None = None
    """Why nothing is done."""

    @property
    def workers(self) -> tuple[str, ...]:
        return tuple(sorted({one.worker for one in self.symptoms}))

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted({one.node for one in self.symptoms if one.node}))

    @property
    def for_s(self) -> float:
        """For as long as the longest."""
        return max((one.for_s for one in self.symptoms), default=0.0)


@dataclass(frozen=True, slots=True)
class Rollback:
    """A revision of the spec that is not served because it can only crash."""

    refused: str
    serves: str
    message: str

    @classmethod
    def of(cls, memory: HealthStatus) -> Rollback | None:
        """As it is remembered; None while the spec's revision is served."""
        if memory.refused is None or memory.serves is None:
            return None
        return cls(memory.refused, memory.serves, memory.why or "")


@dataclass(frozen=True, slots=True)
class Restart:
    """A pod to delete; its Deployment makes another."""

    pod: str
    uid: str
    grace_s: int | None
    """None: its own, so that it can drain."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A remedy whose outcome is known now, for the counters."""

    cause: str
    remedy: Remedy
    outcome: str


@dataclass(frozen=True, slots=True)
class HealPlan:
    """What to remember, what to do, what to say."""

    memory: HealthStatus
    restarts: tuple[Restart, ...] = ()
    serve: str | None = None
    """The revision to serve instead of the wanted one."""
    refused: str | None = None
    """Why the spec's revision is not served."""
    worst: HealthFinding | None = None
    told: tuple[Transition, ...] = ()
    counted: tuple[Counted, ...] = ()
    look_again_s: float | None = None
