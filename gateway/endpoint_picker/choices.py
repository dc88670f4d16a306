"""What the protocol's side asks for, and in which words it is told. No gRPC here, and nothing of Envoy's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.catalog import Tenant
from gateway.http1.messages import Answer, Request


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes, and what goes with it."""

    address: str
    """host:port"""
    revision: str
    headers: Sequence[tuple[bytes, bytes]]
    """For the worker: how the request stands among others. They replace whatever the client sent under these names."""


class Course(Protocol):
    """One request on its way past us: what the proxy sees of its answer is told here, `end` always and once."""

    @property
    def destination(self) -> Destination: ...

    def answered(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """The worker's head."""

    def data(self, piece: bytes) -> None:
        """A piece of the worker's body."""

    def end(self, *, whole: bool) -> None:
        """The answer is over; `whole` is false where the proxy broke it off or never got one."""


class Choices(Protocol):
    """Who may ask, and where to send them."""

    def admit(self, request: Request) -> Tenant | Answer:
        """By the headers alone: the tenant, or a refusal or another answer that needs no worker."""

    async def choose(self, request: Request, tenant: Tenant) -> Course | Answer:
        """With the body: waits for the request's turn and for a worker. Cancelling it gives the turn back."""
