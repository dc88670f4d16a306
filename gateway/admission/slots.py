"""A limit on what is open at the same time, as one process holds it: its claim, and the claims that it was told.

A process opens no more than it holds. It claims more only from what nobody claims, and holds it when every peer has
heard the claim and what they claim leaves room: of two that claim the same at least one sees the other before it
holds anything. It gives up what it does not need when others are short. So what is held stays within the limit
whatever is late or lost, and a dead process's claim is free again. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.admission.account import ROUNDS_TOLD, PeerId

PATIENCE_ROUNDS: Final = 10
"""For how long the first of those who claim the same waits for the others to give way."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process tells of its slots."""

    claimed: int
    demand: int
    """What it holds open, and what it had to refuse or to keep waiting."""


class Slots:
    __slots__ = (
        "_claimed_seq",
        "_default",
        "_rounds_contested",
        "_told",
        "claimed",
        "held",
        "limit",
        "open",
        "rounds_left",
        "short",
    )

    def __init__(self, limit: int, me: PeerId, members: Collection[PeerId] = (), *, joined: bool = True) -> None:
        self.limit = limit
        self.open = 0
        self.short = 0
        """Refused or waiting since the last telling."""
        self.rounds_left = ROUNDS_TOLD
        self._told: dict[PeerId, Claim] = {}
        self._default: dict[PeerId, int] = {}
        self._claimed_seq = self._rounds_contested = 0
        self.share_among(me, members)
        self.claimed = self.held = self._default[me] if joined else 0

    # --- the hot path -------------------------------------------------------------------------------------------

    def take(self) -> bool:
        self.rounds_left = ROUNDS_TOLD
        if self.open < self.held:
            self.open += 1
            return True
        self.short += 1
        return False

    def lacks(self, count: int) -> None:
        """So many wait for one."""
        self.short = count
        self.rounds_left = ROUNDS_TOLD

    def give_back(self) -> None:
        self.open -= 1

    @property
    def free(self) -> int:
        return self.held - self.open

    def relimit(self, limit: int, *, alone: bool) -> None:
        """The limit as it now is. Less holds at once; more is claimed like everything else."""
        self.limit = limit
        self.held = limit if alone else min(self.held, limit)
        self.claimed = self.held
        self.rounds_left = ROUNDS_TOLD

    # --- once a round -------------------------------------------------------------------------------------------

    def share_among(self, me: PeerId, members: Collection[PeerId]) -> None:
        """`members` are the peers that live; one of which nothing is known claims its equal part."""
        ids = sorted((me, *members))
        parts = fair_shares(self.limit, [0] * len(ids))
        self._default = dict(zip(ids, parts, strict=True))
        self._told = {one: self._told.get(one, Claim(self._default[one], 0)) for one in members}
        self.rounds_left = ROUNDS_TOLD

    def yield_to_told(self) -> None:
        """Claims no more than the others leave: they claimed it before."""
        self.held = max(0, min(self.held, self.limit - sum(one.claimed for one in self._told.values())))
        self.claimed = self.held

    def begin(self, me: PeerId) -> None:
        """Everybody begins anew, with equal claims."""
        self._told = {one: Claim(self._default[one], 0) for one in self._told}
        self.claimed = self.held = self._default[me]
        self.rounds_left = ROUNDS_TOLD

    def hear(self, peer: PeerId, claim: Claim) -> None:
        if peer in self._told:
            self._told[peer] = claim

    def tell(self, me: PeerId, seq: int, heard_seq: int) -> Claim:
        """One round: `seq` is its number, `heard_seq` the last one that every peer has heard."""
        demand = self.open + self.short
        self._settle(me, heard_seq)
        ids = sorted(self._default)
        demands = [demand if one == me else self._told[one].demand for one in ids]
        self._move(fair_shares(self.limit, demands)[ids.index(me)], seq)
        self.short = 0
        self.rounds_left -= 1
        return Claim(self.claimed, demand)

    def _settle(self, me: PeerId, heard_seq: int) -> None:
        """A claim that everybody has heard is held, unless others claimed the same: then the first of them keeps it."""
        if self.claimed == self.held or heard_seq < self._claimed_seq:
            return
        over = self.claimed + sum(one.claimed for one in self._told.values()) - self.limit
        if over <= 0:
            self.held = self.claimed
        elif me != min(self._default) or self._rounds_contested >= PATIENCE_ROUNDS:
            self.claimed = self.held = max(self.held, self.claimed - over)
            self._rounds_contested = 0
        else:
            self._rounds_contested += 1
        self.rounds_left = ROUNDS_TOLD

    def _move(self, target: int, seq: int) -> None:
        """Towards what is due: gives up at once, claims from what nobody claims."""
        if target < self.held:
            self.claimed = self.held = max(self.open, target)
            self.rounds_left = ROUNDS_TOLD
        elif target > self.held == self.claimed:
            left = self.limit - self.claimed - sum(one.claimed for one in self._told.values())
            self.claimed = min(target, self.claimed + max(0, left))
            self._claimed_seq, self._rounds_contested = seq, 0
            self.rounds_left = ROUNDS_TOLD


def fair_shares(limit: int, demands: Sequence[int]) -> list[int]:
    """Everybody what it asks for where that fits, and the spare in equal parts; else max-min fair."""
    if sum(demands) <= limit:
        spare = limit - sum(demands)
        return [demand + _part(spare, len(demands), index) for index, demand in enumerate(demands)]
    shares = [0] * len(demands)
    left = limit
    unmet = sorted(range(len(demands)), key=lambda index: demands[index])
    for place, index in enumerate(unmet):
        shares[index] = min(demands[index], -(-left // (len(unmet) - place)))
        left -= shares[index]
    return shares


def _part(whole: int, parts: int, index: int) -> int:
    """Of `whole` in `parts` integers that add up, the one of this index."""
    return max(0, whole // parts + (index < whole % parts)) if whole > 0 else 0
