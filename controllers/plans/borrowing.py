"""How much of a cohort's quota each Tenant may use: Kueue's nominal quota, borrowing limit and lending limit. Pure.

Everybody has its own quota when it wants it. What some leave unused is lent to those who want more, by weighted
max-min fairness: when a lender wants its own back, the level falls, and those most over their weighted share lose
first. What was borrowed lately raises or lowers the weights, and decides who has what does not divide (`fair_share`).
It never speaks of services: who of a Tenant gives workers back is `plans.quota`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.fair_share import Standing, standings

_FINE: Final = 1000
"""Weights are whole numbers; this many of them make one."""


@dataclass(frozen=True, slots=True)
class Member:
    """One Tenant of the cohort, in one line of the quota."""

    name: str
    nominal: int
    wish: int
    """What its services want, whatever is allowed."""
    held: int
    weight: int = 1
    limit: int | None = None
    """Most that it borrows; None for as much as the cohort leaves."""
    lending: int | None = None
    """Most that it lends of what it does not use; None for all."""
    each: int = 1
    """What one of its workers takes."""
    used: float = 0.0
    """What it borrowed on average lately."""

    @property
    def own(self) -> int:
        """What it wants of its own quota."""
        return min(self.wish, self.nominal)

    @property
    def lent(self) -> int:
        """What it leaves to the others."""
        idle = self.nominal - self.own
        return idle if self.lending is None else min(idle, self.lending)

    @property
    def borrowing(self) -> int:
        """What it would borrow."""
        more = self.wish - self.own
        return more if self.limit is None else min(more, self.limit)


@dataclass(frozen=True, slots=True)
class Asked:
    """What one of those among whom an amount is shared can take of it."""

    most: int
    weight: int
    has: int = 0
    """Has it already, of something else: whole workers are reckoned from there."""
    each: int = 1
    turn: float = 0.0
    """Who has the lowest gets first what does not divide."""


def fair(members: Iterable[Member]) -> dict[str, int]:
    """What each should have in the end. Does not depend on what anybody holds, so planning again changes nothing."""
    everyone = sorted(members, key=lambda one: one.name)
    asked = {one.name: replace(ask, most=one.borrowing, has=one.own) for one, ask in _asked(everyone)}
    borrowed = fill(sum(one.lent for one in everyone), asked)
    return {one.name: one.own + borrowed[one.name] for one in everyone}


def allowed(members: Iterable[Member]) -> dict[str, int]:
    """What each may have now: who holds too much goes down; who holds too little gets what nobody holds any more."""
    everyone = sorted(members, key=lambda one: one.name)
    goal, asked = fair(everyone), {one.name: ask for one, ask in _asked(everyone)}
    now = {one.name: min(one.held, goal[one.name]) for one in everyone}
    free = max(0, sum(one.nominal for one in everyone) - sum(one.held for one in everyone))
    # Their own quota first, then what is lent.
    for most in ({one.name: one.own for one in everyone}, goal):
        lacks = {name: replace(one, most=max(0, most[name] - now[name]), has=now[name]) for name, one in asked.items()}
        given = fill(free, lacks)
        free -= sum(given.values())
        now = {name: now[name] + given[name] for name in now}
    return now


def standing(members: Iterable[Member]) -> dict[str, Standing]:
    """Of those who want to borrow, by name."""
    those = [one for one in members if one.borrowing]
    return standings(
        {one.name: one.used for one in those},
        {one.name: one.weight for one in those},
        {one.name: one.each for one in those},
    )


def _asked(members: Sequence[Member]) -> list[tuple[Member, Asked]]:
    """Each with its weight as what it borrowed makes it."""
    stand = standing(members)
    factors = [stand[one.name].factor if one.name in stand else 1.0 for one in members]
    return [
        (one, Asked(0, round(_FINE * one.weight * factor), each=one.each, turn=round(one.used / one.weight, 3)))
        for one, factor in zip(members, factors, strict=True)
    ]


def fill(amount: int, asked: Mapping[str, Asked]) -> dict[str, int]:
    """`amount` shared out by weight, nobody over its most, in whole workers as far as it goes.

    What does not divide goes a worker each, by turn, then to who has least for its weight.
    """
    given = dict.fromkeys(asked, 0)
    hungry = list(asked)
    while hungry := [name for name in sorted(hungry) if given[name] < asked[name].most]:
        total = sum(asked[name].weight for name in hungry)
        # Who has no room for its share is full, and the rest is shared again among the others.
        pot = amount - sum(given[name] for name in asked if name not in hungry)
        shares = {name: min(asked[name].most, pot * asked[name].weight // total) for name in hungry}
        full = [name for name in hungry if shares[name] == asked[name].most]
        given |= {name: shares[name] for name in full} if full else _whole(shares, asked)
        if not full:
            break
    rest = amount - sum(given.values())
    order = sorted(hungry, key=lambda name: (asked[name].turn, (given[name] + 1) / asked[name].weight, name))
    for whole in (True, False):
        for name in order:
            more = min(_to_next(asked[name], given[name]) if whole else rest, asked[name].most - given[name])
            if more <= rest:
                given[name] += more
                rest -= more
    return given


def _whole(shares: Mapping[str, int], asked: Mapping[str, Asked]) -> dict[str, int]:
    return {name: max(0, share - (asked[name].has + share) % asked[name].each) for name, share in shares.items()}


def _to_next(one: Asked, given: int) -> int:
    """What is missing to its next whole worker."""
    return one.each - (one.has + given) % one.each
