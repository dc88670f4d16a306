"""What is kept of decisions and of cold starts, and how the operator shows the decisions."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from controllers.capacity_forecast.capacities import remember_capacities
from controllers.capacity_forecast.cold_starts import ColdStarts
from controllers.capacity_forecast.decisions import AGAIN_S, DecisionLog
from controllers.capacity_forecast.pages import decisions_page
from controllers.history.interface import ServiceId
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.inference_service.caches import PodEntry, pod_entry
from controllers.runtime.health import Health
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.server import AdminServer
from forecasting.policy import (
    Bounds,
    Capacity,
    Load,
    Memory,
    PolicySettings,
    ScalingDecision,
    ScalingInput,
    from_json,
    plan,
)
from kube.informer import Change
from kube.store import ChangeKind
from tests.waiting import eventually

CHAT = ServiceId("demo", "chat")


def decision(running: float, now_s: float, current: int = 1) -> ScalingDecision:
    load = Load(0.0, 0.0, 0.0, running, 0.0, 0.0, 1.0)
    asked = ScalingInput(
        now_s, Bounds(1, 9), current, current, load, None, Capacity(1e9, 8.0), 300.0, PolicySettings(), Memory()
    )
    return plan(asked)


UP = decision(30, 0.0).replicas


async def test_a_decision_is_kept_when_it_says_something_new_and_now_and_then() -> None:
    store = StoreThread(Store(None))
    log = DecisionLog(store)
    for now_s in range(0, 600, 5):
        log.record(CHAT, decision(1, float(now_s)))
    assert len(await log.read(CHAT, 0, 100)) == 600 / AGAIN_S
    log.record(CHAT, decision(30, 600.0))
    lines = await log.read(CHAT, 500, 100)
    assert [from_json(line).replicas for line in lines] == [UP]
    assert plan(from_json(lines[0]).inputs) == from_json(lines[0]), "a recorded decision can be decided again"
    await store.close()


async def test_services_do_not_hide_each_others_decisions_and_a_forgotten_one_begins_anew() -> None:
    store = StoreThread(Store(None))
    log, other = DecisionLog(store), ServiceId("demo", "other")
    log.record(CHAT, decision(1, 0.0))
    log.record(other, decision(1, 1.0))
    log.forget(CHAT)
    log.record(CHAT, decision(1, 2.0))
    assert (len(await log.read(CHAT, 0, 9)), len(await log.read(other, 0, 9))) == (2, 1)
    await store.close()


async def test_decisions_are_read_on_the_admin_port_as_json_lines() -> None:
    store = StoreThread(Store(None))
    log = DecisionLog(store)
    log.record(CHAT, decision(1, 100.0))
    log.record(CHAT, decision(30, 200.0))
    server = AdminServer("127.0.0.1", 0, Health(ReconcileQueue(), {}), Metrics(), [decisions_page(log)])
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:

            async def get(path: str) -> tuple[int, str]:
                async with session.get(path) as response:
                    return response.status, await response.text()

            status, text = await get("/decisions/demo/chat")
            assert (status, [from_json(line).replicas for line in text.splitlines()]) == (200, [1, UP])
            _, newest = await get("/decisions/demo/chat?limit=1")
            assert [from_json(line).inputs.now_s for line in newest.splitlines()] == [200.0]
            assert await get("/decisions/demo/chat?since=201") == (200, "")
            assert await get("/decisions/demo/unknown") == (200, "")
            status, text = await get("/decisions/demo/chat?since=yesterday")
            assert (status, text) == (400, "since is 'yesterday'; a number from 0 to 1e+12 is allowed.\n")
    finally:
        await server.stop()
        await store.close()


# --- cold starts ------------------------------------------------------------------------------------------------------


def pod(ready_at: str | None, restarts: int = 0, created: str = "2026-01-01T00:00:00Z") -> PodEntry:
    ready = {"type": "Ready", "status": "True" if ready_at else "False", "lastTransitionTime": ready_at or created}
    labels = {"foretide.dev/inference-service": "chat", "foretide.dev/revision": "r"}
    meta: dict[str, Any] = {
        "namespace": "demo",
        "name": "p",
        "uid": "u",
        "labels": labels,
        "creationTimestamp": created,
    }
    container = {"restartCount": restarts}
    found = pod_entry({"metadata": meta, "status": {"conditions": [ready], "containerStatuses": [container]}})
    assert found
    return found


def change(old: PodEntry | None, new: PodEntry | None) -> Change[PodEntry]:
    kind = ChangeKind.ADDED if old is None else ChangeKind.DELETED if new is None else ChangeKind.MODIFIED
    return Change(kind, "demo", "p", old, new)


async def test_the_time_from_creation_to_ready_is_remembered_over_restarts() -> None:
    store = StoreThread(Store(None))
    seen = ColdStarts(store, lambda *_: "m on cpu 1")
    running = asyncio.ensure_future(seen.run())
    for _ in range(3):
        seen.observe(change(pod(None), pod("2026-01-01T00:06:40Z")))
    assert seen.lead_time_s("m on cpu 1") == 400
    assert seen.lead_time_s("m on gpu 1") == 300
    while await store.call(Store.cold_starts) != {"m on cpu 1": [400.0] * 3}:
        assert not running.done()
    later = ColdStarts(store, lambda *_: "m on cpu 1")
    again = asyncio.ensure_future(later.run())
    await eventually(lambda: later.lead_time_s("m on cpu 1") == 400, "what was remembered is read")
    running.cancel()
    again.cancel()
    await asyncio.gather(running, again, return_exceptions=True)
    await store.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, pod("2026-01-01T00:06:40Z")),
        (pod("2026-01-01T00:06:40Z"), pod("2026-01-01T00:06:40Z")),
        (pod(None), pod(None)),
        (pod(None), pod("2026-01-01T00:06:40Z", restarts=1)),
        (pod("2026-01-01T00:06:40Z"), None),
        (pod(None), pod("2026-01-03T00:00:00Z")),
    ],
    ids=["seen late", "ready before", "not ready", "restarted", "gone", "waited for a place"],
)
def test_only_a_first_start_that_was_seen_is_a_cold_start(old: PodEntry | None, new: PodEntry | None) -> None:
    seen = ColdStarts(StoreThread(Store(None)), lambda *_: "m on cpu 1")
    seen.observe(change(old, new))
    assert seen.lead_time_s("m on cpu 1") == 300


async def test_learned_capacities_come_back_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.capacity_forecast.capacities.WRITE_EVERY_S", 0.001)
    store = StoreThread(Store(None))
    learned = {"m on cpu 1": 90.0}
    task = asyncio.ensure_future(remember_capacities(store, learned))
    written: dict[str, float] = {}
    while written != learned:
        assert not task.done()
        written = await store.call(Store.capacities)
    task.cancel()
    fresh: dict[str, float] = {"m on gpu 1": 5.0}
    again = asyncio.ensure_future(remember_capacities(store, fresh))
    await eventually(lambda: fresh == {"m on cpu 1": 90.0, "m on gpu 1": 5.0}, "what was learned is read")
    again.cancel()
    await asyncio.gather(task, again, return_exceptions=True)
    await store.close()
