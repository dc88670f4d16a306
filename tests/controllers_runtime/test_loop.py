import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from controllers.runtime import loop
from controllers.runtime.health import Health
from controllers.runtime.interface import Assembly, Key, Outcome
from controllers.runtime.loop import Options, _Life, _named
from controllers.runtime.metrics import Metrics
from controllers.runtime.server import AdminServer
from controllers.runtime.workers import Workers
from controllers.settings import Settings
from kube.connection import Connection
from kube.errors import Unreachable
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import SECRETS, TENANTS
from tests.fakes import FakeClient
from tests.waiting import eventually


def test_informers_of_the_same_objects_all_run_and_one_listed_twice_runs_once() -> None:
    client = FakeClient()
    tenants = Informer(client, TENANTS, keep=lean)
    keys: Informer[Any] = Informer(client, SECRETS, keep=lean, namespace="system", label_selector="key=true")
    ring: Informer[Any] = Informer(client, SECRETS, keep=lean, namespace="system", field_selector="metadata.name=ring")
    again: Informer[Any] = Informer(client, SECRETS, keep=lean, namespace="system", label_selector="key=true")
    assembly = Assembly(owned={"Tenant": tenants}, children=(keys, ring, again, keys), reconcilers=())
    assert _named(assembly) == {
        "tenants.foretide.dev": tenants,
        "secrets in system where key=true": keys,
        "secrets in system where metadata.name=ring": ring,
        "secrets in system where key=true #2": again,
    }


TENANT = {"metadata": {"name": "acme"}, "spec": {"namespaces": ["demo"]}}


@pytest.fixture(autouse=True)
def _collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that leads freezes what it has loaded; this one has other tests to run."""
    monkeypatch.setattr(loop, "gc", SimpleNamespace(collect=lambda: 0, freeze=lambda: None))


async def takes_over(client: FakeClient, quiet_s: float) -> Informer[Any]:
    """The cache of a standby whose stream hears of nothing any more, `quiet_s` after its last word, once it leads."""
    now_s = 0.0
    tenants = Informer(client, TENANTS, keep=lean, clock=lambda: now_s)
    assembly = Assembly(owned={"Tenant": tenants}, children=(), reconcilers=())
    life = _Life(Connection("http://nowhere", None, lambda: None), Settings(), Options("me"), Metrics())
    following = asyncio.create_task(tenants.run())
    try:
        await asyncio.wait_for(tenants.synced.wait(), 10)
        await eventually(lambda: client.calls["watch", "Tenant"], "the stream is open")
        client.lose_events(TENANTS)
        client.put(TENANTS, {**TENANT, "status": {"decided": "by the leader before"}})
        now_s = quiet_s
        await life._synced(assembly, Health(life.queue, _named(assembly)))
        await loop._renewed(_named(assembly))
        return tenants
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_standby_that_takes_over_knows_what_the_leader_before_decided_though_its_stream_died() -> None:
    client = FakeClient((TENANTS, TENANT))
    tenants = await takes_over(client, quiet_s=20.0)
    known = tenants.get(None, "acme")
    assert known
    assert known["status"] == {"decided": "by the leader before"}


async def test_a_cache_that_has_just_heard_from_the_server_is_not_filled_twice() -> None:
    client = FakeClient((TENANTS, TENANT))
    assert (await takes_over(client, quiet_s=0.5)).lists == 1


async def test_a_server_that_lists_nothing_does_not_keep_a_standby_from_leading(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "RENEWED_WITHIN_S", 0.05)

    class Away(FakeClient):
        def lose_events(self, resource: Any) -> None:
            super().lose_events(resource)
            self.fail_next("list", resource, *[Unreachable("no answer")] * 1000)

    assert (await takes_over(Away((TENANTS, TENANT)), quiet_s=20.0)).lists == 1
    assert "may be behind: tenants.foretide.dev" in caplog.text


async def test_who_cannot_read_does_not_stand_for_election() -> None:
    client = FakeClient((TENANTS, TENANT))
    client.fail_next("list", TENANTS, Unreachable("no answer"))
    tenants = Informer(client, TENANTS, keep=lean)
    assembly = Assembly(owned={"Tenant": tenants}, children=(), reconcilers=())
    life = _Life(Connection("http://nowhere", None, lambda: None), Settings(), Options("me"), Metrics())
    stood: list[bool] = []
    life.elector.start = lambda: stood.append(tenants.synced.is_set())  # type: ignore[method-assign]
    leading = asyncio.create_task(
        life._lead(assembly, Recorder(client, controller="c", instance="i"), Health(life.queue, _named(assembly)))
    )
    try:
        await asyncio.sleep(0)
        assert stood == []
        following = asyncio.create_task(tenants.run())
        await eventually(lambda: stood, "it stands for election")
        assert stood == [True]
    finally:
        leading.cancel()
        following.cancel()
        await asyncio.gather(leading, following, return_exceptions=True)


async def test_the_lease_is_given_back_though_all_threads_of_the_loop_wait() -> None:
    life = _Life(Connection("http://nowhere", None, lambda: None), Settings(), Options("me"), Metrics())
    given_back: list[float] = []
    life.elector.stop = given_back.append  # type: ignore[method-assign]
    server = AdminServer("127.0.0.1", 0, Health(life.queue, {}), Metrics())
    answered = threading.Event()
    stuck = [asyncio.ensure_future(asyncio.to_thread(answered.wait)) for _ in range(100)]
    try:
        await asyncio.wait_for(life._wind_up(server), 10)
        assert given_back == [loop.RELEASE_S]
    finally:
        answered.set()
        await asyncio.gather(*stuck)


async def test_a_stop_waits_for_less_than_two_seconds_before_the_lease_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = _Life(Connection("http://nowhere", None, lambda: None), Settings(), Options("me"), Metrics())
    waits_s: list[float] = []

    async def drain(timeout_s: float) -> None:
        waits_s.append(timeout_s)

    life._workers = Workers(life.queue, {}, Metrics(), limit=1)
    monkeypatch.setattr(life._workers, "drain", drain)
    monkeypatch.setattr(life.elector, "stop", waits_s.append)
    await life._wind_up(AdminServer("127.0.0.1", 0, Health(life.queue, {}), Metrics()))
    assert len(waits_s) == 2
    assert sum(waits_s) < 2.0


async def test_a_standby_keeps_no_keys_and_who_leads_looks_at_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient((TENANTS, TENANT))
    tenants = Informer(client, TENANTS, keep=lean)
    worked: list[Key] = []

    class Looks:
        kind = "Tenant"

        async def reconcile(self, key: Key) -> Outcome:
            worked.append(key)
            return Outcome()

    assembly = Assembly(owned={"Tenant": tenants}, children=(), reconcilers=(Looks(),))
    life = _Life(Connection("http://nowhere", None, lambda: None), Settings(), Options("me"), Metrics())
    life._wake_at_changes(assembly)
    monkeypatch.setattr(life, "_start_feed", lambda _: None)
    monkeypatch.setattr(life.elector, "start", lambda: None)
    following = asyncio.create_task(tenants.run())
    recorder = Recorder(client, controller="c", instance="i")
    leading = asyncio.create_task(life._lead(assembly, recorder, Health(life.queue, _named(assembly))))
    try:
        for number in range(3):
            client.put(TENANTS, {**TENANT, "metadata": {"name": f"short-{number}"}})
            await eventually(lambda: len(tenants) == 2, "it came")
            client.remove(TENANTS, None, f"short-{number}")
            await eventually(lambda: len(tenants) == 1, "it went")
        life.queue.add_after(Key("Tenant", None, "short-0"), 1000)
        assert (life.queue.depth, life.queue.delayed) == (0, 0)
        life._acquired.set()
        await eventually(lambda: worked, "a look at what is there")
        client.put(TENANTS, {**TENANT, "metadata": {"name": "new"}})
        await eventually(lambda: len(worked) == 2, "a look at what came")
        assert [key.name for key in worked] == ["acme", "new"]
    finally:
        for task in (leading, following, *life._tasks):
            task.cancel()
        await asyncio.gather(leading, following, *life._tasks, return_exceptions=True)
