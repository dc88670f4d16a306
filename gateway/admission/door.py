"""The one step between knowing what a request wants and forwarding it: limits, then the queue; and the bill after it.

`enter` decides at once where it can, without a task or a timer; only a request that must wait is awaited. Everything
that was reserved is settled once, whatever becomes of the request. Never looks at a prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from gateway.admission.account import Account
from gateway.admission.bandwidth import Meter, Pace, PacedReply, enter
from gateway.admission.classes import HEADER_PRIORITY, class_of
from gateway.admission.counts import Counts
from gateway.admission.gate import Gate, QueueBounds, Waiting
from gateway.admission.ledger import Book, Holdings, Ledger, Name
from gateway.admission.link import Link, Portion
from gateway.admission.pace import Patience
from gateway.admission.quota import Lack, cancel, check_size, refused, rendered, reserve, settle
from gateway.admission.slots import Slots
from gateway.admission.terms import FIRST_TOKEN_S, Priority
from gateway.catalog import Catalog, Service, ServiceKey, Tenant
from gateway.errors import Shed
from gateway.fleet import Fleet
from gateway.http1.messages import Reply, Request
from gateway.metrics import Metrics, gauge
from gateway.requests import Wanted
from gateway.service_state import ServiceState
from gateway.usage import BYTES_PER_TOKEN, Usage

HOLD_S = 0.6
"""For how long a request waits for what other gateways can spare: two or three rounds."""
HOLDS_MOST = 1000


class Grant:
    """One request's way through admission, and what it holds."""

    __slots__ = (
        "arrived",
        "choices",
        "deadline_s",
        "gate",
        "held",
        "lack",
        "now_s",
        "priority",
        "service",
        "since_s",
        "size",
        "slots",
        "tenant",
        "tokens",
        "waiting",
    )

    def __init__(
        self, tenant: Tenant, service: Service, priority: Priority, tokens: float, choices: int, size: int, gate: Gate
    ) -> None:
        self.tenant = tenant
        self.service = service
        self.priority = priority
        self.tokens = tokens
        self.choices = choices
        self.size = size
        self.gate = gate
        self.now_s = 0.0
        """When it was last decided on, by the loop's clock."""
        self.deadline_s = 0.0
        """Until when it may wait, by the loop's clock."""
        self.arrived: Callable[[], None] | None = None
        self.held: Holdings | None = None
        """Limits of which it holds a part."""
        self.lack: Lack | None = None
        self.waiting: Waiting | None = None
        self.slots: Slots | None = None
        self.since_s: float | None = None
        """Since when it is through, by the loop's clock."""

    @property
    def output_tokens(self) -> int:
        """That its answer may take, as it was reserved."""
        return int(self.tokens) - self.size // BYTES_PER_TOKEN

    @property
    def pending(self) -> bool:
        return self.since_s is None

    @property
    def due_s(self) -> float:
        """From its arrival to its first token."""
        target_s = self.service.ttft_target_s
        return (
            target_s
            if target_s is not None and self.priority is self.service.priority
            else FIRST_TOKEN_S[self.priority]
        )

    @property
    def standing(self) -> bytes:
        """Header lines for the worker: its class, and whose share it counts against."""
        return self.gate.standing(self.tenant, self.priority)

    def told(self) -> bytes:
        """Header lines for the client: its limits and what is left."""
        return rendered(self.held) if self.held is not None else b""


class Admission:
    def __init__(
        self, fleet: Fleet, metrics: Metrics, ledger: Ledger, bounds: QueueBounds, link: Link | None = None
    ) -> None:
        self.link = link
        """The gateway's own bandwidth; None where it is not scarce."""
        self._fleet = fleet
        self._ledger = ledger
        self._bounds = bounds
        self._counts = Counts(metrics.registry)
        self._loop = asyncio.get_running_loop()
        self._catalog = Catalog()
        self._known: tuple[set[ServiceKey], set[str]] = (set(), set())
        self._gates: dict[ServiceKey, Gate] = {}
        self._holding: set[asyncio.Future[None]] = set()
        ledger.on_change = self._wake
        ledger.on_unknown = self._take_up
        metrics.observe(self._gauges)

    # --- one request --------------------------------------------------------------------------------------------

    def enter(
        self,
        tenant: Tenant,
        state: ServiceState,
        wanted: Wanted,
        request: Request,
        deadline_s: float,
        arrived: Callable[[], None] | None,
    ) -> Grant:
        """Through, or `pending`: then `ready` must be awaited. `leave` follows in any case.

        `arrived` is told when the request is within the limits, whatever the queue makes of it.

        Raises:
            RateLimited, TooLarge, Shed, BadRequest: it is refused, and holds nothing.
        """
        service, terms = state.service, tenant.terms
        priority = class_of(service.priority, terms.max_priority, request.headers.get(HEADER_PRIORITY))
        size = len(request.body)
        gate = self._gates.get(service.key) or self._new_gate(state)
        tokens = size // BYTES_PER_TOKEN + wanted.output_tokens
        grant = Grant(tenant, service, priority, tokens, wanted.choices, size, gate)
        grant.arrived, grant.deadline_s = arrived, deadline_s
        grant.now_s = self._loop.time()
        if terms.limits is None or self._reserve(grant):
            self._to_gate(grant)
        return grant

    async def ready(self, grant: Grant) -> None:
        """Returns when the request is through.

        Raises:
            RateLimited, Shed: it is refused after all, and holds nothing.
        """
        if grant.lack is not None:
            await self._hold(grant)
            self._to_gate(grant)
        if grant.waiting is not None:
            await self._queue(grant, grant.waiting)

    async def paced(self, tenant: Tenant, body_bytes: int, deadline_s: float, reply: Reply) -> Reply:
        """The reply through which such a request is answered, once it may go on; for `link` or a Tenant with a limit.

        Raises:
            DeadlineExceeded: it may not, in time.
        """
        for pace in self._paces(tenant):
            await enter(pace, body_bytes, deadline_s, self._loop)
            reply = PacedReply(reply, pace, self._loop)
        return reply

    def _paces(self, tenant: Tenant) -> Iterable[Pace]:
        name, limits = tenant.name, tenant.terms.limits
        waits = self._counts.paces.labels(name)
        if limits is not None and limits.bytes_per_second is not None:
            yield Meter(lambda: self._bytes_of(name), self._loop, self._counts.limited_bytes.labels(name), waits)
        if self.link is not None:
            yield Portion(self.link, name, tenant.terms.weight, self._loop, waits)

    def _bytes_of(self, name: str) -> Account | None:
        """As the limit is now: it may have changed since an answer began."""
        tenant = self._catalog.tenants.get(name)
        if tenant is None or tenant.terms.limits is None:
            return None
        return self._ledger.holdings(name, tenant.terms.limits, self._loop.time()).bandwidth

    def leave(self, grant: Grant, usage: Usage | None) -> None:
        """It has ended, having taken so much; None: it goes elsewhere, and has not counted here."""
        now_s = self._loop.time()
        used = usage.prompt + usage.completion if usage is not None else 0
        tenant, terms = grant.tenant.name, grant.tenant.terms
        if grant.since_s is not None:
            grant.gate.leave(grant.slots, now_s - grant.since_s if used else None, now_s)
            grant.gate.queue.meter(grant.priority).correct(tenant, terms.weight, used - grant.tokens)
        if usage is None:
            self._cancel(grant)
        elif grant.held is not None:
            settle(grant.held, grant.tokens, used)
        if usage is not None and used:
            self._counts.bill(tenant, grant.service.key, grant.priority).settle(
                usage, grant.tokens if grant.held is not None else 0.0, terms.prices
            )

    def _cancel(self, grant: Grant) -> None:
        if grant.held is not None:
            cancel(grant.held, grant.tokens)
            grant.held = None

    # --- limits -------------------------------------------------------------------------------------------------

    def _reserve(self, grant: Grant) -> bool:
        """True when it is within the limits; False when it may soon be, with the help of others."""
        tenant, limits = grant.tenant.name, grant.tenant.terms.limits
        assert limits is not None
        now_s = grant.now_s
        held = self._ledger.holdings(tenant, limits, now_s)
        check_size(held, tenant, grant.tokens)
        lack = reserve(held, grant.tokens, now_s)
        if lack is None:
            grant.held = held
            return True
        if (lack.elsewhere or not self._ledger.joined) and self._has_peers() and len(self._holding) < HOLDS_MOST:
            grant.lack = lack
            return False
        self._counts.limited.labels(tenant, lack.limit).inc()
        raise refused(held, tenant, lack, grant.tokens)

    async def _hold(self, grant: Grant) -> None:
        """Waits for what others can spare."""
        until_s = self._loop.time() + HOLD_S
        tenant, limits = grant.tenant.name, grant.tenant.terms.limits
        assert limits is not None
        while True:
            await self._change(until_s)
            now_s = self._loop.time()
            held = self._ledger.holdings(tenant, limits, now_s)
            lack = reserve(held, grant.tokens, now_s)
            if lack is None:
                grant.held, grant.lack, grant.now_s = held, None, now_s
                return
            if now_s >= until_s:
                self._counts.limited.labels(tenant, lack.limit).inc()
                raise refused(held, tenant, lack, grant.tokens)

    async def _change(self, until_s: float) -> None:
        waiter = self._loop.create_future()
        self._holding.add(waiter)
        timer = self._loop.call_at(until_s, _done, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._holding.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._holding:
            _done(waiter)

    def _has_peers(self) -> bool:
        return self._ledger.members > 1 or not self._ledger.joined

    def _take_up(self, name: Name) -> None:
        """A peer speaks of a limit that nobody has asked for here yet."""
        if name.book is Book.SERVICE:
            namespace, _, service = name.key.partition("/")
            state = self._fleet.get(ServiceKey(namespace, service))
            if state is not None and state.service.key not in self._gates:
                self._new_gate(state)
            return
        tenant = self._catalog.tenants.get(name.key)
        if tenant is not None and tenant.terms.limits is not None:
            self._ledger.holdings(tenant.name, tenant.terms.limits, self._loop.time())

    # --- the queue ----------------------------------------------------------------------------------------------

    def _to_gate(self, grant: Grant) -> None:
        if grant.arrived is not None:
            grant.arrived()
        gate, tenant = grant.gate, grant.tenant
        weight = tenant.terms.weight
        if gate.pass_at_once(tenant.name, weight, grant.priority, grant.tokens):
            grant.slots = gate.slots
            grant.since_s = grant.now_s
            return
        try:
            grant.waiting = gate.wait(
                Waiting(tenant.name, weight, grant.priority, grant.tokens, grant.now_s, grant.deadline_s, grant.size)
            )
        except Shed:
            self._cancel(grant)
            raise

    async def _queue(self, grant: Grant, waiting: Waiting) -> None:
        try:
            grant.slots = await waiting.admitted
        except Shed:
            self._cancel(grant)
            raise
        except asyncio.CancelledError:
            grant.gate.abandon(waiting, self._loop.time())
            self._cancel(grant)
            raise
        grant.since_s = self._loop.time()
        key, name = grant.service.key, grant.priority.name
        self._counts.waits.labels(*key, name).observe(grant.since_s - waiting.came_s)

    def _new_gate(self, state: ServiceState) -> Gate:
        key = state.service.key

        def on_shed(priority: Priority, reason: str) -> None:
            self._counts.shed.labels(*key, priority.name, reason).inc()

        gate = self._gates[key] = Gate(str(key), self._bounds, on_shed)
        self._fit(gate, state)
        return gate

    def _fit(self, gate: Gate, state: ServiceState) -> None:
        """As wide as the workers that are usable now; what gateways share of it they agree on."""
        service = state.service
        slots = state.worker_slots(self._loop.time())
        gate.slots = self._ledger.service(str(service.key), slots) if slots else None
        gate.patience = Patience(service.priority, service.ttft_target_s, self._bounds.wait_s)

    # --- now and then -------------------------------------------------------------------------------------------

    def update(self, catalog: Catalog) -> None:
        """Takes over a new view, after the fleet has."""
        self._catalog = catalog
        services, tenants = set(catalog.services), set(catalog.tenants)
        for key in [key for key in self._gates if key not in services]:
            self._gates.pop(key).close()
        self._ledger.forget(
            [name for name, one in catalog.tenants.items() if one.terms.limits], [str(key) for key in services]
        )
        if (services, tenants) != self._known:
            self._known = (services, tenants)
            self._counts.forget(tenants, services)

    def tick(self) -> None:
        """Follows the workers, sheds what cannot be served in time."""
        now_s = self._loop.time()
        for key, gate in self._gates.items():
            state = self._fleet.get(key)
            if state is not None:
                self._fit(gate, state)
                gate.tick(now_s)

    def before_telling(self) -> None:
        """The demand for slots is what waits for them."""
        for gate in self._gates.values():
            if gate.slots is not None and gate.queue:
                gate.slots.lacks(len(gate.queue))

    def after_telling(self) -> None:
        """There may be slots that were not there before."""
        now_s = self._loop.time()
        for gate in self._gates.values():
            if gate.queue:
                gate.admit(now_s)

    def _gauges(self) -> Iterable[Metric]:
        queued = gauge("queued", "Requests in the fair queue.", ("namespace", "service", "class"))
        for key, gate in self._gates.items():
            for priority in Priority:
                queued.add_metric((*key, priority.name), gate.queue.waiting(priority))
        members = gauge("members", "Gateway processes that share the limits, this one included.")
        members.add_metric((), self._ledger.members)
        return (queued, members, *self._counts.totals())


def _done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
