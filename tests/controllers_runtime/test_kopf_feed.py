import asyncio
import contextlib

import pytest

from controllers.runtime.interface import Key
from controllers.runtime.kopf_feed import ATTEMPTS, Backoffs, Feed, make_settings
from e2e.cluster.controlplane import ControlPlane
from e2e.faults.proxy import Answer, Call, Event, Fault, Proxy, Severed, refused
from kube.client import Client
from kube.connection import Connection
from kube.errors import AlreadyExists
from kube.resources import CONFIG_MAPS, NAMESPACES
from tests.waiting import eventually


class Compacted(Fault):
    """Ends each watch at its first event, and knows none of the versions that it would go on from."""

    def __init__(self) -> None:
        self.refusals = 0

    async def open(self, call: Call) -> Call | Answer:
        if self.met and "resourceVersion" in call.query:
            self.refusals += 1
            return refused(410, "Expired")
        return call

    async def event(self, call: Call, event: Event) -> Event | None:
        if event["type"] == "BOOKMARK" or self.met:
            return event
        self.met = True
        raise Severed


def test_backoffs_start_anew_for_every_request_and_end() -> None:
    backoffs = Backoffs()
    first, second = list(backoffs), list(backoffs)
    assert len(first) == len(second) == ATTEMPTS
    assert first[0] < 0.13
    assert second[0] < 0.13
    assert max(first) <= 2.4
    assert 240 < sum(first) < 360


def test_the_settings_leave_nothing_for_kopf_to_write() -> None:
    settings = make_settings()
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.persistence.finalizer == "foretide.dev/set-by-nobody"


@pytest.mark.apiserver
async def test_kopf_marks_what_is_there_and_what_comes_and_writes_nothing(apiserver: ControlPlane) -> None:
    connection = Connection.from_environment(apiserver.kubeconfig)
    marked: list[tuple[Key, str]] = []
    ended: list[str] = []
    async with Client(connection) as client:
        with contextlib.suppress(AlreadyExists):
            await client.create(NAMESPACES, {"metadata": {"name": "kopf"}})
        there = await client.create(CONFIG_MAPS, {"metadata": {"namespace": "kopf", "name": "there"}})
        feed = Feed(
            connection,
            [CONFIG_MAPS],
            mark=lambda key, version: marked.append((key, version)),
            on_end=ended.append,
        )
        feed.start()
        version = there["metadata"]["resourceVersion"]
        await eventually(lambda: (Key("ConfigMap", "kopf", "there"), version) in marked, "what was there")
        await client.create(CONFIG_MAPS, {"metadata": {"namespace": "kopf", "name": "comes"}})
        await eventually(lambda: any(key.name == "comes" for key, _ in marked), "what comes")
        for name in ("there", "comes"):
            found = await client.get(CONFIG_MAPS, "kopf", name)
            assert not {"finalizers", "annotations"} & set(found["metadata"])
        feed.stop()
        await eventually(lambda: ended, "the end to be reported")
        assert ended == ["Kopf ended without an error"]
    await asyncio.sleep(0)


@pytest.mark.apiserver
async def test_a_watch_whose_version_is_gone_begins_anew_and_misses_nothing(apiserver: ControlPlane) -> None:
    direct = Connection.from_environment(apiserver.kubeconfig)
    marked: list[str] = []
    ended: list[str] = []
    async with Client(direct) as client, Proxy(direct) as proxy:
        with contextlib.suppress(AlreadyExists):
            await client.create(NAMESPACES, {"metadata": {"name": "kopf"}})
        proxy.fault = compacted = Compacted()
        feed = Feed(
            Connection(server=proxy.url, tls=None, token=lambda: None),
            [CONFIG_MAPS],
            mark=lambda key, version: marked.append(key.name),
            on_end=ended.append,
        )
        feed.start()
        await eventually(lambda: marked, "Kopf has begun")
        await client.create(CONFIG_MAPS, {"metadata": {"namespace": "kopf", "name": "in-the-gap"}})
        await eventually(lambda: "in-the-gap" in marked, "what came while nothing was watched")
        await client.create(CONFIG_MAPS, {"metadata": {"namespace": "kopf", "name": "afterwards"}})
        await eventually(lambda: "afterwards" in marked, "what came after it")
        assert compacted.refusals > 0
        assert ended == []
        feed.stop()
        await eventually(lambda: ended, "the end to be reported")
