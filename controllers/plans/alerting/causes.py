"""Which part, had it broken, would explain the alerts best? And which alerts have the same cause?

Each part that could be behind an alert is judged by how likely the alerts would be if it alone had broken, beside how
likely they are without a cause (log likelihood ratio, Kandula et al. 2009 in spirit): alerts of what hangs on it speak
for it, things that hang on it and are silent against it; an alert or a recent change of its own speaks for it, and
consequences that were there long before it speak against it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.alerting.alerts import SERVICE
from controllers.plans.alerting.topology import UNKNOWN, Part, Reach
from controllers.plans.units import duration_text

HIT: Final = 0.8
"""Chance that a part alerts when what it hangs on entirely has broken."""
LEAK: Final = 0.02
"""Chance that it alerts without any cause that is known."""
SILENCE_WEIGHT: Final = 0.5
"""Not everything that suffers is watched."""
CHANGE_WEIGHT: Final = 4.0
CHANGE_HALF_S: Final = 600.0
CHANGE_AGE_S: Final = 3600.0
LATE_AFTER_S: Final = 30.0
LATE_MOST: Final = 2.0
SYMPTOM: Final = -1.0
"""A service is seldom a cause by itself: it shows what broke elsewhere."""
GUESS: Final = -1.5
"""Of a part that neither alerts itself nor is behind more than one alert: what alerts is known, the rest is a guess."""
COST: Final = 3.0
"""Of one more cause: two at once are rarer than one."""
SECOND_LOOKS: Final = 5
"""How often a cover is tried again without one of its causes."""
HEIR: Final = 0.25
"""How much of a symptom must hang on a cause that is needed anyway to be taken for its consequence."""
SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Symptom:
    """A part that alerts, and since when."""

    part: Part
    since_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was changed on purpose, or restarted."""

    part: Part
    at_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Cause:
    """A candidate and how well it explains. `explains` are those of the alerting parts that hang on it."""

    part: Part
    score: float
    explains: frozenset[Part]
    message: str


def rank(symptoms: Iterable[Symptom], reach: Reach, changes: Iterable[Change], most: int = SHOWN) -> list[Cause]:
    """The likeliest causes of all of them together, best first."""
    court = _Court(symptoms, reach, changes)
    found = sorted((court.judge(one) for one in court.candidates()), key=_order)
    return found[:most]


def clusters(symptoms: Iterable[Symptom], reach: Reach, changes: Iterable[Change]) -> list[Cause]:
    """Causes that together explain every symptom, each symptom by one.

    First always the one that explains best what is left; then it is tried whether the whole is explained better without
    one of those that do not alert themselves: a gateway that nobody complains of is not behind two nodes that are down.
    """
    symptoms, changes = list(symptoms), list(changes)
    alerting = {one.part for one in symptoms}
    banned: frozenset[Part] = frozenset()
    best = _cover(_Court(symptoms, reach, changes), banned)
    for _ in range(SECOND_LOOKS):
        doubtful = [one for one in best if len(one.explains) > 1 and one.part not in alerting]
        tried = [
            (banned | {one.part}, _cover(_Court(symptoms, reach, changes), banned | {one.part})) for one in doubtful[:3]
        ]
        found = max(tried, key=lambda pair: _worth(pair[1]), default=None)
        if found is None or _worth(found[1]) <= _worth(best):
            break
        banned, best = found
    return _needed(best, alerting, reach)


def _needed(cover: list[Cause], alerting: Collection[Part], reach: Reach) -> list[Cause]:
    """Without causes that do not alert themselves and whose every symptom a cause that is needed anyway explains."""
    kept = list(cover)
    for doubtful in sorted((one for one in cover if one.part not in alerting), key=lambda one: one.score):
        others = [one for one in kept if one is not doubtful]
        heirs = {part: _heir(part, others, reach) for part in doubtful.explains}
        if all(heir is not None for heir in heirs.values()):
            kept = [
                replace(one, explains=one.explains | {part for part, heir in heirs.items() if heir is one})
                for one in others
            ]
    return kept


def _heir(part: Part, others: Sequence[Cause], reach: Reach) -> Cause | None:
    """The one on which most of the part hangs, if that is at least a quarter."""
    above = reach.upstream(part)
    best = max(others, key=lambda one: above.get(one.part, 0.0), default=None)
    return best if best is not None and above.get(best.part, 0.0) >= HEIR else None


def _worth(cover: Sequence[Cause]) -> float:
    return sum(one.score - COST for one in cover)


def _cover(court: _Court, banned: frozenset[Part]) -> list[Cause]:
    # A score only falls as symptoms are taken away, so one that is still true when it comes up is the best.
    queue = [(_order(one), one) for one in map(court.judge, court.candidates() - banned)]
    heapq.heapify(queue)
    found: list[Cause] = []
    while court.left and queue:
        _, best = heapq.heappop(queue)
        if not best.explains <= court.left.keys():
            again = court.judge(best.part)
            if again.explains:
                heapq.heappush(queue, (_order(again), again))
            continue
        found.append(best)
        court.take(best.explains)
    return found


def _order(cause: Cause) -> tuple[float, str]:
    return -cause.score, str(cause.part)


class _Court:
    """The symptoms that are left to explain."""

    def __init__(self, symptoms: Iterable[Symptom], reach: Reach, changes: Iterable[Change]) -> None:
        self.left: dict[Part, float] = {}
        for one in symptoms:
            self.left[one.part] = min(one.since_s, self.left.get(one.part, math.inf))
        self._taken: set[Part] = set()
        self._reach = reach
        self._watched = {part.kind for part in self.left}
        self._changes: dict[Part, list[Change]] = {}
        for change in changes:
            self._changes.setdefault(change.part, []).append(change)

    def candidates(self) -> set[Part]:
        return {part for symptom in self.left for part in self._reach.upstream(symptom)}

    def take(self, parts: frozenset[Part]) -> None:
        for part in parts:
            del self.left[part]
        self._taken |= parts

    def judge(self, candidate: Part) -> Cause:
        below = self._reach.downstream(candidate)
        explains = frozenset(below.keys() & self.left.keys())
        score, words = 0.0, []
        silent = 0
        for part, share in below.items():
            # A quarter of the workers lost is felt as more than a quarter of the trouble.
            chance = LEAK + (HIT - LEAK) * math.sqrt(share)
            if part in self.left:
                score += math.log(chance / LEAK)
            elif part.kind in self._watched and part not in self._taken:
                score += SILENCE_WEIGHT * math.log((1 - chance) / (1 - LEAK))
                silent += 1
        watched = len(explains) + silent
        words.append(f"{len(explains)} of {watched} parts that hang on it alert")
        score += self._late(candidate, explains, words) + self._changed(candidate, explains, words)
        if candidate.kind in (SERVICE, UNKNOWN):
            score += SYMPTOM
        if candidate not in self.left and len(explains) < 2:
            score += GUESS
        return Cause(candidate, score, explains, "; ".join(words))

    def _late(self, candidate: Part, explains: frozenset[Part], words: list[str]) -> float:
        """A cause that alerts itself, but long after its consequences, is rather one of them."""
        own_s = self.left.get(candidate)
        if own_s is None or len(explains) < 2:
            return 0.0
        late_s = own_s - min(self.left[part] for part in explains if part != candidate)
        words.append("it alerted first" if late_s <= 0 else f"it alerted {duration_text(late_s)} after the first")
        return -min(max(0.0, late_s - LATE_AFTER_S) / 120.0, LATE_MOST)

    def _changed(self, candidate: Part, explains: frozenset[Part], words: list[str]) -> float:
        """A change shortly before the first alert."""
        first_s = min((self.left[part] for part in explains), default=math.inf)
        best = 0.0
        for change in self._changes.get(candidate, ()):
            age_s = first_s - change.at_s
            if 0 <= age_s <= CHANGE_AGE_S:
                weight = CHANGE_WEIGHT * 2.0 ** (-age_s / CHANGE_HALF_S)
                if weight > best:
                    best, said = weight, f"{change.what} {duration_text(age_s)} before the first alert"
        if best:
            words.append(said)
        return best


def texts(found: Sequence[Cause]) -> tuple[str, ...]:
    """`node/gpu-3: 7 of 8 parts that hang on it alert; it alerted first`"""
    return tuple(f"{one.part}: {one.message}"[:300] for one in found)
