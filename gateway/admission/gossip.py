"""Carries the ledger's messages between gateway processes, by UDP, several times a second.

A message may be lost, late or doubled: the ledger is made for that, so nothing here waits for an answer. Without a
secret nothing is sent and nothing is heard, and without peers a process agrees with itself. Never reads or writes
anything but the ledger's messages.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import socket
from collections.abc import Callable, Iterable

from gateway.admission.ledger import Ledger
from gateway.admission.wire import decode, encode

ROUND_S = 0.2
JITTER = 0.1
Address = tuple[str, int]


def secret_of(pepper: bytes) -> bytes:
    """What gateways sign with: made of the keyring's pepper, which they all have, and good for nothing else."""
    return hmac.digest(pepper, b"foretide gateway peers", "sha256") if pepper else b""


class Gossip(asyncio.DatagramProtocol):
    """Construct in the loop that runs it; `start`, `run` as a task, `stop`."""

    def __init__(
        self, ledger: Ledger, before: Callable[[], None], after: Callable[[], None], rng: random.Random
    ) -> None:
        self.secret = b""
        self.port = 0
        self.rejected = 0
        """Datagrams that were no messages."""
        self.unsent = 0
        self._ledger = ledger
        self._before = before
        self._after = after
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, host: str, port: int, sock: socket.socket | None = None) -> None:
        """Hears from now on.

        Raises:
            OSError: the port cannot be had.
        """
        if sock is None:
            transport, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        else:
            transport, _ = await self._loop.create_datagram_endpoint(lambda: self, sock=sock)
        self._transport = transport
        self.port = int(transport.get_extra_info("sockname")[1])

    def list_peers(self, addresses: Iterable[Address]) -> None:
        self._ledger.list_peers(addresses, self._loop.time())

    async def run(self) -> None:
        """Rounds for ever."""
        while True:
            self.round()
            await asyncio.sleep(ROUND_S * self._rng.uniform(1.0 - JITTER, 1.0 + JITTER))

    def round(self) -> None:
        now_s = self._loop.time()
        self._ledger.tick(now_s)
        self._before()
        told = self._ledger.tell(now_s)
        known = {self._ledger.peer(id_).address: id_ for id_ in told if id_ is not None}
        if self.secret:
            for address in self._ledger.addresses():
                self._send(encode(told[known.get(address)], self.secret), address)
        self._after()

    def stop(self) -> None:
        """The last words, and the end."""
        if self._transport is None or self._transport.is_closing():
            return
        if self.secret:
            for id_, message in self._ledger.leave(self._loop.time()).items():
                self._send(encode(message, self.secret), self._ledger.peer(id_).address)
        self._transport.close()

    def _send(self, datagrams: list[bytes], address: object) -> None:
        assert self._transport is not None
        assert isinstance(address, tuple)
        for data in datagrams:
            try:
                self._transport.sendto(data, address)
            except (OSError, ValueError):
                self.unsent += 1  # no way there, as to a machine that is gone: silence tells the rest

    # --- asyncio.DatagramProtocol -------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: Address) -> None:
        message = decode(data, self.secret) if self.secret else None
        if message is None:
            self.rejected += 1
            return
        self._ledger.hear(message, (addr[0], addr[1]), self._loop.time())

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there: what silence says too."""
