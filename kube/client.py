"""The client: one aiohttp session, JSON in and out, and every failure one of `kube.errors`.

Never retries: callers know better (informers resume, the queue backs off). Never interprets objects. Every write asks
the fence first, so that a process that lost its leadership sends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import aiohttp
import orjson

from kube.api import EventKind, Page, Propagation, Subresource, WatchEvent
from kube.connection import Connection
from kube.errors import NotFound, Unreachable, error_from_answer, error_from_response
from kube.resources import Object, Resource

CONNECT_TIMEOUT_S: Final = 3.0
REQUEST_TIMEOUT_S: Final = 30.0
MAX_CONNECTIONS: Final = 128
"""Watches hold one each. A bound, since a burst of writes would otherwise open a TLS connection per write."""
_ENDED_AT: Final = 0.75
"""Of the time after which a silent stream is given up, the server ends each."""
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answered:
    """One finished request, for metrics. `code` is None when no answer came."""

    verb: str
    resource: Resource
    code: int | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Call:
    verb: str
    method: str
    resource: Resource
    namespace: str | None
    name: str | None
    subresource: str | None = None
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = _JSON

    @property
    def what(self) -> str:
        described = self.resource.describe(self.namespace, self.name)
        return f"{described} ({self.subresource})" if self.subresource else described

    def unreachable(self, found: str) -> Unreachable:
        return Unreachable(f"{self.verb} {self.what}: {found}. It will be tried again; check the API server.")


class Client:
    """Implements `kube.api.Api`. Use as an async context manager, in the loop that uses it."""

    def __init__(
        self,
        connection: Connection,
        *,
        fence: Callable[[], None] | None = None,
        observe: Callable[[Answered], None] | None = None,
    ) -> None:
        """`fence` is called before every write and raises to stop it; `observe` hears of every finished request."""
        self.writes = 0
        self._connection = connection
        self._fence, self._observe = fence, observe
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(
            limit=MAX_CONNECTIONS, ssl=self._connection.tls or True, keepalive_timeout=60.0, ttl_dns_cache=30
        )
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            # A connection given up in its TLS handshake is closed by the loop, in its next rounds.
            for _ in range(3):
                await asyncio.sleep(0)

    # --- reading ---------------------------------------------------------------------------------------------
    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self._send(_Call("get", "GET", resource, namespace, name))

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
    ) -> AsyncGenerator[Page, None]:
        params = {"limit": str(limit), **_selectors(label_selector, field_selector)}
        while True:
            body = await self._send(_Call("list", "GET", resource, namespace, None, params=params))
            items: list[Object] = body.get("items") or []
            for item in items:  # The server leaves these out of the items of a list.
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            meta = body.get("metadata") or {}
            yield Page(items, str(meta.get("resourceVersion", "")))
            if not meta.get("continue"):
                return
            params = {**params, "continue": meta["continue"]}

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Object]:
        found: list[Object] = []
        async for page in self.pages(resource, namespace, label_selector=label_selector, field_selector=field_selector):
            found.extend(page.items)
        return found

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        inactivity_timeout_s: float = 20.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            # The server ends the stream itself, and where others changed meanwhile, a bookmark 2 s before says how far
            # it was. A quiet stream that we cut would never get one, for otherwise they come once a minute, and its
            # version would grow too old.
            "timeoutSeconds": str(max(1, int(_ENDED_AT * inactivity_timeout_s))),
            **_selectors(label_selector, field_selector),
        }
        call = _Call("watch", "GET", resource, namespace, None, params=params)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=inactivity_timeout_s)
        async with self._answer(call, timeout) as response:
            await _raise_for_status(call, response)
            yield WatchEvent(EventKind.BOOKMARK, {}, resource_version)
            async with contextlib.aclosing(_lines(call, response)) as lines:
                async for line in lines:
                    yield _watch_event(call, line)

    # --- writing ---------------------------------------------------------------------------------------------
    async def apply(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        *,
        field_manager: str,
        force: bool = True,
        subresource: Subresource | None = None,
    ) -> Object:
        meta = obj["metadata"]
        return await self._write(
            _Call(
                "apply",
                "PATCH",
                resource,
                meta.get("namespace"),
                meta["name"],
                subresource,
                {"fieldManager": field_manager, "force": "true" if force else "false"},
                orjson.dumps(obj),
                "application/apply-patch+yaml",
            )
        )

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        namespace = obj["metadata"].get("namespace")
        return await self._write(_Call("create", "POST", resource, namespace, None, body=orjson.dumps(obj)))

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: Subresource | None = None,
    ) -> Object:
        kind, body = "application/merge-patch+json", orjson.dumps(patch)
        return await self._write(_Call("patch", "PATCH", resource, namespace, name, subresource, None, body, kind))

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        propagation: Propagation = "Background",
        uid: str | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {} if uid is None else {"uid": uid},
            **({} if grace_period_s is None else {"gracePeriodSeconds": grace_period_s}),
        }
        with contextlib.suppress(NotFound):
            await self._write(_Call("delete", "DELETE", resource, namespace, name, body=orjson.dumps(options)))

    # --- transport -------------------------------------------------------------------------------------------
    async def _write(self, call: _Call) -> Object:
        if self._fence is not None:
            self._fence()
        self.writes += 1
        return await self._send(call)

    async def _send(self, call: _Call) -> Object:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        async with self._answer(call, timeout) as response:
            await _raise_for_status(call, response)
            return _object(call, await response.read())

    @contextlib.asynccontextmanager
    async def _answer(
        self, call: _Call, timeout: aiohttp.ClientTimeout
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """The response to read; whatever breaks on the way, also while reading, is Unreachable."""
        assert self._session is not None, "the client is used inside its async context"
        started_s, code = time.monotonic(), None
        url = self._connection.server + call.resource.path(call.namespace, call.name, call.subresource)
        headers = {"Accept": _JSON, **self._connection.headers()}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        try:
            async with self._session.request(
                call.method, url, params=call.params, data=call.body, headers=headers, timeout=timeout
            ) as response:
                code = response.status
                try:
                    yield response
                finally:
                    _drop_unread(response)
        except (aiohttp.ClientError, OSError) as error:
            code = None
            raise call.unreachable(f"no answer ({str(error) or type(error).__name__})") from error
        finally:
            if self._observe is not None:
                self._observe(Answered(call.verb, call.resource, code, time.monotonic() - started_s))


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    found = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in found.items() if value}


def _drop_unread(response: aiohttp.ClientResponse) -> None:
    """A watch is never read to its end; a polite TLS goodbye would wait for a server that is in no hurry."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


async def _raise_for_status(call: _Call, response: aiohttp.ClientResponse) -> None:
    if response.status < 300:
        return
    raw, retry_after = await response.read(), response.headers.get("Retry-After")
    raise error_from_response(call.verb, call.what, response.status, raw, retry_after)


def _object(call: _Call, raw: bytes) -> Object:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise call.unreachable(f"the answer is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise call.unreachable("the answer is JSON but no object")
    return found


async def _lines(call: _Call, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Lines of any length (aiohttp's own `readline` refuses long ones). Silence ends them; half a line is an error."""
    pending: list[bytes] = []
    try:
        async for chunk in response.content.iter_any():
            first, *rest = chunk.split(b"\n")
            pending.append(first)
            for part in rest:
                yield b"".join(pending)
                pending = [part]
    except aiohttp.SocketTimeoutError:
        return
    if any(pending):
        raise call.unreachable("the stream ended in the middle of an event")


def _watch_event(call: _Call, line: bytes) -> WatchEvent:
    event = _object(call, line)
    try:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            raise error_from_answer(call.verb, call.what, int(obj.get("code") or 500), obj)
        return WatchEvent(EventKind(kind), obj, str(obj["metadata"]["resourceVersion"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise call.unreachable(f"a watch event could not be understood ({error!r})") from error
