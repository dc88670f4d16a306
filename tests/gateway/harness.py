"""A gateway on loopback, workers whose every byte is scripted, and a catalog that the test writes.

Real sockets everywhere: what is tested is what a client sees.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import aiohttp
import orjson

from gateway.asked import RequestLimits
from gateway.catalog import Catalog, Endpoint, Service, ServiceKey, Tenant
from gateway.http1.limits import Limits
from gateway.identity import Keyring
from gateway.service import Gateway
from gateway.settings import Settings
from tests.waiting import eventually

KEY, OTHER_KEY = "sk-acme-1", "sk-globex-1"
CHAT = ServiceKey("demo", "chat")
EMPTY = Keyring(b"p" * 32)


def keyring(**keys: Iterable[str]) -> Keyring:
    return Keyring(EMPTY.pepper, {EMPTY.digest(key.encode()): tenant for tenant, all_ in keys.items() for key in all_})


def catalog(*services: Service) -> Catalog:
    """Tenants acme (demo, lab) and globex (prod), each with one key."""
    tenants = {
        "acme": Tenant("acme", frozenset({"demo", "lab"})),
        "globex": Tenant("globex", frozenset({"prod"})),
    }
    return Catalog({one.key: one for one in services}, tenants, keyring(acme=[KEY], globex=[OTHER_KEY]))


def service(*workers: FakeWorker, key: ServiceKey = CHAT, ttft_target_s: float | None = None) -> Service:
    return Service(key, 1700000000, ttft_target_s, tuple(worker.endpoint() for worker in workers))


class ScriptedSource:
    """A `CatalogSource` in the test's hands."""

    def __init__(self, first: Catalog | None) -> None:
        self.age_s = 0.0
        self.catalog = first or Catalog()
        self._first = first
        self._publish: Callable[[Catalog], None] | None = None

    async def run(self, publish: Callable[[Catalog], None]) -> None:
        self._publish = publish
        if self._first is not None:
            publish(self._first)
        await asyncio.Event().wait()

    def publish(self, new: Catalog) -> None:
        assert self._publish is not None, "the gateway has not started its source yet"
        self.catalog = new
        self._publish(new)

    def publish_services(self, *services: Service) -> None:
        self.publish(replace(self.catalog, services={one.key: one for one in services}))


# --- workers ----------------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """One request as a worker got it."""

    line: str
    headers: dict[str, str]
    body: bytes


class Exchange:
    """What a behaviour may do with a connection."""

    def __init__(self, asked: Asked, line: _Line, worker: FakeWorker) -> None:
        self.asked = asked
        self.worker = worker
        self._line = line

    async def send(self, data: bytes) -> None:
        self._line.transport.write(data)
        await self._line.writable.wait()

    async def json(self, status: int, value: Any, **headers: str) -> None:
        body = orjson.dumps(value)
        lines = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        await self.send(head.encode() + body)

    async def begin_events(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, number: int, text: str = "") -> None:
        await self.chunk(b"data: %b\n\n" % orjson.dumps(delta(text or f"t{number} ")))

    async def end_events(self) -> None:
        await self.chunk(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        self._line.transport.abort()

    def close(self) -> None:
        self._line.transport.close()

    def half_close(self) -> None:
        self._line.transport.write_eof()

    async def hang(self) -> None:
        """Until the gateway leaves, or the test ends."""
        await asyncio.Event().wait()


Behaviour = Callable[[Exchange], Awaitable[None]]


class FakeWorker:
    """Answers each request by the next of its behaviours, the last one again and again."""

    def __init__(self, *behaviours: Behaviour, name: str = "chat-abc12-7f-x1") -> None:
        self.behaviours = list(behaviours)
        self.name = name
        self.asked: list[Asked] = []
        self.connections = 0
        """That brought a request. Questions about its load come on one of their own, which may be read late."""
        self.load: dict[str, Any] | None = None
        """What it says of itself on `GET /load`; None for a worker that knows no such thing."""
        self.load_asked = 0
        self.silent = False
        """It takes questions about its load and answers none."""
        self.left = 0
        """Connections that the gateway ended while they were being answered."""
        self.lines: set[_Line] = set()
        self.port = 0
        self._server: asyncio.Server | None = None

    def endpoint(self, **changes: Any) -> Endpoint:
        return replace(Endpoint("127.0.0.1", self.port, self.name, self.name.split("-")[1]), **changes)

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Line(self), "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As if the pod were killed: every connection is reset and the port refuses."""
        if self._server is not None:
            self._server.close()
        for line in list(self.lines):
            line.transport.abort()
        await eventually(lambda: not self.lines, "the worker's connections have ended")


class _Line(asyncio.Protocol):
    """One connection to a worker; one request at a time."""

    transport: asyncio.Transport

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self.asks = False
        """It brought a request, and no mere question about the load."""
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is one without inheriting from it.
        self.transport = cast(asyncio.Transport, transport)
        self._worker.lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.lines.discard(self)
        if self._task is not None and not self._task.done():
            self._worker.left += 1
            self._task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        found = _chunked_body(rest) if headers.get("transfer-encoding") == "chunked" else _sized_body(rest, headers)
        if found is None:
            return
        body, self._buffer = found
        if line.startswith("GET /load "):
            self._tell_load()
            return
        asked = Asked(line, headers, body)
        worker = self._worker
        if not self.asks:
            self.asks = True
            worker.connections += 1
        worker.asked.append(asked)
        behaviour = worker.behaviours.pop(0) if len(worker.behaviours) > 1 else worker.behaviours[0]
        self._task = asyncio.ensure_future(self._behave(behaviour, Exchange(asked, self, worker)))

    def _tell_load(self) -> None:
        worker = self._worker
        worker.load_asked += 1
        if worker.silent:
            return
        body = b"" if worker.load is None else orjson.dumps(worker.load)
        status = "404 Not Found" if worker.load is None else "200 OK"
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)

    async def _behave(self, behaviour: Behaviour, exchange: Exchange) -> None:
        await behaviour(exchange)


def load(**changes: Any) -> dict[str, Any]:
    """What an idle worker of eight slots says."""
    return {
        "model": "chat", "ready": True, "message": None, "draining": False, "running": 0, "waiting": 0,
        "max_num_seqs": 8, "kv_usage": 0.0, "utilisation": 0.0, "steps": 1, "stalled_s": 0.0, "step": None,
    } | changes  # fmt: skip


def _sized_body(data: bytes, headers: Mapping[str, str]) -> tuple[bytes, bytes] | None:
    """The body, and what follows it; None while it is not whole."""
    size = int(headers.get("content-length", "0"))
    return (data[:size], data[size:]) if len(data) >= size else None


def _chunked_body(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while b"\r\n" in data:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if len(data) < size + 2:
            return None
        body, data = body + data[:size], data[size + 2 :]
        if size == 0:
            return body, data
    return None


def delta(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "chat", "choices": [choice]}


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "chat", "choices": [choice], "usage": usage}


async def answers(exchange: Exchange) -> None:
    """One token, or a stream of three, as asked."""
    if orjson.loads(exchange.asked.body).get("stream"):
        await exchange.begin_events()
        for number in range(3):
            await exchange.event(number)
        await exchange.end_events()
    else:
        await exchange.json(200, completion(exchange.worker.name))


# --- the gateway ------------------------------------------------------------------------------------------------------


@dataclass
class Running:
    gateway: Gateway
    source: ScriptedSource
    session: aiohttp.ClientSession
    port: int = 0
    admin_port: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def post(self, body: Any, *, key: str | None = KEY, path: str = "/v1/chat/completions", **kw: Any) -> Got:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **kw.pop("headers", {})}
        async with self.session.post(self.url + path, data=data, headers=headers, **kw) as response:
            return Got(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())

    async def get(self, path: str, *, key: str | None = KEY, admin: bool = False) -> Got:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"http://127.0.0.1:{self.admin_port if admin else self.port}{path}"
        async with self.session.get(url, headers=headers) as response:
            return Got(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        page = (await self.get("/metrics", admin=True)).body.decode()
        samples = (one for family in text_string_to_metric_families(page) for one in family.samples)
        return sum(
            one.value
            for one in samples
            if one.name == f"foretide_gateway_{name}" and labels.items() <= one.labels.items()
        )


@dataclass
class Got:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


SETTINGS = Settings(
    host="127.0.0.1", port=0, admin_port=0, static=None, kubeconfig=None, system_namespace="foretide-system",
    zone=None, node=None,
    limits=Limits(), requests=RequestLimits(deadline_s=20.0, wait_s=5.0), drain_grace_s=0.0, drain_timeout_s=10.0,
    access_log_share=0.0, log_level="INFO",
)  # fmt: skip


@contextlib.asynccontextmanager
async def running(first: Catalog | None, settings: Settings = SETTINGS) -> AsyncIterator[Running]:
    source = ScriptedSource(first)
    gateway = Gateway(settings, source)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(gateway.stop)
        await gateway.start()
        await asyncio.sleep(0)  # the source publishes its first view
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        yield Running(gateway, source, session, gateway.port, gateway.admin_port)


@contextlib.asynccontextmanager
async def workers(*all_: FakeWorker) -> AsyncIterator[None]:
    for worker in all_:
        await worker.start()
    try:
        yield
    finally:
        for worker in all_:
            await worker.stop()


@contextlib.asynccontextmanager
async def serving(*all_: FakeWorker, settings: Settings = SETTINGS, **of_service: Any) -> AsyncIterator[Running]:
    """A gateway with one service, `demo/chat`, on these workers."""
    async with workers(*all_), running(catalog(service(*all_, **of_service)), settings) as one:
        yield one


# --- raw clients ------------------------------------------------------------------------------------------------------


class RawClient:
    """A client that says exactly what the test wants said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self) -> Got:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        line, *rest = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
        status = int(line.split()[1])
        if headers.get("transfer-encoding") == "chunked":
            return Got(status, headers, await self._chunks())
        if "content-length" in headers:
            return Got(status, headers, await self.reader.readexactly(int(headers["content-length"])))
        return Got(status, headers, b"" if status == 100 else await self.reader.read())

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readline()).strip(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    async def at_end(self) -> bool:
        """The gateway has closed the connection, and nothing was left to read."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 10) == b""
        except ConnectionError:
            return True


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request_bytes(body: Any, *, key: str = KEY, path: str = "/v1/chat/completions", extra: str = "") -> bytes:
    data = orjson.dumps(body)
    lines = f"Host: gateway\r\nAuthorization: Bearer {key}\r\n{extra}Content-Length: {len(data)}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{lines}".encode() + data
