import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from kube.api import EventKind, WatchEvent
from kube.backoff import Backoff
from kube.errors import KubeError, Unreachable, error_from_answer
from kube.informer import Change, Informer, lean
from kube.resources import PODS, Object
from tests.fakes import FakeClient
from tests.waiting import eventually


def pod(name: str, **labels: str) -> Object:
    return {"metadata": {"namespace": "demo", "name": name, "labels": labels}, "spec": {"node": "n1"}}


def answer(code: int) -> KubeError:
    return error_from_answer("watch", "pods", code, {"reason": "Scripted", "message": "no"})


@contextlib.asynccontextmanager
async def following(
    client: FakeClient, *, optional: bool = False, relist_s: float | None = None
) -> AsyncIterator[tuple[Informer[Object], list[Change[Object]]]]:
    informer = Informer(client, PODS, keep=lean, optional=optional)
    seen: list[Change[Object]] = []
    informer.on_change(seen.append)
    task = asyncio.create_task(informer.run(relist_s))
    try:
        await asyncio.wait_for(informer.synced.wait(), 5)
        yield informer, seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def story(changes: list[Change[Object]]) -> list[tuple[str, str]]:
    return [(change.kind.value, change.name) for change in changes]


async def test_what_is_there_and_what_comes_is_reported_in_order() -> None:
    client = FakeClient((PODS, pod("a")))
    async with following(client) as (informer, seen):
        client.put(PODS, pod("b"))
        client.put(PODS, pod("a", role="x"))
        client.remove(PODS, "demo", "b")
        await eventually(lambda: len(seen) == 4, "four changes")
        assert story(seen) == [("added", "a"), ("added", "b"), ("modified", "a"), ("deleted", "b")]
        assert informer.places() == [("demo", "a")]


async def test_objects_that_vanished_while_the_watch_was_broken_are_reported_as_deleted() -> None:
    client = FakeClient((PODS, pod("a")), (PODS, pod("b")))
    async with following(client) as (informer, seen):
        client.fail_next("watch", PODS, Unreachable("cut"), Unreachable("cut"))
        client.break_streams()
        client.remove(PODS, "demo", "a")
        client.compact()
        await eventually(lambda: ("deleted", "a") in story(seen), "the deletion of a")
        assert informer.lists == 2
        assert informer.get("demo", "a") is None


async def test_an_event_that_never_came_is_found_by_the_next_list() -> None:
    client = FakeClient((PODS, pod("a")), (PODS, pod("b")))
    async with following(client, relist_s=0.2) as (informer, seen):
        client.lose_events(PODS)
        client.put(PODS, pod("c"))
        client.remove(PODS, "demo", "a")
        await eventually(lambda: {("added", "c"), ("deleted", "a")} <= set(story(seen)), "what the watch did not tell")
        assert informer.lists >= 2
        assert [change.name for change in seen].count("b") == 1, "what did not change is not reported again"


async def test_what_a_stream_that_died_in_silence_did_not_tell_is_known_once_all_is_listed_anew() -> None:
    client = FakeClient((PODS, pod("a")))
    async with following(client) as (informer, seen):
        await eventually(lambda: client.calls["watch", "Pod"], "the stream is open")
        client.lose_events(PODS)
        client.put(PODS, pod("b"))
        client.remove(PODS, "demo", "a")
        await asyncio.wait_for(informer.renew(), 10)
        assert story(seen)[1:] == [("added", "b"), ("deleted", "a")]
        assert informer.lists == 2


async def test_a_kind_that_is_not_there_is_as_new_as_can_be() -> None:
    client = FakeClient()
    client.fail_next("list", PODS, *[answer(404)] * 100)
    async with following(client, optional=True) as (informer, _):
        await asyncio.wait_for(informer.renew(), 10)
        assert informer.items() == []


async def test_without_a_period_nothing_is_listed_again() -> None:
    client = FakeClient((PODS, pod("a")))
    async with following(client) as (informer, seen):
        client.put(PODS, pod("b"))
        await eventually(lambda: ("added", "b") in story(seen), "b")
        assert informer.lists == 1


async def test_a_broken_stream_is_resumed_without_a_list() -> None:
    client = FakeClient((PODS, pod("a")))
    async with following(client) as (informer, seen):
        client.fail_next("watch", PODS, Unreachable("cut"))
        client.break_streams()
        client.put(PODS, pod("b"))
        await eventually(lambda: ("added", "b") in story(seen), "b")
        assert informer.lists == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 418, 429, 500, 503])
async def test_no_answer_ends_the_informer(code: int) -> None:
    client = FakeClient((PODS, pod("a")))
    client.fail_next("list", PODS, answer(code))
    async with following(client) as (informer, seen):
        client.fail_next("watch", PODS, answer(code))
        client.break_streams()
        client.put(PODS, pod("b"))
        await eventually(lambda: ("added", "b") in story(seen), f"b after {code}")
        assert len(informer) == 2


async def test_a_refusal_is_visible_until_it_ends() -> None:
    client = FakeClient()
    client.fail_next("list", PODS, answer(403))
    informer = Informer(client, PODS, keep=lean)
    task = asyncio.create_task(informer.run())
    await eventually(lambda: informer.last_error is not None, "the refusal")
    assert "pods" in str(informer.last_error)
    assert not informer.synced.is_set()
    client.put(PODS, pod("a"))
    await eventually(lambda: len(informer) == 1, "a list after the refusal")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_answer_that_makes_no_sense_ends_in_a_new_list(caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient((PODS, pod("a")))
    async with following(client) as (informer, seen):
        client.put(PODS, {"metadata": {"namespace": "demo", "name": "b"}})
        client._shelf(PODS).history[-1].obj["metadata"].pop("name")
        await eventually(lambda: ("added", "b") in story(seen), "b, from the list")
        await eventually(lambda: informer.lists == 2, "the end of the second list")
    assert "an answer made no sense" in caplog.text


async def test_a_server_that_ends_every_stream_at_once_is_not_asked_in_a_busy_loop() -> None:
    class Closing(FakeClient):
        async def watch(self, *arguments: Any, **named: Any) -> AsyncGenerator[WatchEvent, None]:
            self.calls["watch", "Pod"] += 1
            yield WatchEvent(EventKind.BOOKMARK, {}, str(named["resource_version"]))

    client = Closing()
    async with following(client):
        await asyncio.sleep(1.0)  # The subject: how often in a second.
    assert 2 <= client.calls["watch", "Pod"] <= 6


async def test_a_server_that_calls_every_list_too_old_is_not_asked_in_a_busy_loop() -> None:
    class Forgetful(FakeClient):
        async def watch(self, *arguments: Any, **named: Any) -> AsyncGenerator[WatchEvent, None]:
            yield WatchEvent(EventKind.BOOKMARK, {}, str(named["resource_version"]))
            raise answer(410)

    client = Forgetful((PODS, pod("a")))
    async with following(client):
        await eventually(lambda: client.calls["list", "Pod"] == 2, "the first time at once")
        await asyncio.sleep(1.0)  # The subject: how often in a second.
    assert client.calls["list", "Pod"] <= 4


async def test_a_resume_point_that_is_refused_again_and_again_is_given_up() -> None:
    client = FakeClient((PODS, pod("a")))
    async with following(client) as (informer, _):
        client.fail_next("watch", PODS, *[answer(504)] * 6)
        client.break_streams()
        await eventually(lambda: informer.lists == 2, "a new list", within_s=60)


async def test_an_object_that_cannot_be_read_is_left_out_and_the_others_are_held(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = FakeClient((PODS, pod("good")), (PODS, {"metadata": {"namespace": "demo", "name": "odd"}}))
    informer: Informer[str] = Informer(client, PODS, keep=lambda obj: str(obj["spec"]["node"]))
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 5)
    assert informer.items() == ["n1"]
    assert "Pod demo/odd cannot be read" in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_object_that_an_index_cannot_read_is_left_out_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = FakeClient((PODS, {"metadata": {"namespace": "demo", "name": "odd"}, "spec": {}}), (PODS, pod("good")))
    informer = Informer(client, PODS, keep=lean, index={"by_node": lambda obj: [obj["spec"]["node"]]})
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 5)
    client.put(PODS, {**pod("good"), "spec": {}})
    await eventually(lambda: not informer.items(), "what can be read no more is left out")
    client.put(PODS, pod("good"))
    await eventually(lambda: informer.by("by_node", "n1"), "good again")
    assert "Pod demo/odd cannot be read" in caplog.text
    assert (informer.places(), informer.lists) == ([("demo", "good")], 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_listener_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient()

    def broken(change: Change[Object]) -> None:
        raise ValueError(change.name)

    informer = Informer(client, PODS, keep=lean)
    seen: list[Change[Object]] = []
    informer.on_change(broken)
    informer.on_change(seen.append)
    task = asyncio.create_task(informer.run())
    client.put(PODS, pod("a"))
    await eventually(lambda: seen, "the second listener")
    assert "A listener failed on Pod demo/a" in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_kind_that_the_cluster_does_without_is_an_empty_list_until_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kube.informer.ABSENT", Backoff(first_s=0.01, factor=1.0, most_s=0.01))
    client = FakeClient((PODS, pod("a")))
    client.fail_next("list", PODS, answer(404), answer(404))
    presence: list[bool] = []
    async with following(client, optional=True) as (informer, seen):
        informer.on_presence(lambda: presence.append(informer.present))
        assert not informer.present
        assert informer.items() == []
        assert informer.last_error is None
        await eventually(lambda: seen and presence, "the kind is there")
        assert presence == [True]
        client.fail_next("watch", PODS, answer(404))
        client.fail_next("list", PODS, *[answer(404)] * 100)
        client.break_streams()
        await eventually(lambda: not informer.present, "the kind was taken away")
        assert story(seen) == [("added", "a"), ("deleted", "a")]


def test_the_lean_projection_drops_what_no_plan_reads() -> None:
    meta = {
        "name": "a",
        "managedFields": [1],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"},
    }
    assert lean({"metadata": meta, "spec": 1}) == {"metadata": {"name": "a", "annotations": {"mine": "1"}}, "spec": 1}
