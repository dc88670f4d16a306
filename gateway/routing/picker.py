"""Choosing among a service's live endpoints: who may be chosen, by revision, and what each costs just now.

Applies the pure modules of this room. Prices are made anew at most every `PRICE_S`, however many reports come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from gateway.backend import Backend
from gateway.routing import scoring
from gateway.routing.choosing import Why, choose
from gateway.routing.keys import NO_KEYS, Keys
from gateway.routing.ring import Ring
from gateway.routing.terms import KEYED, RoutingTerms

PRICE_S: Final = 0.1


class Group:
    """Endpoints of one revision, or of all."""

    def __init__(self, members: list[Backend]) -> None:
        self.members = members
        self.ring: Ring | None = None


class Picker:
    def __init__(self, zone: str | None) -> None:
        self.terms = RoutingTerms()
        self._is_keyed = False
        self.why: Counter[Why] = Counter()
        self.last = Why.ONLY
        """Of the newest pick."""
        self.members: list[Backend] = []
        self._zone = zone
        self._all = Group([])
        self._of: dict[bytes, Group] = {}
        self._turn = 0
        self._stale = True
        self._priced_s = 0.0

    def renew(self, members: list[Backend], terms: RoutingTerms) -> None:
        """Who may be chosen has changed, or what each may have."""
        self.terms = terms
        self._is_keyed = terms.policy in KEYED
        if members != self.members:
            self.members = members
            self._all = Group(members)
            self._of = {}
            for one in members:
                self._of.setdefault(one.revision, Group([])).members.append(one)
        self._priced_s = 0.0
        self._stale = True

    def reported(self) -> None:
        """An endpoint said something new of itself."""
        self._stale = True

    def by_revision(self) -> list[list[Backend]]:
        return [list(group.members) for group in self._of.values()]

    def has(self, revision: bytes) -> bool:
        return revision in self._of

    def pick(
        self, tried: Collection[Backend], now_s: float, keys: Keys = NO_KEYS, revision: bytes | None = None
    ) -> Backend | None:
        """One of the revision's (of all without one), that this request has not tried where there is one."""
        group = self._all if revision is None else self._of.get(revision)
        if group is None or not group.members:
            return None
        if self._stale and now_s >= self._priced_s:
            self._price(now_s)
        members, ring = group.members, group.ring
        if ring is None and self._is_keyed:
            ring = group.ring = Ring([one.endpoint.pod for one in members])
        if tried and (fresh := [one for one in members if one not in tried]):
            members, ring = fresh, None if len(fresh) < len(members) else ring
        self._turn += 1
        index, self.last = choose(self.terms, members, ring, keys, self._turn)
        self.why[self.last] += 1
        return members[index]

    def explain(self, chosen: Backend, now_s: float) -> str:
        """Why the newest pick was this one, with the numbers it was chosen by (less itself)."""
        members = self.members
        facts = [self._facts(one, now_s) for one in members]
        if chosen not in members:
            return f"{chosen.endpoint.pod} of revision {chosen.endpoint.revision}: no longer among the healthy"
        in_flight = [one.in_flight for one in members]
        load, best_s = scoring.fleet_load(facts, in_flight), scoring.best_latency_s(facts)
        index = members.index(chosen)
        numbers = scoring.explained(self.terms.policy, facts[index], in_flight[index], load, best_s)
        where = f"{chosen.endpoint.pod} of revision {chosen.endpoint.revision}"
        return (
            f"{self.terms.policy.value}: {self.last.value} {where}, {len(members)} healthy; {numbers}; "
            f"fleet load {load:.2f}"
        )

    def _price(self, now_s: float) -> None:
        self._stale = False
        self._priced_s = now_s + PRICE_S
        members = self.members
        facts = [self._facts(one, now_s) for one in members]
        load = scoring.fleet_load(facts, [one.in_flight for one in members])
        for one, line in zip(members, scoring.lines(self.terms.policy, facts, load), strict=True):
            one.priced(line)

    def _facts(self, one: Backend, now_s: float) -> scoring.Facts:
        far = self.terms.prefer_zone and self._zone is not None and one.endpoint.zone not in (None, self._zone)
        return one.facts(not far, now_s)
