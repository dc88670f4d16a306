"""The policies: from candidates to a choice with its reason. Pure; `turn` takes the place of chance.

Never looks at a request beyond its keys, and never chooses whom `selection` left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from operator import attrgetter
from typing import NamedTuple, Protocol, TypeVar

from gateway.routing.keys import Keys
from gateway.routing.ring import Ring, limit
from gateway.routing.terms import Policy, RoutingTerms

_GOLDEN = 0.6180339887498949
"""Multiples of it, less their whole part, spread evenly: an endpoint of share 0.1 gets every tenth of its turns."""


class Candidate(Protocol):
    """An endpoint among which is chosen."""

    @property
    def in_flight(self) -> int: ...
    @property
    def share(self) -> float:
        """Of an equal part of the load, in (0, 1]."""

    @property
    def cost(self) -> float:
        """Of one more request (`gateway.routing.scoring`)."""

    @property
    def capacity(self) -> int:
        """Requests that it runs at once."""


class Why(Enum):
    """The values are metric labels."""

    ONLY = "only"
    TURN = "turn"
    LEAST_COST = "least_cost"
    PREFIX_HOME = "prefix_home"
    PREFIX_SPILLED = "prefix_spilled"
    SESSION_HOME = "session_home"
    SESSION_SPILLED = "session_spilled"


C = TypeVar("C", bound=Candidate)


class Choice(NamedTuple):
    at: int
    """Index among the candidates."""
    why: Why


_ONLY = Choice(0, Why.ONLY)
_HOME = {Policy.PREFIX: Why.PREFIX_HOME, Policy.SESSION: Why.SESSION_HOME}
_SPILLED = {Policy.PREFIX: Why.PREFIX_SPILLED, Policy.SESSION: Why.SESSION_SPILLED}
_COST = attrgetter("cost")


def choose(terms: RoutingTerms, candidates: Sequence[Candidate], ring: Ring | None, keys: Keys, turn: int) -> Choice:
    """One of the candidates, of which there must be one. `ring`: of the same candidates, in their order."""
    if len(candidates) == 1:
        return _ONLY
    policy = terms.policy
    if policy is Policy.ROUND_ROBIN:
        return in_turn(candidates, turn)
    if ring is not None and policy in _HOME:
        key = keys.prefix if policy is Policy.PREFIX else keys.session
        if key is not None:
            return at_home(policy, terms.load_bound, candidates, ring, key)
    return least_cost(candidates, turn)


def in_turn(candidates: Sequence[Candidate], turn: int) -> Choice:
    """One after the other; one that comes back from an ejection takes only its share of its turns."""
    count = len(candidates)
    for step in range(count):
        number = turn + step
        index = number % count
        if candidates[index].share >= 1.0 or (number // count) * _GOLDEN % 1.0 < candidates[index].share:
            return Choice(index, Why.TURN)
    return Choice(turn % count, Why.TURN)


def least_cost(candidates: Sequence[Candidate], turn: int) -> Choice:
    """The lowest cost; among equals, the next one from `turn` on."""
    start = turn % len(candidates)
    costs = [*map(_COST, candidates)]
    best = min(costs)
    try:
        return Choice(costs.index(best, start), Why.LEAST_COST)
    except ValueError:
        return Choice(costs.index(best), Why.LEAST_COST)


def at_home(policy: Policy, load_bound: float, candidates: Sequence[Candidate], ring: Ring, key: int) -> Choice:
    """The key's own endpoint, or the next on the ring that is not above the bound; the home where all are."""
    home = ring.home(key)
    own = candidates[home]
    # What has room for twice as much needs no mean to be compared with; that is nearly always so.
    if own.share >= 1.0 and own.in_flight < own.capacity // 2:
        return Choice(home, _HOME[policy])
    total = sum([one.in_flight for one in candidates])
    for index in ring.walk(key):
        one = candidates[index]
        most = max(1, int(limit(total, len(candidates), load_bound, one.capacity) * one.share))
        if one.in_flight < most:
            return Choice(index, _HOME[policy] if index == home else _SPILLED[policy])
    return Choice(home, _HOME[policy])
