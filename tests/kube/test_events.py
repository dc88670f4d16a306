import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from kube.errors import Unreachable
from kube.events import SERIES_PERIOD_S, WINDOW_S, Recorder
from kube.resources import EVENTS, Object
from tests.fakes import FakeClient
from tests.waiting import eventually

SERVICE: Object = {
    "apiVersion": "foretide.dev/v1alpha1",
    "kind": "InferenceService",
    "metadata": {"namespace": "demo", "name": "chat", "uid": "u1"},
}
TENANT: Object = {"apiVersion": "foretide.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme", "uid": "u2"}}


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextlib.asynccontextmanager
async def recording(client: FakeClient, clock: Clock) -> AsyncIterator[Recorder]:
    recorder = Recorder(client, controller="foretide.dev/operator", instance="pod-1", clock=clock)
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_transition_becomes_one_event_about_its_object() -> None:
    client = FakeClient()
    async with recording(client, Clock()) as recorder:
        recorder.normal(SERVICE, "Servable", "A probe token came back after 0.2 s.", action="Probe")
        await eventually(lambda: client.all(EVENTS), "the Event")
    (event,) = client.all(EVENTS)
    assert event["metadata"]["namespace"] == "demo"
    assert event["regarding"]["name"] == "chat"
    assert (event["type"], event["reason"], event["action"]) == ("Normal", "Servable", "Probe")
    assert "series" not in event


async def test_an_event_about_a_cluster_scoped_object_goes_to_the_default_namespace() -> None:
    client = FakeClient()
    async with recording(client, Clock()) as recorder:
        recorder.warning(TENANT, "NoKeys", "No valid key.")
        await eventually(lambda: client.all(EVENTS), "the Event")
    assert client.all(EVENTS)[0]["metadata"]["namespace"] == "default"


async def test_a_thousand_repeats_are_two_writes_and_one_event_that_counts() -> None:
    client, clock = FakeClient(), Clock()
    async with recording(client, clock) as recorder:
        recorder.warning(SERVICE, "ModelMissing", "Model 'smol' does not exist.")
        await eventually(lambda: client.writes == 1, "the first write")
        for _ in range(999):
            recorder.warning(SERVICE, "ModelMissing", "Model 'smol' does not exist.")
        clock.now_s += SERIES_PERIOD_S
        recorder.warning(SERVICE, "ModelMissing", "Model 'smol' does not exist.")
        await eventually(lambda: client.writes == 2, "the series")
    (event,) = client.all(EVENTS)
    assert event["series"]["count"] == 1001


async def test_the_same_after_the_window_is_a_new_event() -> None:
    client, clock = FakeClient(), Clock()
    async with recording(client, clock) as recorder:
        recorder.normal(SERVICE, "Servable", "again")
        await eventually(lambda: client.writes == 1, "the first")
        clock.now_s += WINDOW_S
        recorder.normal(SERVICE, "Servable", "again")
        await eventually(lambda: client.writes == 2, "the second")
        assert {write.verb for write in client.log} == {"create"}


async def test_a_failure_is_logged_and_the_next_event_is_written(caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient()
    client.fail_next("create", EVENTS, Unreachable("no answer"))
    async with recording(client, Clock()) as recorder:
        recorder.normal(SERVICE, "One", "1")
        recorder.normal(SERVICE, "Two", "2")
        await eventually(lambda: client.all(EVENTS), "the second Event")
    assert "Event One about InferenceService chat was not written" in caplog.text


async def test_a_long_message_is_cut_to_what_the_server_accepts() -> None:
    client = FakeClient()
    async with recording(client, Clock()) as recorder:
        recorder.normal(SERVICE, "Long", "é" * 2000)
        await eventually(lambda: client.all(EVENTS), "the Event")
    assert len(client.all(EVENTS)[0]["note"].encode()) <= 1024
