"""How much of a cohort's quota each Tenant may use: Kueue's nominal quota, borrowing limit and lending limit. Pure.

Everybody has its own quota when it wants it. What some leave unused is lent to those who want more, by weighted
max-min fairness: when a lender wants its own back, the level falls, and those most over their weighted share lose
first. Only what is wanted now counts, no history. It never speaks of services: who of a Tenant gives workers back is
`plans.quota`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


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


def fair(members: Iterable[Member]) -> dict[str, int]:
    """What each should have in the end. Does not depend on what anybody holds, so planning again changes nothing."""
    everyone = sorted(members, key=lambda one: one.name)
    lent = sum(one.lent for one in everyone)
    weights = {one.name: one.weight for one in everyone}
    borrowed = fill(lent, {one.name: one.borrowing for one in everyone}, weights)
    return {one.name: one.own + borrowed[one.name] for one in everyone}


def allowed(members: Iterable[Member]) -> dict[str, int]:
    """What each may have now: who holds too much goes down; who holds too little gets what nobody holds any more."""
    everyone = sorted(members, key=lambda one: one.name)
    goal, weights = fair(everyone), {one.name: one.weight for one in everyone}
    now = {one.name: min(one.held, goal[one.name]) for one in everyone}
    free = max(0, sum(one.nominal for one in everyone) - sum(one.held for one in everyone))
    # Their own quota first, then what is lent.
    for most in ({one.name: one.own for one in everyone}, goal):
        given = fill(free, {name: max(0, most[name] - now[name]) for name in now}, weights)
        free -= sum(given.values())
        now = {name: now[name] + given[name] for name in now}
    return now


def fill(amount: int, rooms: Mapping[str, int], weights: Mapping[str, int]) -> dict[str, int]:
    """`amount` shared out by weight, nobody over its room; single units go to who has least for its weight."""
    given = dict.fromkeys(rooms, 0)
    while hungry := [name for name in sorted(rooms) if given[name] < rooms[name]]:
        total = sum(weights[name] for name in hungry)
        # Who has no room for its share is full, and the rest is shared again among the others.
        pot = amount - sum(given[name] for name in rooms if name not in hungry)
        shares = {name: min(rooms[name], pot * weights[name] // total) for name in hungry}
        full = [name for name in hungry if shares[name] == rooms[name]]
        if full:
            given |= {name: shares[name] for name in full}
            continue
        given |= shares
        rest = pot - sum(shares.values())
        order = sorted(hungry, key=lambda name: ((shares[name] + 1) / weights[name], name))
        for name in order[:rest]:
            given[name] += 1
        break
    return given
