"""The way from the operator to the API server: every request is read, named, counted, and may be met by a fault.

Speaks plain HTTP to the operator and TLS, under the operator's own account, to the API server. Watches are passed on
event by event. It changes nothing unless the fault that is set says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from kube.connection import Connection
from kube.transports import Transports

Event = dict[str, Any]
"""One line of a watch: `type` and `object`."""
_WRITES: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_APPLY: Final = "application/apply-patch+yaml"
_NOT_PASSED: Final = frozenset({"host", "accept-encoding", "connection", "content-length", "transfer-encoding"})
_NO_EFFECT: Final = (
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "tokenreviews.authentication.k8s.io",
    "subjectaccessreviews.authorization.k8s.io",
)
"""Written all the time, or not kept: telling, leading and asking, not doing."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, named as RBAC names it."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str
    body: bytes
    resource: str
    namespace: str | None
    name: str | None
    subresource: str | None

    @property
    def verb(self) -> str:
        """get, list, watch; create, update, patch, apply, delete."""
        if self.method == "GET":
            return "get" if self.name else "watch" if self.query.get("watch") == "true" else "list"
        return "apply" if self.content_type == _APPLY else _WRITES[self.method]

    @property
    def is_write(self) -> bool:
        """Whether it would change what stands."""
        return self.method in _WRITES and self.resource not in _NO_EFFECT

    @property
    def written_name(self) -> str | None:
        """The object's name, which for a create is in its body."""
        if self.name or self.method != "POST":
            return self.name
        return str(json.loads(self.body).get("metadata", {}).get("name"))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response. Without a status it never comes: the connection is cut."""

    status: int | None
    body: bytes = b""
    retry_after_s: int | None = None

    @property
    def is_success(self) -> bool:
        return self.status is not None and self.status < 300

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


CUT: Final = Answer(None)
Forward = Callable[[Call], Awaitable[Answer]]


class Fault:
    """What happens to requests while it is set. This one does nothing; faults replace what they need."""

    stage: str = ""
    """Of the story, told by whoever tells it."""
    awaited: str | None = None
    """The stage in which it should come about."""
    met = False
    """Whether it did."""

    async def meet(self, call: Call, forward: Forward) -> Answer:
        """A request with one answer."""
        return await forward(call)

    async def open(self, call: Call) -> Call | Answer:
        """A watch before it is opened: as it is passed on, or the answer instead."""
        return call

    async def event(self, call: Call, event: Event) -> Event | None:
        """One event of an open watch; None drops it, waiting holds it and all after it. Raises Severed to end it."""
        return event


class Severed(Exception):
    """The stream breaks off here."""


@dataclass(frozen=True, slots=True)
class Met:
    """A write and what became of it."""

    call: Call
    answer: Answer


class Proxy:
    """`async with`: listens on a free port of the loopback address; `url` is where."""

    def __init__(self, upstream: Connection) -> None:
        self.fault = Fault()
        self.writes: list[Met] = []
        """Every write of the operator so far, in the order of its answers."""
        self.reads = 0
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None
        self._transports = Transports()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._upstream.tls or True)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), middlewares=(self._transports,)
        )
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()
        self._transports.abort()
        await asyncio.sleep(0)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = _named(request, await request.read())
        if call.verb == "watch":
            return await self._watch(request, call)
        self.reads += call.method == "GET"
        answer = await self.fault.meet(call, lambda passed: self._forward(request, passed))
        if call.is_write:
            self.writes.append(Met(call, answer))
        if answer.status is None:
            return _cut(request)
        headers = {} if answer.retry_after_s is None else {"Retry-After": str(answer.retry_after_s)}
        return web.Response(status=answer.status, body=answer.body, content_type="application/json", headers=headers)

    async def _forward(self, request: web.Request, call: Call) -> Answer:
        """A write that has been sent is carried to its end, whatever becomes of the one who sent it."""
        return await asyncio.shield(asyncio.ensure_future(self._sent(request, call)))

    async def _sent(self, request: web.Request, call: Call) -> Answer:
        try:
            async with self._opened(request, call) as response:
                return Answer(response.status, await response.read())
        except aiohttp.ClientError:
            return CUT

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        passed = await self.fault.open(call)
        if isinstance(passed, Answer):
            return _cut(request) if passed.status is None else web.json_response(body=passed.body, status=passed.status)
        async with self._opened(request, passed) as upstream:
            response = web.StreamResponse(status=upstream.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            # The operator's end of a watch is no event here; aiohttp cancels this handler with it.
            try:
                await self._stream(passed, upstream, response)
            except (aiohttp.ClientError, ConnectionError, Severed):
                if request.transport is not None:
                    request.transport.abort()
            return response

    async def _stream(self, call: Call, upstream: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        async for line in _lines(upstream):
            if upstream.status >= 300:
                await response.write(line)
                continue
            event = await self.fault.event(call, json.loads(line))
            if event is not None:
                await response.write(json.dumps(event).encode() + b"\n")

    def _opened(self, request: web.Request, call: Call) -> Any:
        assert self._session is not None
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _NOT_PASSED}
        return self._session.request(
            call.method,
            self._upstream.server + call.path,
            params=dict(call.query),
            data=call.body or None,
            headers=headers | self._upstream.headers(),
        )


async def _lines(response: aiohttp.ClientResponse) -> Any:
    pending = b""
    async for chunk in response.content.iter_any():
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            yield line


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _named(request: web.Request, body: bytes) -> Call:
    parts = request.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    namespace = None
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, None, None, None)[:3]
    return Call(
        request.method,
        request.path,
        dict(request.query),
        request.headers.get("Content-Type", ""),
        body,
        f"{plural}.{group}" if group else str(plural),
        namespace,
        name,
        subresource,
    )


def refused(status: int, reason: str, retry_after_s: int | None = None) -> Answer:
    """An answer as the API server words it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
    return Answer(status, json.dumps(body | {"message": f"injected {status}"}).encode(), retry_after_s)


def at_version(call: Call, version: str) -> Call:
    """The list or watch as a server would answer that has seen nothing after `version`."""
    query = {**call.query, "resourceVersion": version}
    if call.verb == "list" and "continue" not in call.query:
        query["resourceVersionMatch"] = "Exact"
    if "continue" in call.query:
        query.pop("resourceVersion")
    return replace(call, query=query)
