from typing import Any

import pytest

from controllers.apply import Applier
from kube.errors import AlreadyExists, Conflict
from kube.resources import CONFIG_MAPS, INFERENCE_SERVICES
from tests.fakes import FakeClient

WANTED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"namespace": "demo", "name": "a"},
    "data": {"x": "1", "y": "2"},
}


def seen(client: FakeClient) -> Any:
    return client.now(CONFIG_MAPS, "demo", "a")


async def test_applying_twice_writes_once() -> None:
    client = FakeClient()
    applier = Applier(client)
    assert await applier.ensure(WANTED, None) == "it does not exist"
    assert await applier.ensure(WANTED, seen(client)) is None
    assert client.writes == 1


async def test_nothing_is_written_by_the_next_process() -> None:
    client = FakeClient()
    await Applier(client).ensure(WANTED, None)
    assert await Applier(client).ensure(WANTED, seen(client)) is None
    assert client.writes == 1


async def test_a_field_no_longer_wanted_goes_and_what_others_set_stays() -> None:
    client = FakeClient()
    applier = Applier(client)
    await applier.ensure(WANTED, None)
    other = seen(client)
    other["data"]["theirs"] = "kept"
    client.put(CONFIG_MAPS, other)
    await applier.ensure({**WANTED, "data": {"x": "1"}}, seen(client))
    assert seen(client)["data"] == {"x": "1", "theirs": "kept"}


async def test_a_cache_that_is_behind_our_own_write_does_not_cause_a_second_one() -> None:
    client = FakeClient()
    applier = Applier(client)
    await applier.ensure(WANTED, None)
    before = seen(client)
    newer = {**WANTED, "data": {"x": "2"}}
    assert await applier.ensure(newer, before) is not None
    assert await applier.ensure(newer, before) is None


async def test_a_child_deleted_behind_our_back_is_made_again() -> None:
    client = FakeClient()
    applier = Applier(client)
    await applier.ensure(WANTED, None)
    client.remove(CONFIG_MAPS, "demo", "a")
    assert await applier.ensure(WANTED, None) == "it does not exist"
    assert seen(client) is not None


async def test_drift_that_comes_back_is_corrected_every_time() -> None:
    client = FakeClient()
    applier = Applier(client)
    await applier.ensure(WANTED, None)
    for _ in range(3):
        drifted = seen(client)
        drifted["data"]["x"] = "drifted"
        client.put(CONFIG_MAPS, drifted)
        assert await applier.ensure(WANTED, seen(client)) is not None
        assert seen(client)["data"]["x"] == "1"


async def test_what_was_found_standing_is_looked_at_again_when_either_side_changes() -> None:
    client = FakeClient()
    await Applier(client).ensure(WANTED, None)
    applier, standing = Applier(client), seen(client)
    assert await applier.ensure(WANTED, standing) is None
    newer = {**WANTED, "data": {"x": "2"}}
    assert await applier.ensure(newer, standing) == "what we want changed"
    drifted = seen(client)
    drifted["data"]["x"] = "drifted"
    client.put(CONFIG_MAPS, drifted)
    assert await applier.ensure(newer, seen(client)) == 'data.x: wanted "2", found "drifted"'


async def test_a_field_that_the_server_spells_its_own_way_is_written_once_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Server(FakeClient):
        async def apply(self, *arguments: Any, **named: Any) -> Any:
            found = await super().apply(*arguments, **named)
            return self.put(CONFIG_MAPS, {**found, "data": {"x": "1"}})

    client = Server()
    applier = Applier(client)
    await applier.ensure(WANTED, None)
    for note in ("one", "two"):
        assert await applier.ensure(WANTED, seen(client)) is None
        client.put(CONFIG_MAPS, {**seen(client), "note": note})
    assert "still different after applying: data.y" in caplog.text
    assert client.writes == 1


async def test_a_delete_of_an_object_that_was_replaced_deletes_nothing() -> None:
    client = FakeClient((CONFIG_MAPS, {"metadata": {"namespace": "demo", "name": "a"}}))
    old = seen(client)
    client.remove(CONFIG_MAPS, "demo", "a")
    client.put(CONFIG_MAPS, {"metadata": {"namespace": "demo", "name": "a"}})
    with pytest.raises(Conflict):
        await Applier(client).delete(CONFIG_MAPS, old)
    assert seen(client) is not None


async def test_a_delete_is_not_repeated_while_the_object_is_going() -> None:
    client = FakeClient((CONFIG_MAPS, {"metadata": {"namespace": "demo", "name": "a", "finalizers": ["x/y"]}}))
    applier = Applier(client)
    assert await applier.delete(CONFIG_MAPS, seen(client)) is True
    assert await applier.delete(CONFIG_MAPS, seen(client)) is False
    assert client.writes == 1


SERVICE: dict[str, Any] = {"metadata": {"namespace": "demo", "name": "chat"}, "spec": {"replicas": 1}}


async def test_a_status_is_written_when_it_differs_and_not_otherwise() -> None:
    client = FakeClient((INFERENCE_SERVICES, SERVICE))
    applier = Applier(client)
    status = {"replicas": 1, "url": "http://x", "empty": []}
    old = client.now(INFERENCE_SERVICES, "demo", "chat")
    assert old is not None
    assert await applier.status(INFERENCE_SERVICES, old, status, old.get("status"))
    assert await applier.status(INFERENCE_SERVICES, old, status, old.get("status")) is None
    new = client.now(INFERENCE_SERVICES, "demo", "chat")
    assert new is not None
    assert await applier.status(INFERENCE_SERVICES, new, status, new["status"]) is None
    stored = await applier.status(INFERENCE_SERVICES, new, {"replicas": 1}, new["status"])
    assert stored is not None
    assert stored["status"] == {"replicas": 1}
    last = client.now(INFERENCE_SERVICES, "demo", "chat")
    assert last is not None
    assert last["status"] == {"replicas": 1}
    assert last["spec"] == {"replicas": 1}
    assert client.writes == 2


async def test_a_status_is_not_written_to_a_successor_of_the_same_name() -> None:
    client = FakeClient((INFERENCE_SERVICES, SERVICE))
    old = client.now(INFERENCE_SERVICES, "demo", "chat")
    assert old is not None
    client.remove(INFERENCE_SERVICES, "demo", "chat")
    client.put(INFERENCE_SERVICES, SERVICE)
    with pytest.raises(Conflict):
        await Applier(client).status(INFERENCE_SERVICES, old, {"replicas": 1}, None)


def owned_by(uid: str) -> dict[str, Any]:
    owner = {"apiVersion": "foretide.dev/v1alpha1", "kind": "InferenceService", "name": "chat", "uid": uid}
    return {**WANTED, "metadata": {**WANTED["metadata"], "ownerReferences": [owner | {"controller": True}]}}


def the_owner(client: FakeClient, uid: str) -> None:
    client.remove(INFERENCE_SERVICES, "demo", "chat")
    client.put(INFERENCE_SERVICES, {"metadata": {"namespace": "demo", "name": "chat", "uid": uid}})


async def test_a_view_with_an_owner_that_is_gone_takes_no_child_from_another_of_its_name() -> None:
    client = FakeClient()
    the_owner(client, "new")
    await Applier(client).ensure(owned_by("new"), None)
    with pytest.raises(Conflict, match="InferenceService demo/chat: another object has its name by now"):
        await Applier(client).ensure(owned_by("old"), None)
    client.remove(INFERENCE_SERVICES, "demo", "chat")
    with pytest.raises(Conflict, match="InferenceService demo/chat: it is gone"):
        await Applier(client).ensure(owned_by("old"), None)
    assert seen(client)["metadata"]["ownerReferences"][0]["uid"] == "new"


async def test_the_owner_of_children_that_are_written_together_is_looked_for_once() -> None:
    client, now_s = FakeClient(), 0.0
    the_owner(client, "new")
    applier = Applier(client, lambda: now_s)
    await applier.ensure(owned_by("new"), None)
    now_s = 1.0
    await applier.ensure(owned_by("new") | {"data": {"x": "2"}}, seen(client))
    assert client.calls["get", "InferenceService"] == 1
    now_s = 3.0
    the_owner(client, "newer")
    with pytest.raises(Conflict):
        await applier.ensure(owned_by("new") | {"data": {"x": "3"}}, seen(client))


async def test_a_child_of_the_owner_before_is_waited_out() -> None:
    client = FakeClient()
    the_owner(client, "old")
    await Applier(client).ensure(owned_by("old"), None)
    the_owner(client, "new")
    with pytest.raises(Conflict, match="ConfigMap demo/a belongs to another InferenceService 'chat' than today's"):
        await Applier(client).ensure(owned_by("new"), seen(client))
    client.remove(CONFIG_MAPS, "demo", "a")
    assert await Applier(client).ensure(owned_by("new"), None) == "it does not exist"


THEIRS: dict[str, Any] = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "x", "controller": True}


@pytest.mark.parametrize(
    ("owners", "whose"), [([], "was not made by Foretide"), ([THEIRS], "belongs to ReplicaSet 'x'")]
)
async def test_somebody_elses_object_is_not_taken_over_whether_the_cache_shows_it_or_not(
    owners: list[dict[str, Any]], whose: str
) -> None:
    client = FakeClient()
    the_owner(client, "new")
    client.put(CONFIG_MAPS, {"metadata": {"namespace": "demo", "name": "a", "ownerReferences": owners}})
    before = seen(client)
    for observed in (None, before):
        with pytest.raises(AlreadyExists, match=f"ConfigMap demo/a {whose}, and InferenceService 'chat' needs that"):
            await Applier(client).ensure(owned_by("new"), observed)
    assert seen(client) == before
    client.remove(CONFIG_MAPS, "demo", "a")
    assert await Applier(client).ensure(owned_by("new"), None) == "it does not exist"


async def test_only_what_is_about_to_be_made_is_asked_for() -> None:
    client = FakeClient()
    the_owner(client, "new")
    applier = Applier(client)
    await applier.ensure(owned_by("new"), None)
    assert await applier.ensure(owned_by("new"), None) is None, "the cache does not show it yet"
    await applier.ensure(owned_by("new") | {"data": {"x": "2"}}, seen(client))
    assert (client.calls["get", "ConfigMap"], client.calls["apply", "ConfigMap"]) == (2, 2)


async def test_a_child_whose_owner_somebody_took_away_gets_it_back() -> None:
    client = FakeClient()
    the_owner(client, "new")
    await Applier(client).ensure(owned_by("new"), None)
    orphan = seen(client)
    orphan["metadata"]["ownerReferences"] = []
    client.put(CONFIG_MAPS, orphan)
    assert await Applier(client).ensure(owned_by("new"), seen(client)) is not None
    assert seen(client)["metadata"]["ownerReferences"][0]["uid"] == "new"
