"""Kopf, reduced to what it does well: a second pair of eyes on our kinds. Its handler marks keys and does no more.

Kopf gets a thread and a loop of its own: at its end it cancels every task of its loop, and its end must not pass
unnoticed. Whatever ends it is reported through `on_end`. It writes nothing: no finalizer, no annotation, no Event. Each
setting that differs from Kopf's default has its reason beside it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import kopf

from controllers.runtime.interface import Key
from kube.backoff import Backoff
from kube.connection import Connection
from kube.resources import Resource
from kube.transports import Transports

log = logging.getLogger(__name__)

ATTEMPTS: Final = 150
"""About five minutes: longer than any restart of an API server, but a 403 that stays must end in a visible exit."""

NO_PEER: Final[Any] = "foretide"
"""A name for Kopf's peering, which is off. Left out, Kopf asks for the user's name, and a numeric user has none."""


class Feed:
    """Runs Kopf from `start` until `stop`. `mark(key, resource_version)` and `on_end(why)` are called in its thread."""

    def __init__(
        self,
        connection: Connection,
        resources: Sequence[Resource],
        *,
        mark: Callable[[Key, str], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._transports = Transports()
        self._registry = make_registry(connection, resources, mark, self._transports)
        self._on_end = on_end
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_flag: asyncio.Event | None = None

    def start(self) -> None:
        """Begin to mark."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; returns at once."""
        if self._loop is not None and self._stop_flag is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop_flag.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
        except BaseException as error:
            self._on_end(f"Kopf ended: {type(error).__name__}: {error}")
            raise SystemExit from error
        self._on_end("Kopf ended without an error")

    async def _operate(self) -> None:
        self._loop, self._stop_flag = asyncio.get_running_loop(), asyncio.Event()
        await kopf.operator(
            registry=self._registry,
            settings=make_settings(),
            clusterwide=True,
            standalone=True,
            identity=NO_PEER,
            stop_flag=self._stop_flag,
        )
        self._transports.abort()


def make_registry(
    connection: Connection, resources: Sequence[Resource], mark: Callable[[Key, str], None], transports: Transports
) -> kopf.OperatorRegistry:
    """The handlers: one login, one mark per kind."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(
            server=connection.server,
            default_namespace=connection.namespace,
            aiohttp_session=aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=connection.tls or True),
                middlewares=(_begin_anew, _authorise(connection), transports),
            ),
        )

    for resource in resources:
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(_marker(resource, mark))
    return registry


def make_settings() -> kopf.OperatorSettings:
    """Kopf's settings, with the reason of each."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = NoDiffbase()  # The default copies every object at every event.
    settings.persistence.progress_storage = NoProgress()  # Nothing is retried by Kopf, so nothing is to be kept.
    settings.persistence.finalizer = "foretide.dev/set-by-nobody"  # Kopf removes the finalizer named here on sight.
    settings.posting.enabled = False  # Its Events are neither aggregated nor limited; ours are.
    settings.scanning.disabled = True  # Our kinds are known; scanning needs more permissions and blocks without them.
    settings.networking.error_backoffs = Backoffs()  # Back within 2 s of the server, not within 21.
    settings.networking.request_timeout = 30.0  # The default of 300 s is also how long a black hole is waited for.
    settings.networking.connect_timeout = 3.0
    settings.watching.connect_timeout = 3.0
    settings.watching.inactivity_timeout = 20.0  # The only defence against a stream that died silently.
    settings.watching.reconnect_backoff = 0.1
    settings.watching.chunk_size = 500  # Halves the peak of memory and the stall at the start.
    settings.process.ultimate_exiting_timeout = None  # It would kill the whole process; `main` ends it in time.
    return settings


class Backoffs:
    """Delays of one request's attempts; iterated anew for every request, hence no generator."""

    def __iter__(self) -> Iterator[float]:
        backoff, rng = Backoff(first_s=0.1, factor=1.6, most_s=2.0, spread=0.2), random.Random()
        return (backoff.delay_s(failures, rng) for failures in itertools.islice(itertools.count(1), ATTEMPTS))


class NoDiffbase(kopf.DiffBaseStorage):
    """Remembers nothing about objects."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    """Remembers nothing about handlers."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _marker(resource: Resource, mark: Callable[[Key, str], None]) -> Callable[..., Any]:
    async def on_event(*, name: str | None, namespace: str | None, meta: Any, **_: Any) -> None:
        if name is not None:
            mark(Key(resource.kind, namespace, name), str(meta.get("resourceVersion", "")))

    on_event.__name__ = f"mark_{resource.plural}"
    return on_event


async def _begin_anew(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Kopf ends, and all with it, at a watch whose version is answered 410 before the stream: it knows 410 only as an
    event within one. Without a version the server begins with all that is there now, which is what it then needs."""
    response = await handler(request)
    if response.status != HTTPStatus.GONE or "watch" not in request.url.query:
        return response
    response.close()
    request.url = request.url.without_query_params("resourceVersion")
    return await handler(request)


def _authorise(connection: Connection) -> Any:
    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers.update(connection.headers())  # Read at every request: tokens are replaced while we run.
        return await handler(request)

    return middleware
