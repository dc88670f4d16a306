"""Gateways that agree on limits over a network that delays, loses and reorders; all in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.admission.ledger import Ledger, Name
from gateway.admission.terms import Limits
from gateway.admission.wire import decode, encode

ROUND_S = 0.2
SECRET = b"s" * 32
TENANT = "acme"


@dataclass
class Process:
    """One gateway: its ledger, and what it admitted."""

    ledger: Ledger
    address: int
    alive: bool = True
    admitted: float = 0.0
    open: int = 0
    sent: int = 0


@dataclass
class World:
    """Events in order of time. `loss` and `delay_s` hold for every datagram."""

    limits: Limits
    seed: int = 0
    loss: float = 0.0
    delay_s: float = 0.05
    now_s: float = 1000.0
    processes: list[Process] = field(default_factory=list)
    most_open: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), what))

    def run(self, duration_s: float) -> None:
        end_s = self.now_s + duration_s
        while self._events and self._events[0][0] <= end_s:
            self.now_s, _, what = heapq.heappop(self._events)
            what()
        self.now_s = end_s

    # --- processes ----------------------------------------------------------------------------------------------

    def start(self) -> Process:
        number = len(self.processes)
        process = Process(Ledger(bytes([number]) * 8, self.now_s), number)
        process.ledger.on_unknown = lambda name: self._hold(process, name)
        self.processes.append(process)
        self._list()
        self.at(self.now_s + self.rng.uniform(0, ROUND_S), lambda: self._round(process))
        return process

    def _hold(self, process: Process, name: Name) -> None:
        process.ledger.holdings(name.key, self.limits, self.now_s)

    def kill(self, process: Process) -> None:
        process.alive = False
        self.at(self.now_s + 2.0, self._list)  # the cluster takes a moment to notice

    def quit(self, process: Process) -> None:
        """It ends as asked, with its last words."""
        for id_, message in process.ledger.leave(self.now_s).items():
            self._send(process, encode(message, SECRET), self._address_of(process, id_))
        self.kill(process)

    def _address_of(self, process: Process, id_: bytes) -> int:
        address = process.ledger.peer(id_).address
        assert isinstance(address, int)
        return address

    def _list(self) -> None:
        addresses = [one.address for one in self.processes if one.alive]
        for one in self.processes:
            one.ledger.list_peers([other for other in addresses if other != one.address], self.now_s)

    def _round(self, process: Process) -> None:
        if not process.alive:
            return
        ledger = process.ledger
        ledger.tick(self.now_s)
        told = ledger.tell(self.now_s)
        known = {self._address_of(process, id_): id_ for id_ in told if id_ is not None}
        for address in ledger.addresses():
            assert isinstance(address, int)
            self._send(process, encode(told[known.get(address)], SECRET), address)
        self.at(self.now_s + ROUND_S * self.rng.uniform(0.9, 1.1), lambda: self._round(process))

    def _send(self, sender: Process, datagrams: list[bytes], address: int) -> None:
        receiver = self.processes[address]
        for data in datagrams:
            sender.sent += 1
            if self.rng.random() >= self.loss:
                arrives_s = self.now_s + self.rng.uniform(0.0, 2 * self.delay_s)
                self.at(arrives_s, lambda data=data: self._arrive(receiver, data, sender.address))  # type: ignore[misc]

    def _arrive(self, receiver: Process, data: bytes, address: int) -> None:
        message = decode(data, SECRET)
        assert message is not None
        if receiver.alive:
            receiver.ledger.hear(message, address, self.now_s)

    # --- demand -------------------------------------------------------------------------------------------------

    def ask(self, process: Process, amount: float = 1.0) -> bool:
        """One request at one process, against its minute limits."""
        held = process.ledger.holdings(TENANT, self.limits, self.now_s)
        account = held.requests or held.tokens
        assert account is not None
        if not account.take(amount, self.now_s):
            return False
        process.admitted += amount
        return True

    def open(self, process: Process, lasts_s: float) -> bool:
        """One request that holds a slot."""
        slots = process.ledger.holdings(TENANT, self.limits, self.now_s).open
        assert slots is not None
        if not slots.take():
            return False
        process.open += 1
        self.most_open = max(self.most_open, sum(one.open for one in self.processes if one.alive))

        def close() -> None:
            process.open -= 1
            slots.give_back()

        self.at(self.now_s + lasts_s, close)
        return True

    def demand(self, process: Process, per_s: float, once: Callable[[Process], object]) -> None:
        """Asks again and again, while the process lives."""

        def again() -> None:
            if process.alive:
                once(process)
                self.at(self.now_s + self.rng.expovariate(per_s), again)

        self.at(self.now_s + self.rng.expovariate(per_s), again)

    @property
    def admitted(self) -> float:
        return sum(one.admitted for one in self.processes)
