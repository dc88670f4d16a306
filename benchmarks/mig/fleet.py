"""GPUs with slices on them, as a simulation holds them: who is where, and what could still be placed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from controllers.plans.mig.geometry import WHOLE_GPU, Family, Profile
from controllers.plans.mig.layouts import Place

Kind = tuple[str, int]
"""Profile and priority class: workers that are alike here."""


@cache
def places_of(family: Family, profile: str) -> tuple[Place, ...]:
    """Where a slice of the profile may be; a whole GPU is all of it."""
    if profile == WHOLE_GPU:
        return (Place(0, Profile(WHOLE_GPU, family.compute, family.memory, (0,))),)
    found = family.profile(profile)
    assert found, f"{family.name} has no profile {profile}"
    return tuple(Place(start, found) for start in found.starts)


@dataclass(slots=True)
class Gpu:
    """One GPU: the slices in use, each with the class of its worker."""

    used: list[tuple[Place, int]] = field(default_factory=list)

    @property
    def mask(self) -> int:
        return sum(place.mask for place, _ in self.used)

    @property
    def compute(self) -> int:
        return sum(place.profile.compute for place, _ in self.used)

    @property
    def state(self) -> tuple[int, int]:
        return self.mask, self.compute


@dataclass(slots=True)
class Fleet:
    """All GPUs, of one family, and an index from workers to GPUs."""

    family: Family
    gpus: list[Gpu]
    where: dict[Kind, list[int]] = field(default_factory=dict)
    """GPU of each worker, by kind."""

    @classmethod
    def empty(cls, family: Family, count: int) -> Fleet:
        return cls(family, [Gpu() for _ in range(count)])

    def put(self, index: int, place: Place, priority: int) -> None:
        self.gpus[index].used.append((place, priority))
        self.where.setdefault((place.profile.name, priority), []).append(index)

    def take(self, kind: Kind, rng: random.Random) -> int:
        """A worker of the kind ends, any of them; the GPU it was on."""
        homes = self.where[kind]
        at = rng.randrange(len(homes))
        homes[at], homes[-1] = homes[-1], homes[at]
        index = homes.pop()
        used = self.gpus[index].used
        gone = next(i for i, (place, priority) in enumerate(used) if (place.profile.name, priority) == kind)
        used.pop(gone)
        return index

    def held(self) -> Counter[Kind]:
        return Counter({kind: len(homes) for kind, homes in self.where.items() if homes})

    def check(self) -> None:
        """No two slices overlap; no GPU gives more compute than it has."""
        for gpu in self.gpus:
            seen = 0
            for place, _ in gpu.used:
                assert not seen & place.mask, "slices overlap"
                seen |= place.mask
            assert gpu.compute <= self.family.compute


def slices(kinds: Mapping[Kind, int], whole: int = 7) -> float:
    """Compute slices of so many workers."""
    return float(sum(count * (whole if name == WHOLE_GPU else int(name[0])) for (name, _), count in kinds.items()))
