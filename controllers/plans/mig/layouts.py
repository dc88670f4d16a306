"""Every way in which a GPU can be cut, by exact enumeration. No heuristic has a say here.

A *placement* is a set of profiles at their starts; a *layout* is what it gives: how many slices of each profile. The
driver chooses the places itself when it is asked for a layout, so plans speak of layouts; placements are what free and
used slices are at on a GPU that runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from typing import Final

from controllers.plans.mig.geometry import WHOLE_GPU, Family, Profile

Layout = tuple[tuple[str, int], ...]
"""Slices of each profile, sorted by name: `(("1g.10gb", 3), ("4g.40gb", 1))`. Hashable; no zero entries."""
MOST_PLACEMENTS: Final = 20_000
WHOLE: Layout = ((WHOLE_GPU, 1),)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One slice at its start."""

    start: int
    profile: Profile

    @property
    def mask(self) -> int:
        """The memory slices that it takes, as bits."""
        return ((1 << self.profile.memory) - 1) << self.start


Placement = tuple[Place, ...]
"""In the order of the family's profiles, then of starts."""


def layout(counts: Mapping[str, int]) -> Layout:
    """From counts; what is zero is left out."""
    return tuple(sorted((name, count) for name, count in counts.items() if count))


def layout_of(placement: Iterable[Place]) -> Layout:
    """What a placement gives."""
    counts: dict[str, int] = {}
    for place in placement:
        counts[place.profile.name] = counts.get(place.profile.name, 0) + 1
    return layout(counts)


def layout_text(one: Layout) -> str:
    """`4g.40gb + 3×1g.10gb`; the largest first."""
    parts = sorted(one, key=lambda item: (-slices_of(item[0]), item[0]))
    return " + ".join(name if count == 1 else f"{count}×{name}" for name, count in parts) or "empty"


def slices_of(profile: str, whole: int = 7) -> int:
    """Compute slices of a profile by its name; of a whole GPU as told."""
    return whole if profile == WHOLE_GPU else int(profile[0])


def placements(family: Family, allowed: Collection[str] | None = None) -> Iterator[Placement]:
    """All valid placements, the empty one first. `allowed` names the profiles; all but `+me` when left out."""
    places = _places(family, allowed)
    yield from _grow(family, places, 0, (), 0, 0)


@lru_cache(maxsize=256)
def is_enumerable(family: Family) -> bool:
    """Whether all placements can be looked at. Listed GPUs have 2,319 at most; those of one made up may never end."""
    names = [one.name for one in family.profiles]
    return next(islice(placements(family, names), MOST_PLACEMENTS, None), None) is None


def _places(family: Family, allowed: Collection[str] | None) -> tuple[Place, ...]:
    chosen = [one for one in family.profiles if (not one.media if allowed is None else one.name in allowed)]
    return tuple(Place(start, profile) for profile in chosen for start in profile.starts)


def _grow(
    family: Family, places: tuple[Place, ...], first: int, so_far: Placement, used: int, compute: int
) -> Iterator[Placement]:
    yield so_far
    for i in range(first, len(places)):
        place = places[i]
        if _fits(family, place, so_far, used, compute):
            more = (*so_far, place)
            yield from _grow(family, places, i + 1, more, used | place.mask, compute + place.profile.compute)


def _fits(family: Family, place: Place, beside: Placement, used: int, compute: int) -> bool:
    if used & place.mask or compute + place.profile.compute > family.compute:
        return False
    return not (place.profile.media and any(one.profile.media for one in beside))


def can_add(family: Family, placement: Placement, place: Place) -> bool:
    """Whether one more slice fits beside what stands."""
    used = sum(one.mask for one in placement)
    return _fits(family, place, placement, used, sum(one.profile.compute for one in placement))


def maximal_placements(family: Family, allowed: Collection[str] | None = None) -> Iterator[Placement]:
    """Placements to which nothing can be added."""
    places = _places(family, allowed)
    for placement in placements(family, allowed):
        if not any(can_add(family, placement, place) for place in places):
            yield placement


@cache
def maximal_layouts(family: Family, allowed: frozenset[str] | None = None) -> tuple[Layout, ...]:
    """The distinct layouts of maximal placements, sorted."""
    return tuple(sorted({layout_of(one) for one in maximal_placements(family, allowed)}))


@cache
def useful_layouts(family: Family, allowed: frozenset[str] | None = None) -> tuple[Layout, ...]:
    """Maximal layouts that no other one contains: all that a plan must look at."""
    every = maximal_layouts(family, allowed)
    return tuple(one for one in every if not any(one != other and contains(other, one) for other in every))


@cache
def is_possible(family: Family, wanted: Layout) -> bool:
    """Whether some placement gives at least these slices."""
    if wanted == WHOLE:
        return True
    names = frozenset(name for name, _ in wanted)
    return any(contains(one, wanted) for one in maximal_layouts(family, names))


def contains(larger: Layout, smaller: Layout) -> bool:
    """Whether `larger` has at least as many slices of each profile."""
    have = dict(larger)
    return all(have.get(name, 0) >= count for name, count in smaller)


def completions(family: Family, standing: Placement, allowed: frozenset[str] | None = None) -> tuple[Layout, ...]:
    """What a GPU can give when the slices that stand on it stay where they are; none contains another."""
    found = {layout_of(one) for one in _complete(family, _places(family, allowed), standing)}
    return tuple(sorted(one for one in found if not any(one != other and contains(other, one) for other in found)))


def _complete(family: Family, places: tuple[Place, ...], standing: Placement) -> Iterator[Placement]:
    used, compute = sum(one.mask for one in standing), sum(one.profile.compute for one in standing)
    for grown in _grow(family, places, 0, standing, used, compute):
        if not any(can_add(family, grown, place) for place in places):
            yield grown
