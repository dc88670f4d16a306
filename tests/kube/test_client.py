"""The client against a scripted server: what real API servers do rarely."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kube.api import EventKind, WatchEvent
from kube.client import Answered, Client
from kube.connection import Connection
from kube.errors import Conflict, Fenced, Gone, Invalid, KubeError, NotFound, Throttled, Unavailable, Unreachable
from kube.resources import PODS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(handler: Handler) -> TestServer:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    return server


def connect(server: TestServer) -> Connection:
    return Connection(str(server.make_url("/")).rstrip("/"), None, lambda: "token-1")


def answering(status: int, body: object, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    return handler


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Throttled),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
    ],
)
async def test_an_error_answer_says_verb_object_answer_and_next_step(
    status: int, reason: str, kind: type[KubeError]
) -> None:
    server = await serve(answering(status, {"kind": "Status", "reason": reason, "message": "the found thing"}))
    async with Client(connect(server)) as client:
        with pytest.raises(kind) as caught:
            await client.get(PODS, "demo", "a")
    assert f"get Pod demo/a: the API server answered {status} {reason}: the found thing. " in str(caught.value)
    await server.close()


async def test_a_throttled_answer_carries_how_long_to_wait() -> None:
    server = await serve(answering(429, {"reason": "TooManyRequests"}, **{"Retry-After": "7"}))
    async with Client(connect(server)) as client:
        with pytest.raises(Throttled) as caught:
            await client.get(PODS, "demo", "a")
    assert caught.value.retry_after_s == 7
    await server.close()


@pytest.mark.parametrize("body", [{"details": "upstream"}, {"details": {"retryAfterSeconds": "soon"}}, ["odd"], 5])
async def test_an_error_of_a_proxy_in_words_of_its_own_is_an_error_of_ours(body: object) -> None:
    server = await serve(answering(502, body, **{"Retry-After": "\u00b2"}))
    async with Client(connect(server)) as client:
        with pytest.raises(Unavailable, match="answered 502 without a reason: no message") as caught:
            await client.get(PODS, "demo", "a")
    assert caught.value.retry_after_s is None
    await server.close()


async def test_an_answer_that_is_not_json_is_unreachable_and_counts_no_code_twice() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="<html>proxy</html>")

    seen: list[Answered] = []
    server = await serve(handler)
    async with Client(connect(server), observe=seen.append) as client:
        with pytest.raises(Unreachable, match="not JSON"):
            await client.get(PODS, "demo", "a")
    assert [(one.verb, one.code) for one in seen] == [("get", 200)]
    await server.close()


async def test_a_server_that_is_away_is_unreachable() -> None:
    server = await serve(answering(200, {}))
    connection = connect(server)
    await server.close()
    async with Client(connection) as client:
        with pytest.raises(Unreachable, match="get Pod demo/a: no answer"):
            await client.get(PODS, "demo", "a")


async def test_a_write_without_leadership_is_not_sent() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response({})

    def fence() -> None:
        raise Fenced("not the leader")

    server = await serve(handler)
    async with Client(connect(server), fence=fence) as client:
        with pytest.raises(Fenced):
            await client.delete(PODS, "demo", "a")
        with pytest.raises(Fenced):
            await client.create(PODS, {"metadata": {"namespace": "demo", "name": "a"}})
        await client.get(PODS, "demo", "a")
    assert asked == ["GET"]
    assert client.writes == 0
    await server.close()


async def test_the_token_is_asked_for_at_every_request() -> None:
    tokens = iter(["first", "second"])
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({})

    server = await serve(handler)
    connection = Connection(connect(server).server, None, lambda: next(tokens))
    async with Client(connection) as client:
        await client.get(PODS, "demo", "a")
        await client.get(PODS, "demo", "a")
    assert seen == ["Bearer first", "Bearer second"]
    await server.close()


def streaming(*chunks: bytes, then: asyncio.Event | None = None) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then is not None:
            await then.wait()
        return response

    return handler


async def watched(server: TestServer, inactivity_timeout_s: float = 5.0) -> list[WatchEvent]:
    async with Client(connect(server)) as client:
        stream = client.watch(PODS, resource_version="1", inactivity_timeout_s=inactivity_timeout_s)
        return [event async for event in stream]


EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7","note":"%s"}}}\n'


async def test_events_are_read_across_chunks_and_however_long_they_are() -> None:
    long = EVENT % (b"x" * 2_000_000)
    bookmark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}\n'
    server = await serve(streaming(EVENT[:30], EVENT[30:] + long, bookmark))
    events = await watched(server)
    assert [(event.kind, event.resource_version) for event in events] == [
        (EventKind.BOOKMARK, "1"),
        (EventKind.ADDED, "7"),
        (EventKind.ADDED, "7"),
        (EventKind.BOOKMARK, "9"),
    ]
    assert len(events[2].obj["metadata"]["note"]) == 2_000_000
    await server.close()


async def test_a_stream_that_ends_inside_an_event_is_an_error() -> None:
    server = await serve(streaming(EVENT, EVENT[:40]))
    with pytest.raises(Unreachable, match="in the middle of an event"):
        await watched(server)
    await server.close()


async def test_a_silent_stream_ends_by_itself() -> None:
    release = asyncio.Event()
    server = await serve(streaming(EVENT, then=release))
    assert len(await asyncio.wait_for(watched(server, inactivity_timeout_s=0.2), 5)) == 2
    release.set()
    await server.close()


@pytest.mark.parametrize(("code", "kind"), [(410, Gone), (500, Unavailable)])
async def test_an_error_inside_a_stream_is_raised_as_its_code_says(code: int, kind: type[KubeError]) -> None:
    line = b'{"type":"ERROR","object":{"kind":"Status","code":%d,"reason":"Expired","message":"m"}}\n' % code
    server = await serve(streaming(line))
    with pytest.raises(kind):
        await watched(server)
    await server.close()


@pytest.mark.parametrize("line", [b"[]\n", b"{}\n", b"nonsense\n", b'{"type":"NEW","object":{}}\n', b"\n"])
async def test_an_event_that_makes_no_sense_is_an_error_and_not_a_crash(line: bytes) -> None:
    server = await serve(streaming(line))
    with pytest.raises(Unreachable):
        await watched(server)
    await server.close()
