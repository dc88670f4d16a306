"""The proxy between a client and a small server: what it passes on, names, cuts, holds and drops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from e2e.faults.crash import Crash, Site, place
from e2e.faults.missed import Listening, Loss, Missing, Seen
from e2e.faults.proxy import Answer, Call, Fault, Proxy, at_version, refused
from kube.client import Client
from kube.connection import Connection
from kube.errors import Conflict, Unreachable
from kube.resources import CONFIG_MAPS, DEPLOYMENTS, PODS

EVENTS = [
    {"type": "ADDED", "object": {"metadata": {"namespace": "n", "name": "a", "resourceVersion": "1"}}},
    {"type": "MODIFIED", "object": {"metadata": {"namespace": "n", "name": "a", "resourceVersion": "2"}}},
    {"type": "DELETED", "object": {"metadata": {"namespace": "n", "name": "a", "resourceVersion": "3"}}},
]


class Server:
    """Answers every write with its body, and every watch with three events."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return web.Response(body=b"".join(json.dumps(one).encode() + b"\n" for one in EVENTS))
        self.written.append((request.method, request.path))
        return web.json_response({"metadata": {"name": "a"}})


@asynccontextmanager
async def between(fault: Fault) -> AsyncIterator[tuple[Server, Proxy, Client]]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream = Connection(f"http://127.0.0.1:{runner.addresses[0][1]}", None, lambda: None)
    try:
        async with Proxy(upstream) as proxy, Client(Connection(proxy.url, None, lambda: None)) as client:
            proxy.fault = fault
            yield server, proxy, client
    finally:
        await runner.cleanup()


async def test_a_write_is_passed_on_and_named_as_rbac_names_it() -> None:
    async with between(Fault()) as (server, proxy, client):
        manifest = {"metadata": {"namespace": "n", "name": "chat"}}
        await client.apply(DEPLOYMENTS, manifest, field_manager="x")
        await client.create(CONFIG_MAPS, manifest)
        await client.delete(PODS, "n", "chat-0123456789-abcde")
        assert [place(one.call) for one in proxy.writes] == [
            ("apply", "deployments.apps", "chat"),
            ("create", "configmaps", "chat"),
            ("delete", "pods", "chat-POD"),
        ]
        assert [method for method, _ in server.written] == ["PATCH", "POST", "DELETE"]


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_crash_at_a_write_kills_before_or_after_the_server_has_it(after_commit: bool) -> None:
    killed: list[int] = []
    site = Site("declared", "apply", "deployments.apps", "chat", 1)
    async with between(fault := Crash(site, lambda: killed.append(1), after_commit=after_commit)) as (
        server,
        _,
        client,
    ):
        fault.stage = "declared"
        manifest = {"metadata": {"namespace": "n", "name": "chat"}}
        await client.apply(DEPLOYMENTS, manifest, field_manager="x")
        with pytest.raises(Unreachable):
            await client.apply(DEPLOYMENTS, manifest, field_manager="x")
        assert killed == [1]
        assert fault.met
        assert len(server.written) == (2 if after_commit else 1)


async def test_a_refusal_is_what_the_api_server_would_say() -> None:
    class Refusing(Fault):
        async def meet(self, call: Call, forward: object) -> Answer:
            return refused(409, "Conflict")

    async with between(Refusing()) as (server, _, client):
        with pytest.raises(Conflict):
            await client.create(CONFIG_MAPS, {"metadata": {"namespace": "n", "name": "a"}})
        assert server.written == []


async def test_an_event_is_dropped_from_every_stream_and_all_others_are_told() -> None:
    lost = Seen("", "pods", "MODIFIED", "a", 0)
    async with between(Missing(lost, Loss.DROPPED)) as (_, proxy, client):
        for _ in range(2):
            told = [one.kind.value async for one in client.watch(PODS, resource_version="0")]
            assert told == ["BOOKMARK", "ADDED", "DELETED"]
        assert proxy.fault.met


async def test_two_streams_that_tell_the_same_are_noted_once() -> None:
    listening = Listening()
    async with between(listening) as (_, _, client):
        for _ in range(2):
            assert [one async for one in client.watch(PODS, resource_version="0")]
    assert [str(one) for one in listening.seen] == [
        ": ADDED pods a #1",
        ": MODIFIED pods a #1",
        ": DELETED pods a #1",
    ]


async def test_a_stream_that_breaks_off_is_answered_410_when_it_is_opened_again() -> None:
    async with between(Missing(Seen("", "pods", "MODIFIED", "a", 0), Loss.EXPIRED)) as (_, proxy, _):
        url = f"{proxy.url}/api/v1/pods?watch=true"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                async with session.get(url) as cut:
                    await cut.read()
            async with session.get(url) as expired:
                assert expired.status == 410
            async with session.get(url) as again:
                assert len((await again.read()).splitlines()) == 3


def test_a_list_of_an_earlier_moment_asks_for_exactly_that_version() -> None:
    call = Call("GET", "/api/v1/pods", {"limit": "500"}, "", b"", "pods", None, None, None)
    assert at_version(call, "7").query == {"limit": "500", "resourceVersion": "7", "resourceVersionMatch": "Exact"}
    going_on = Call("GET", "/api/v1/pods", {"continue": "x"}, "", b"", "pods", None, None, None)
    assert at_version(going_on, "7").query == {"continue": "x"}
