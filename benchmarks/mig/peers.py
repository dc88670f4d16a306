"""The heuristics beside which the planner is measured. Each places one worker at a time and never moves one.

- First fit: the first GPU, in order of index, with a valid place; the first start.
- Best fit: of the GPUs with a valid place the one with the fewest free memory slices; there, the start that the
  literature calls the best index (Turkkan et al., arXiv 2409.06646): the last one that keeps the places of larger
  profiles free.
- Minimum fragmentation increment (Zambianco et al., arXiv 2511.18906): a GPU's fragmentation score adds, for each
  profile no larger than its free memory slices, the profile's memory size for each of its starts whose window is not
  wholly free; a worker goes to the GPU and start with the least increase of the score.

A GPU's state is which memory slices are taken and how much compute is; GPUs in one state are alike, so each state is
kept as a heap of indices and scored once. That changes the speed of a heuristic, not its choice.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import cache

from benchmarks.mig.fleet import Fleet, places_of
from controllers.plans.mig.geometry import WHOLE_GPU, Family
from controllers.plans.mig.layouts import Place

State = tuple[int, int]
Score = tuple[float, ...]
"""The least wins; ties go to the GPU with the lowest index."""
Rule = Callable[[Family, State, Place], Score]


def first_fit(family: Family, state: State, place: Place) -> Score:
    return ()


def best_fit(family: Family, state: State, place: Place) -> Score:
    free = family.memory - state[0].bit_count()
    return float(free), _index_rank(family, state, place)


def minimum_fragmentation(family: Family, state: State, place: Place) -> Score:
    after = state[0] | place.mask
    return (_fragmentation(family, after) - _fragmentation(family, state[0]),)


@cache
def _fragmentation(family: Family, mask: int) -> float:
    free = family.memory - mask.bit_count()
    score = 0.0
    for profile in family.profiles:
        if profile.media or profile.memory > free:
            continue
        blocked = [start for start in profile.starts if mask & Place(start, profile).mask]
        score += profile.memory * len(blocked)
    return score


@cache
def _index_rank(family: Family, state: State, place: Place) -> float:
    """How much larger profiles lose by this start: places of larger profiles that were free and are not after it."""
    lost = 0
    for profile in family.profiles:
        if profile.media or profile.memory <= place.profile.memory:
            continue
        for start in profile.starts:
            window = Place(start, profile).mask
            if not window & state[0] and window & place.mask:
                lost += profile.memory
    return float(lost) - place.start / 100


class Placer:
    """A rule over a fleet."""

    def __init__(self, fleet: Fleet, rule: Rule) -> None:
        self.fleet, self._rule = fleet, rule
        self._heaps: dict[State, list[int]] = {(0, 0): list(range(len(fleet.gpus)))}
        self._best: dict[tuple[State, str], tuple[Score, Place] | None] = {}

    def place(self, profile: str, priority: int) -> bool:
        """One more worker; False when no GPU has a place."""
        candidates = []
        for state in list(self._heaps):
            found = self._choice(state, profile)
            index = self._first(state) if found else None
            if found and index is not None:
                candidates.append((found[0], index, found[1]))
        if not candidates:
            return False
        _, index, place = min(candidates, key=lambda one: (one[0], one[1]))
        self.fleet.put(index, place, priority)
        self.changed(index)
        return True

    def changed(self, index: int) -> None:
        """A GPU gained or lost a slice."""
        heapq.heappush(self._heaps.setdefault(self.fleet.gpus[index].state, []), index)

    def _first(self, state: State) -> int | None:
        heap = self._heaps[state]
        while heap and self.fleet.gpus[heap[0]].state != state:
            heapq.heappop(heap)
        if not heap:
            del self._heaps[state]
            return None
        return heap[0]

    def _choice(self, state: State, profile: str) -> tuple[Score, Place] | None:
        key = state, profile
        if key not in self._best:
            family = self.fleet.family
            fitting = [place for place in places_of(family, profile) if self._fits(state, place)]
            scored = [(self._rule(family, state, place), place) for place in fitting]
            self._best[key] = min(scored, key=lambda one: (one[0], one[1].start)) if scored else None
        return self._best[key]

    def _fits(self, state: State, place: Place) -> bool:
        """A whole GPU takes an empty one only; it then has no compute left for slices."""
        if place.profile.name == WHOLE_GPU:
            return state == (0, 0)
        return not state[0] & place.mask and state[1] + place.profile.compute <= self.fleet.family.compute


PEERS: dict[str, Rule] = {
    "first fit": first_fit,
    "best fit": best_fit,
    "minimum fragmentation increment": minimum_fragmentation,
}
