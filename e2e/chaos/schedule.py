"""Which faults there are, and a campaign of them drawn from a seed: the same seed is the same campaign. Pure.

Faults of a lane hit that lane's service and leave the others alone, so lanes run side by side. What hits everybody runs
alone, before the lanes. Never injects anything.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Place(StrEnum):
    """Where a fault may run."""

    LANE = "lane"
    ALONE = "alone"
    GPU = "gpu"
    """Alone, and of the service whose workers are on slices: what takes a GPU's node takes all workers on it."""


class Promise(StrEnum):
    """What Foretide says of the faults of a kind, and so which goals they are judged by."""

    WORKER = "worker"
    """A worker is lost or hurt: found, its requests moved, the fleet whole again."""
    REVISION = "revision"
    """What was asked for is bad: refused, and what serves goes on."""
    SURROUNDINGS = "surroundings"
    """Something around the workers goes away and comes back: nothing is done about it, nothing is lost."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `count` is how many a whole campaign has of it."""

    name: str
    says: str
    promise: Promise
    count: int
    place: Place = Place.LANE


KINDS: Final = (
    Kind("process kill", "every process of a worker's container gets SIGKILL", Promise.WORKER, 16),
    Kind("engine kill", "the engine's process alone gets SIGKILL", Promise.WORKER, 13),
    Kind("pod lost", "a worker's pod is deleted at once, without a grace period", Promise.WORKER, 14),
    Kind("hang of the step loop", "the engine's process is stopped (SIGSTOP) behind a server that answers",
         Promise.WORKER, 12),
    Kind("hang of the worker", "every process of the container is stopped (SIGSTOP)", Promise.WORKER, 14),
    Kind("out of memory", "the container's memory fills up until the kernel kills the engine", Promise.WORKER, 14),
    Kind("slow worker", "the container gets 1 % of one core for 20 s, or until it is restarted", Promise.WORKER, 14),
    Kind("network cut", "every packet between the gateways' pods and one worker's is dropped for 10 s",
         Promise.WORKER, 14),
    Kind("network delay", "a worker's link carries 16 kbit/s for 15 s: answers wait for seconds", Promise.WORKER, 14),
    Kind("node drain", "kubectl drains a node of the service's workers, and gives it back", Promise.WORKER, 12),
    Kind("disk full", "a worker's scratch volume is filled beyond its limit", Promise.WORKER, 8),
    Kind("wrong outputs", "a revision with other weights: healthy, fast and wrong", Promise.REVISION, 12),
    Kind("bad revision", "a revision that no node takes, or whose worker refuses to start", Promise.REVISION, 12),
    Kind("corrupted model file", "an edit to a Model whose file has flipped bytes", Promise.REVISION, 14),
    Kind("XID event", "the GPU agent reports an XID that calls for a reset or a reboot", Promise.WORKER, 5,
         Place.GPU),
    Kind("API server restart", "the API server is ended, by SIGTERM or SIGKILL, and started again",
         Promise.SURROUNDINGS, 5, Place.ALONE),
    Kind("operator kill", "every process of the leading operator gets SIGKILL", Promise.SURROUNDINGS, 5, Place.ALONE),
    Kind("Prometheus outage", "the Prometheus that forecasts are made of is away for 15 s", Promise.SURROUNDINGS, 2,
         Place.ALONE),
)  # fmt: skip
BY_NAME: Final[Mapping[str, Kind]] = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a campaign. `number` is its name: results are kept by it, and `chance` draws by it."""

    number: int
    seed: int
    kind: Kind
    service: str

    def chance(self) -> random.Random:
        """Decides the worker and the flavour, whatever ran before."""
        return random.Random(f"{self.seed}/{self.number}")


def campaign(seed: int, lanes: Sequence[str], gpu_service: str, counts: Mapping[str, int] | None = None) -> list[Fault]:
    """All faults in the order of their numbers: those that run alone come first, then the lanes take turns.

    `counts` replaces how many there are of each kind; kinds that it does not name are left out.
    """
    chance = random.Random(seed)
    many = {kind.name: kind.count for kind in KINDS} if counts is None else dict(counts)
    unknown = sorted(set(many) - set(BY_NAME))
    if unknown:
        raise ValueError(f"No fault is called {unknown[0]!r}; there are {', '.join(BY_NAME)}.")
    drawn = {place: [kind for kind in KINDS if kind.place is place for _ in range(many.get(kind.name, 0))]
             for place in Place}  # fmt: skip
    for kinds in drawn.values():
        chance.shuffle(kinds)
    placed = [(kind, gpu_service) for kind in drawn[Place.GPU]]
    placed += [(kind, chance.choice(list(lanes))) for kind in drawn[Place.ALONE]]
    placed += [(kind, lanes[at % len(lanes)]) for at, kind in enumerate(drawn[Place.LANE])]
    return [Fault(number, seed, kind, service) for number, (kind, service) in enumerate(placed, 1)]
