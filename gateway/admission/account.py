"""One minute limit as one process holds it: a part of a token bucket, and what the others were told to hold.

The bucket of a limit is cut into accounts, one a process. Each fills with its equal share of the rate and is spent by
its owner alone, so that nobody can spend what another spends, whatever is late or lost. Credit that one does not need
goes to those who say that they are short, as a running total that may be told twice. Pure: `now_s` is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

PeerId = bytes
ROUNDS_TOLD: Final = 15
"""For how many rounds an account is told on after it last changed: so many losses in a row do not happen."""
PEERS_REMEMBERED: Final = 256
"""Whose gifts are known by their totals; far more than processes that can still be heard."""
_NEAR_NOTHING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Told:
    """What a process tells of an account to one peer."""

    level: float
    want: float
    """What it had to refuse since it last told."""
    given: float
    """All that it has ever given to the peer that hears this."""


class Account:
    """`take` on the hot path; the rest once a round."""

    __slots__ = (
        "_at_s",
        "_given",
        "_got",
        "_others",
        "_parts",
        "_share",
        "_told",
        "_used",
        "_wants",
        "depth",
        "level",
        "per_minute",
        "portion",
        "rate_per_s",
        "rounds_left",
        "want",
    )

    def __init__(
        self, per_minute: float, burst_s: float, now_s: float, *, members: int = 1, since_s: float = float("-inf")
    ) -> None:
        """Full at its equal part, or as full as one is that has been there `since_s`."""
        self._at_s = now_s
        self._told: dict[PeerId, float] = {}
        self._wants: dict[PeerId, float] = {}
        self._given: dict[PeerId, float] = {}
        self._got: dict[PeerId, float] = {}
        self._others = 0.0
        self._parts = members
        self._share = 1.0 / members
        self._used = self.want = self.level = 0.0
        self.rounds_left = ROUNDS_TOLD
        self.limit(per_minute, burst_s)
        self.level = min(self.portion, (now_s - since_s) * self.rate_per_s * self._share)

    def limit(self, per_minute: float, burst_s: float) -> None:
        """The limit as it now is. What is held beyond the new depth is lost."""
        self.per_minute = round(per_minute)
        self.rate_per_s = per_minute / 60.0
        self.depth = max(1.0, self.rate_per_s * burst_s)
        self.portion = self.depth / self._parts
        self.level = min(self.level, self.depth)
        self.rounds_left = ROUNDS_TOLD

    # --- spending -----------------------------------------------------------------------------------------------

    def take(self, amount: float, now_s: float) -> bool:
        """Spends, or notes that there was not enough. More than an account's part may be owed, once it is full."""
        self.fill(now_s)
        needed = amount if amount < self.portion else self.portion
        if self.level >= needed - _NEAR_NOTHING:
            self.level -= amount
            self._used += amount
            self.rounds_left = ROUNDS_TOLD
            return True
        self.want += amount
        self.rounds_left = ROUNDS_TOLD
        return False

    def charge(self, amount: float) -> None:
        """What was taken beyond what was reserved; it may be owed."""
        self.level -= amount
        self.rounds_left = ROUNDS_TOLD

    def give_back(self, amount: float) -> None:
        """What was reserved and not taken, as far as the bucket has room."""
        self.level += min(amount, max(0.0, self.depth - self.level - self._others))
        self.rounds_left = ROUNDS_TOLD

    def fill(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s <= 0.0:
            return
        self._at_s = now_s
        room = self.depth - self.level - self._others
        if room > 0.0:
            gained = self.rate_per_s * self._share * passed_s
            self.level += gained if gained < room else room

    def left(self) -> float:
        """Of the whole bucket, as far as it is known here."""
        known = self.level + self._others
        return 0.0 if known < 0.0 else known if known < self.depth else self.depth

    def wait_s(self, amount: float) -> float:
        """Until the whole bucket holds `amount`, if nobody else spends; what is owed must come first."""
        return max(0.0, min(amount, self.depth) - self.level - self._others) / self.rate_per_s

    # --- once a round -------------------------------------------------------------------------------------------

    def share_among(self, members: Collection[PeerId], joined: bool, now_s: float) -> None:
        """`members` are the peers that live; one of which nothing is known holds its equal part."""
        self.fill(now_s)
        self._parts = len(members) + 1
        self._share = 1.0 / self._parts if joined else 0.0
        self.portion = self.depth / self._parts
        self._told = {one: self._told.get(one, self.portion) for one in members}
        self._wants = {one: self._wants.get(one, 0.0) for one in members}
        self._given = {one: total for one, total in self._given.items() if one in self._told}
        self._others = sum(self._told.values())
        self.rounds_left = ROUNDS_TOLD

    def inherit(self, peer: PeerId, silent_since_s: float, now_s: float) -> None:
        """A peer died: the rate that was its own since then goes to those who live."""
        self.fill(now_s)
        if peer in self._told and self._share > 0.0:
            lost = self.rate_per_s * self._share * max(0.0, now_s - silent_since_s)
            self.level += min(lost / (self._parts - 1), max(0.0, self.depth - self.level))

    def hear(self, peer: PeerId, told: Told) -> None:
        gained = told.given - self._got.get(peer, 0.0)
        if gained > 0.0:
            self.level += gained
            self._got[peer] = told.given
            if len(self._got) > PEERS_REMEMBERED:
                del self._got[next(iter(self._got))]
            self.rounds_left = ROUNDS_TOLD
        if peer in self._told:
            self._others += told.level - self._told[peer]
            self._told[peer] = told.level
            self._wants[peer] = told.want

    def yield_to_told(self) -> None:
        """Holds no more than the others leave of the bucket: they held it before."""
        self.level = min(self.level, max(0.0, self.depth - self._others))

    def tell(self, now_s: float) -> Mapping[PeerId, Told]:
        """One round: gives what it can spare to who is short, and says how it stands."""
        self.fill(now_s)
        if self.depth - self.level - self._others > _NEAR_NOTHING:
            self.rounds_left = ROUNDS_TOLD
        self._help()
        told = {peer: Told(self.level, self.want, self._given.get(peer, 0.0)) for peer in self._told}
        self._used = self.want = 0.0
        self.rounds_left -= 1
        return told

    def leave(self, heir: PeerId) -> None:
        """Everything to one peer; the process ends."""
        if self.level > 0.0:
            self._give(heir, self.level)

    def _help(self) -> None:
        wanted = sum(self._wants.values())
        spare = self.level - self._used - self.want
        if wanted <= 0.0 or spare <= 0.0:
            return
        for peer, want in self._wants.items():
            if want > 0.0:
                self._give(peer, min(want, spare * want / wanted))
                self._wants[peer] = 0.0

    def _give(self, peer: PeerId, amount: float) -> None:
        self.level -= amount
        self._given[peer] = self._given.get(peer, 0.0) + amount
        self._told[peer] = self._told.get(peer, 0.0) + amount
        self._others += amount
        self.rounds_left = ROUNDS_TOLD
