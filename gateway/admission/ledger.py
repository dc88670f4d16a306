"""All that one gateway process holds of limits, and whom it agrees with: the peers that it hears.

    new → asks        when every listed peer was heard, or has been silent for `SILENT_S`
    asks → joined     when all whom it hears have counted it in; it is settled after another `SILENT_S`
    heard → lost      after `SILENT_S` of silence, at once when it says that it leaves or comes back new

Until it has joined a process holds nothing, so that a new one opens nothing; where none of its peers is settled, all
are new, and begin with full accounts. Two halves that cannot hear each other for longer than `SILENT_S` each take the
other for dead, and each gives the whole. Pure: `now_s` is an argument; `gossip` carries the messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from gateway.admission.account import Account, PeerId, Told
from gateway.admission.slots import Claim, Slots
from gateway.admission.terms import Limits

SILENT_S: Final = 3.0
ENTRIES_HEARD: Final = 20_000
"""Of one peer, at most; what it says beyond is not kept."""
LEFT_REMEMBERED: Final = 64
NOBODY: Final = bytes(8)
LONG_AGO_S: Final = float("-inf")


class Book(IntEnum):
    """What an entry is about; wire format."""

    REQUESTS = 1
    TOKENS = 2
    OPEN = 3
    SERVICE = 4
    BYTES = 5


class Name(NamedTuple):
    """One limit: of which kind, and of which Tenant or service."""

    book: Book
    key: str


@dataclass(frozen=True, slots=True)
class Message:
    """One datagram. Every part of it may come late, twice or never."""

    sender: PeerId
    seq: int
    member: bool
    """It asks to be counted, or is."""
    settled: bool
    leaving: bool
    echo_of: PeerId
    """Which process the echo is meant for; the address may have changed hands."""
    echo_seq: int
    """The last round of which the sender heard everything; 0 for none."""
    entries: tuple[tuple[Name, Told | Claim], ...] = ()
    part: int = 0
    parts: int = 1
    """Of the round's datagrams to this peer, which one this is."""


@dataclass(slots=True)
class Peer:
    id: PeerId
    address: object
    heard_s: float
    seq: int = 0
    """Its newest round of which anything was heard."""
    whole_seq: int = 0
    """And the newest of which everything was."""
    member: bool = False
    settled: bool = False
    echo_seq: int = 0
    """The newest of our rounds that it has heard in whole."""
    _parts: set[int] = field(default_factory=set)

    def count(self, message: Message) -> None:
        if message.seq > self.seq:
            self.seq, self._parts = message.seq, set()
        self._parts.add(message.part)
        if len(self._parts) == message.parts:
            self.whole_seq = message.seq


@dataclass(slots=True)
class Holdings:
    """What one Tenant's limits leave here; None where there is no limit."""

    limits: Limits
    requests: Account | None = None
    tokens: Account | None = None
    open: Slots | None = None
    bandwidth: Account | None = None


def per_minute(per_second: int | None) -> int | None:
    return None if per_second is None else 60 * per_second


@dataclass(slots=True)
class _Listed:
    since_s: float
    peer: PeerId | None = None


@dataclass(slots=True)
class Ledger:
    me: PeerId
    started_s: float
    joined: bool = False
    seq: int = 0
    on_change: Callable[[], None] = lambda: None
    """Told when credit may have come."""
    on_unknown: Callable[[Name], None] = lambda name: None
    """Told when a peer speaks of a limit that nobody has asked for here: what is held of it here may help there."""
    _asked_seq: int | None = None
    _joined_s: float = 0.0
    _born_s: float = 0.0
    """Since when it fills its accounts."""
    _peers: dict[PeerId, Peer] = field(default_factory=dict)
    _listed: dict[object, _Listed] | None = None
    _accounts: dict[Name, Account] = field(default_factory=dict)
    _slots: dict[Name, Slots] = field(default_factory=dict)
    _holdings: dict[str, Holdings] = field(default_factory=dict)
    _left: deque[PeerId] = field(default_factory=lambda: deque(maxlen=LEFT_REMEMBERED))
    _heard: dict[PeerId, dict[Name, Told | Claim]] = field(default_factory=dict)

    # --- what is limited ----------------------------------------------------------------------------------------

    def holdings(self, tenant: str, limits: Limits, now_s: float) -> Holdings:
        """What these limits leave here; the same object until they change."""
        held = self._holdings.get(tenant)
        if held is not None and held.limits is limits:
            return held
        return self._relimit(tenant, limits, now_s)

    def service(self, key: str, limit: int) -> Slots:
        """The slots of a service's workers."""
        slots = self._slots_of(Name(Book.SERVICE, key), limit)
        assert slots is not None
        return slots

    def forget(self, tenants: Iterable[str], services: Iterable[str]) -> None:
        """Keeps what these have, and nothing else."""
        kept_tenants, kept_services = set(tenants), set(services)
        for name in [*self._accounts, *self._slots]:
            kept = kept_services if name.book is Book.SERVICE else kept_tenants
            if name.key not in kept:
                self._accounts.pop(name, None)
                self._slots.pop(name, None)
                self._holdings.pop(name.key, None)

    def _relimit(self, tenant: str, limits: Limits, now_s: float) -> Holdings:
        held = Holdings(
            limits,
            self._account_of(Name(Book.REQUESTS, tenant), limits.requests_per_minute, limits.burst_s, now_s),
            self._account_of(Name(Book.TOKENS, tenant), limits.tokens_per_minute, limits.burst_s, now_s),
            self._slots_of(Name(Book.OPEN, tenant), limits.concurrency),
            self._account_of(Name(Book.BYTES, tenant), per_minute(limits.bytes_per_second), limits.burst_s, now_s),
        )
        self._holdings[tenant] = held
        return held

    def _account_of(self, name: Name, per_minute: int | None, burst_s: float, now_s: float) -> Account | None:
        if per_minute is None:
            self._accounts.pop(name, None)
            return None
        account = self._accounts.get(name)
        if account is not None:
            account.fill(now_s)
            account.limit(per_minute, burst_s)
            return account
        parts = self.members
        account = Account(per_minute, burst_s, now_s, members=parts, since_s=self._born_s if self.joined else now_s)
        account.share_among(self._members(), self.joined, now_s)
        for peer, entry in self._heard_of(name):
            if isinstance(entry, Told):
                account.hear(peer, entry)
        account.yield_to_told()
        self._accounts[name] = account
        return account

    def _slots_of(self, name: Name, limit: int | None) -> Slots | None:
        if limit is None:
            self._slots.pop(name, None)
            return None
        slots = self._slots.get(name)
        if slots is None:
            slots = self._slots[name] = Slots(limit, self.me, self._members(), joined=self.joined)
            for peer, entry in self._heard_of(name):
                if isinstance(entry, Claim):
                    slots.hear(peer, entry)
            slots.yield_to_told()
        elif slots.limit != limit:
            slots.relimit(limit, alone=self.joined and self.members == 1)
        return slots

    def _heard_of(self, name: Name) -> Iterator[tuple[PeerId, Told | Claim]]:
        for peer, entries in self._heard.items():
            if name in entries:
                yield peer, entries[name]

    # --- whom it agrees with ------------------------------------------------------------------------------------

    @property
    def members(self) -> int:
        """Processes that share the limits, this one included."""
        return len(self._members()) + 1

    def _members(self) -> list[PeerId]:
        return [one.id for one in self._peers.values() if one.member]

    def list_peers(self, addresses: Iterable[object], now_s: float) -> None:
        """Where processes may be, as far as is known from elsewhere; an own address among them does no harm."""
        known = self._listed or {}
        self._listed = {one: known.get(one, _Listed(now_s)) for one in addresses}

    def addresses(self) -> set[object]:
        """Where to tell: the listed ones, and whoever was heard from elsewhere."""
        return {*(self._listed or ()), *(one.address for one in self._peers.values())}

    def unlist(self, address: object) -> None:
        """It was our own."""
        if self._listed is not None:
            self._listed.pop(address, None)

    def hear(self, message: Message, address: object, now_s: float) -> None:
        if message.sender == self.me:
            self.unlist(address)
            return
        peer = self._peers.get(message.sender)
        if message.leaving:
            self._keep_entries(message)
            self._left.append(message.sender)
            self._lose([peer] if peer else [], now_s)
            return
        if message.sender in self._left:
            return  # late words of one that is gone
        if peer is None:
            peer = self._meet(message, address, now_s)
        peer.heard_s, peer.address = now_s, address
        peer.settled = peer.settled or message.settled
        if message.echo_of == self.me:
            peer.echo_seq = max(peer.echo_seq, message.echo_seq)
        if message.seq < peer.seq:
            return  # it has said something newer already
        peer.count(message)
        if message.member and not peer.member:
            peer.member = True
            self._share(now_s)
        self._keep_entries(message)
        self.on_change()

    def tick(self, now_s: float) -> None:
        """Loses who has been silent, and joins when it is time."""
        self._lose([one for one in self._peers.values() if now_s - one.heard_s > SILENT_S], now_s)
        if self.joined or self._listed is None:
            return
        if self._asked_seq is None and all(self._known(one, now_s) for one in self._listed):
            self._asked_seq = self.seq + 1
        if self._asked_seq is not None and all(one.echo_seq >= self._asked_seq for one in self._peers.values()):
            self._join(now_s)

    def _known(self, address: object, now_s: float) -> bool:
        """Somebody was heard from there, or nobody is there."""
        if any(one.address == address for one in self._peers.values()):
            return True
        return now_s - max((self._listed or {})[address].since_s, self.started_s) > SILENT_S

    def _join(self, now_s: float) -> None:
        self.joined, self._joined_s = True, now_s
        self._born_s = now_s if any(one.settled for one in self._peers.values()) else LONG_AGO_S
        for account in self._accounts.values():
            account.share_among(self._peers, True, now_s)
        if self._born_s == LONG_AGO_S:
            # Nobody was here before, so nobody holds anything: begin anew, full.
            self._accounts, self._holdings = {}, {}
            for slots in self._slots.values():
                slots.begin(self.me)
        self.on_change()

    def _meet(self, message: Message, address: object, now_s: float) -> Peer:
        self._lose([one for one in self._peers.values() if one.address == address], now_s)
        peer = self._peers[message.sender] = Peer(message.sender, address, now_s)
        self._heard[peer.id] = {}
        return peer

    def _lose(self, peers: list[Peer], now_s: float) -> None:
        for peer in peers:
            for account in self._accounts.values():
                account.inherit(peer.id, peer.heard_s, now_s)
            del self._peers[peer.id], self._heard[peer.id]
            self._share(now_s)
            self.on_change()

    def _share(self, now_s: float) -> None:
        for account in self._accounts.values():
            account.share_among(self._members(), self.joined, now_s)
        for slots in self._slots.values():
            slots.share_among(self.me, self._members())

    def _keep_entries(self, message: Message) -> None:
        heard = self._heard.get(message.sender)
        for name, entry in message.entries:
            if heard is not None and (name in heard or len(heard) < ENTRIES_HEARD):
                heard[name] = entry
            if name not in self._accounts and name not in self._slots:
                self.on_unknown(name)
            if isinstance(entry, Told):
                if (account := self._accounts.get(name)) is not None:
                    account.hear(message.sender, entry)
            elif (slots := self._slots.get(name)) is not None:
                slots.hear(message.sender, entry)

    # --- telling ------------------------------------------------------------------------------------------------

    def tell(self, now_s: float) -> Mapping[PeerId | None, Message]:
        """One round: what to send to each peer, and, under None, to addresses of which nobody was heard."""
        self.seq += 1
        heard_seq = min((one.echo_seq for one in self._peers.values() if one.member), default=self.seq)
        entries: dict[PeerId, list[tuple[Name, Told | Claim]]] = {one: [] for one in self._peers}
        for name, account in self._accounts.items():
            if account.rounds_left > 0:
                for peer, told in account.tell(now_s).items():
                    entries[peer].append((name, told))
        for name, slots in self._slots.items():
            if slots.rounds_left > 0:
                claim = slots.tell(self.me, self.seq, heard_seq if self.joined else -1)
                for one in entries.values():
                    one.append((name, claim))
        self.on_change()
        messages: dict[PeerId | None, Message] = {
            peer: self._message(self._peers[peer], now_s, tuple(those)) for peer, those in entries.items()
        }
        return {**messages, None: Message(self.me, self.seq, False, False, False, NOBODY, 0)}

    def leave(self, now_s: float) -> Mapping[PeerId, Message]:
        """The last messages: this process is gone, and one of the others has all its credit."""
        self.seq += 1
        members = self._members()
        heir = min(members, default=NOBODY)
        entries: list[tuple[Name, Told | Claim]] = []
        for name, account in self._accounts.items() if members else ():
            account.leave(heir)
            entries.append((name, account.tell(now_s)[heir]))
        return {
            one.id: self._message(one, now_s, tuple(entries) if one.id == heir else (), leaving=True)
            for one in self._peers.values()
        }

    def peer(self, id_: PeerId) -> Peer:
        return self._peers[id_]

    def _message(
        self, peer: Peer, now_s: float, entries: tuple[tuple[Name, Told | Claim], ...], *, leaving: bool = False
    ) -> Message:
        settled = self.joined and now_s - self._joined_s > SILENT_S
        member = self._asked_seq is not None
        return Message(self.me, self.seq, member, settled, leaving, peer.id, peer.whole_seq, entries)
