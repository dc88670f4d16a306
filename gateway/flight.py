"""One request on its way: what was asked, how it is to go, and what became of it.

Filled in as it goes by whoever learns something; decides nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.retries import Failure
from gateway.routing.keys import NO_KEYS, Keys
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.backend import Backend
    from gateway.relay import Relay
    from gateway.service_state import ServiceState
    from gateway.streams.moving import Moving
    from gateway.tracing import Trace


class Flight:
    __slots__ = (
        "asked_s",
        "backend",
        "begun",
        "body",
        "bytes_out",
        "deadline_s",
        "deaths",
        "decision",
        "events",
        "explain",
        "extra",
        "failure",
        "heard_s",
        "is_copy",
        "is_left",
        "is_pinned",
        "is_traced",
        "is_urgent",
        "keys",
        "moving",
        "notes",
        "path",
        "relays",
        "request_id",
        "retries",
        "revision",
        "started_s",
        "state",
        "status",
        "stream",
        "tenant",
        "told",
        "trace",
        "tried",
        "ttft_s",
        "usage",
        "wait_s",
    )

    def __init__(
        self, state: ServiceState, path: bytes, body: bytes, *, stream: bool, tenant: str, request_id: bytes,
        started_s: float, deadline_s: float, wait_s: float, extra: bytes = b"",
    ) -> None:  # fmt: skip
        self.state = state
        self.path = path
        self.body = body
        self.stream = stream
        self.tenant = tenant
        self.request_id = request_id
        self.started_s = started_s
        """By `time.perf_counter`."""
        self.deadline_s = deadline_s
        """By the loop's clock."""
        self.wait_s = wait_s
        """How long it may wait for an endpoint to become ready, all its waits together."""
        self.extra = extra
        """Rendered headers that travel with it."""
        self.notes = b""
        """Rendered headers that tell the client how its request was routed."""
        self.keys: Keys = NO_KEYS
        """What it belongs together with."""
        self.revision: bytes | None = None
        """That it belongs to while traffic is split."""
        self.explain = False
        """The client wants to know why its worker was chosen."""
        self.is_urgent = False
        """It cannot wait: a second attempt is made beside a late first one."""
        self.is_pinned = False
        """It is for one worker alone, lost or not."""
        self.is_left = False
        """A fallback takes it instead."""
        self.trace: Trace | None = None
        """Its spans, where it is sampled."""
        self.is_traced = False
        """The log does."""
        self.decision: str | None = None
        self.relays: list[Relay] = []
        """Its attempts under way: one, or two while one is hedged by another."""
        self.is_copy = False
        """Nobody waits for its answer, and nothing of it counts but for its revision."""
        self.told = b""
        """Rendered headers for the client, beside the worker's own."""
        self.events = 0
        """Of a stream, as many as the client has seen; where there is a journal, tokens, once it has ended."""
        self.moving: Moving | None = None
        """What lets its stream outlive a worker, where that is wanted."""
        self.backend: Backend | None = None
        self.asked_s: float | None = None
        """Since when a worker has it that has not failed, by `time.perf_counter`."""
        self.heard_s = 0.0
        """When its last worker spoke, by the loop's clock."""
        self.tried: tuple[Backend, ...] = ()
        self.begun = False
        """The client has seen a byte of the answer."""
        self.status = 0
        self.bytes_out = 0
        self.retries = 0
        self.deaths = 0
        """Workers that ended while they had it."""
        self.ttft_s: float | None = None
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        """Tokens of an answer that came to its end."""

    @property
    def movable(self) -> bool:
        """It is a stream that has begun and can go on elsewhere."""
        return self.begun and self.moving is not None and self.moving.possible

    def may_leave(self, now_s: float) -> bool:
        """A worker that is only suspected: a stream that waits for its first token and has not waited elsewhere, or
        that can go on and has not left a worker that hung lately."""
        if not self.begun:
            return self.stream and not self.retries
        return self.movable and self.moving is not None and now_s - self.moving.left_s >= self.moving.policy.rest_s
