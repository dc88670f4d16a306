"""Client, informer and Events against a real API server: what a fake cannot promise."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from e2e.cluster.controlplane import ControlPlane
from kube.api import EventKind
from kube.client import Client
from kube.connection import Connection
from kube.errors import AlreadyExists, Conflict, NotFound, Unreachable
from kube.events import Recorder
from kube.informer import Change, Informer, lean
from kube.resources import CONFIG_MAPS, EVENTS, NAMESPACES, PODS, Object
from tests.waiting import eventually

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def own_server() -> Iterator[ControlPlane]:
    """For the tests that stop it."""
    with ControlPlane() as running:
        yield running


@contextlib.asynccontextmanager
async def connected(server: ControlPlane, namespace: str) -> AsyncIterator[Client]:
    async with Client(Connection.from_environment(server.kubeconfig)) as client:
        with contextlib.suppress(AlreadyExists):
            await client.create(NAMESPACES, {"metadata": {"name": namespace}})
        yield client


def entry(namespace: str, name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name},
        "data": data,
    }


@contextlib.asynccontextmanager
async def following(informer: Informer[Any]) -> AsyncIterator[list[Change[Any]]]:
    seen: list[Change[Any]] = []
    informer.on_change(seen.append)
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 30)
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_verbs_do_what_they_say(apiserver: ControlPlane) -> None:
    async with connected(apiserver, "verbs") as client:
        made = await client.create(CONFIG_MAPS, entry("verbs", "a", x="1"))
        with pytest.raises(AlreadyExists):
            await client.create(CONFIG_MAPS, entry("verbs", "a"))
        patched = await client.merge_patch(CONFIG_MAPS, "verbs", "a", {"data": {"y": "2"}})
        assert patched["data"] == {"x": "1", "y": "2"}
        stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"y": "3"}}
        with pytest.raises(Conflict):
            await client.merge_patch(CONFIG_MAPS, "verbs", "a", stale)
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAPS, "verbs", "a", uid="00000000-0000-0000-0000-000000000000")
        await client.delete(CONFIG_MAPS, "verbs", "a", uid=made["metadata"]["uid"])
        await client.delete(CONFIG_MAPS, "verbs", "a")
        with pytest.raises(NotFound, match="get ConfigMap verbs/a"):
            await client.get(CONFIG_MAPS, "verbs", "a")


async def test_an_apply_without_a_change_makes_no_new_version_and_a_field_left_out_goes(
    apiserver: ControlPlane,
) -> None:
    async with connected(apiserver, "applies") as client:
        first = await client.apply(CONFIG_MAPS, entry("applies", "a", x="1", y="2"), field_manager="foretide")
        again = await client.apply(CONFIG_MAPS, entry("applies", "a", x="1", y="2"), field_manager="foretide")
        assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
        less = await client.apply(CONFIG_MAPS, entry("applies", "a", x="1"), field_manager="foretide")
        assert less["data"] == {"x": "1"}
        with pytest.raises(Conflict):
            await client.apply(CONFIG_MAPS, entry("applies", "a", x="9"), field_manager="other", force=False)


async def test_a_list_is_complete_over_its_pages_and_its_items_carry_their_kind(apiserver: ControlPlane) -> None:
    async with connected(apiserver, "pages") as client:
        for at in range(7):
            await client.create(CONFIG_MAPS, entry("pages", f"c{at}"))
        pages = [page async for page in client.pages(CONFIG_MAPS, "pages", limit=3)]
        assert [len(page.items) for page in pages] == [3, 3, 1]
        assert {item["kind"] for page in pages for item in page.items} == {"ConfigMap"}
        assert len({page.resource_version for page in pages}) == 1


async def test_an_informer_follows_changes_and_selects_by_label_and_field(apiserver: ControlPlane) -> None:
    async with connected(apiserver, "follows") as client:
        informer = Informer(client, CONFIG_MAPS, keep=lean, namespace="follows", field_selector="metadata.name=a")
        async with following(informer) as seen:
            await client.create(CONFIG_MAPS, entry("follows", "a", x="1"))
            await client.create(CONFIG_MAPS, entry("follows", "b"))
            await client.merge_patch(CONFIG_MAPS, "follows", "a", {"data": {"x": "2"}})
            await client.delete(CONFIG_MAPS, "follows", "a")
            await eventually(lambda: len(seen) == 3, "three changes")
            assert [(one.kind.value, one.name) for one in seen] == [("added", "a"), ("modified", "a"), ("deleted", "a")]
            assert informer.lists == 1
            assert informer.age_s < 5


async def test_a_version_that_the_server_no_longer_knows_ends_in_a_list_that_finds_the_vanished(
    own_server: ControlPlane,
) -> None:
    async with connected(own_server, "compacted") as client:
        await client.create(CONFIG_MAPS, entry("compacted", "a"))
        informer = Informer(client, CONFIG_MAPS, keep=lean, namespace="compacted")
        async with following(informer):
            pass
        await client.delete(CONFIG_MAPS, "compacted", "a")
        await client.create(CONFIG_MAPS, entry("compacted", "b"))
        await asyncio.to_thread(own_server.restart_apiserver)  # It knows no version from before any more.
        seen: list[Change[Object]] = []
        informer.on_change(seen.append)
        task = asyncio.create_task(informer.run())
        await eventually(lambda: informer.lists == 2, "a second list")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert {(one.kind.value, one.name) for one in seen} == {("added", "b"), ("deleted", "a")}


async def test_a_quiet_stream_ends_with_a_version_as_new_as_the_server(apiserver: ControlPlane) -> None:
    async with connected(apiserver, "quiet") as client, connected(apiserver, "busy") as other:
        (page,) = [page async for page in client.pages(CONFIG_MAPS, "quiet", label_selector="ours=1")]
        stream = client.watch(
            CONFIG_MAPS,
            "quiet",
            resource_version=page.resource_version,
            label_selector="ours=1",
            inactivity_timeout_s=8.0,
        )
        opened = await anext(stream)
        assert (opened.kind, opened.resource_version) == (EventKind.BOOKMARK, page.resource_version)
        made = await other.create(CONFIG_MAPS, entry("busy", "a"))
        versions = [int(event.resource_version) async for event in stream if event.kind is EventKind.BOOKMARK]
        assert versions
        assert versions[-1] >= int(made["metadata"]["resourceVersion"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_an_informer_outlives_the_api_server_and_serves_meanwhile(
    own_server: ControlPlane, how: signal.Signals
) -> None:
    namespace = f"outage-{how.name.lower()}"
    async with connected(own_server, namespace) as client:
        await client.create(CONFIG_MAPS, entry(namespace, "a"))
        informer = Informer(client, CONFIG_MAPS, keep=lean, namespace=namespace)
        async with following(informer) as seen:
            await asyncio.to_thread(own_server.stop_apiserver, how)
            await eventually(lambda: informer.last_error is not None, "the outage to be visible")
            assert informer.get(namespace, "a") is not None
            with pytest.raises(Unreachable):
                await client.get(CONFIG_MAPS, namespace, "a")
            await asyncio.to_thread(own_server.start_apiserver)
            await client.create(CONFIG_MAPS, entry(namespace, "b"))
            await eventually(lambda: informer.get(namespace, "b") is not None, "b, within 5 s", within_s=5)
            assert informer.last_error is None
            assert [(one.kind.value, one.name) for one in seen] == [("added", "a"), ("added", "b")]


async def test_an_event_is_accepted_and_its_series_counts(apiserver: ControlPlane) -> None:
    async with connected(apiserver, "events") as client:
        now_s = 0.0
        recorder = Recorder(client, controller="foretide.dev/operator", instance="pod-1", clock=lambda: now_s)
        task = asyncio.create_task(recorder.run())
        about = await client.create(CONFIG_MAPS, entry("events", "a"))
        about = {**about, "apiVersion": "v1", "kind": "ConfigMap"}
        recorder.warning(about, "Odd", "It is odd.")
        await eventually(lambda: client.writes == 3, "the Event")
        now_s = 31.0
        recorder.warning(about, "Odd", "It is odd.")
        await eventually(lambda: client.writes == 4, "the series")
        found: list[Object] = []
        while not (found and found[0].get("series")):
            found = await client.list(EVENTS, "events")
        assert (found[0]["series"]["count"], found[0]["reason"], found[0]["type"]) == (2, "Odd", "Warning")
        assert recorder.dropped == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_pods_of_a_namespace_that_does_not_exist_are_an_empty_list(apiserver: ControlPlane) -> None:
    async with connected(apiserver, "exists") as client:
        assert await client.list(PODS, "does-not-exist") == []
