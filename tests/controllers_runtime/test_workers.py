import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from controllers.runtime.interface import Key, Outcome
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.workers import Workers
from crds.log_lines import JsonFormatter
from kube.errors import error_from_answer
from tests.waiting import eventually

A, B = Key("Model", "demo", "a"), Key("Model", "demo", "b")


SERVICE = Key("InferenceService", "demo", "chat")


@dataclass
class Scripted:
    act: Callable[[Key], Awaitable[Outcome]]
    kind: str = "Model"

    async def reconcile(self, key: Key) -> Outcome:
        return await self.act(key)


@contextlib.asynccontextmanager
async def working(
    queue: ReconcileQueue, act: Callable[[Key], Awaitable[Outcome]], metrics: Metrics | None = None
) -> AsyncIterator[Workers]:
    workers = Workers(queue, {"Model": Scripted(act)}, metrics or Metrics(), limit=2)
    task = asyncio.create_task(workers.run())
    yield workers
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await workers.drain(0.1)


async def test_a_failure_is_logged_with_its_object_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    queue, metrics = ReconcileQueue(), Metrics()
    seen: list[Key] = []

    async def act(key: Key) -> Outcome:
        seen.append(key)
        if key == A:
            raise ValueError("a mistake of ours")
        return Outcome()

    async with working(queue, act, metrics):
        queue.add(A)
        queue.add(B)
        await eventually(lambda: B in seen, "b")
        await eventually(lambda: seen.count(A) >= 2, "a second look at a")
    first = caplog.records[0]
    assert first.levelno == logging.ERROR
    assert first.exc_info
    assert "Model demo/a: ValueError: a mistake of ours." in first.getMessage()
    assert (vars(first)["kind"], vars(first)["namespace"], vars(first)["object"]) == ("Model", "demo", "a")
    assert 'foretide_reconciles_total{kind="Model",result="ok"} 1.0' in metrics.render().decode()


async def test_an_answer_of_the_api_server_is_logged_as_a_sentence_and_its_wait_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = ReconcileQueue()

    async def act(key: Key) -> Outcome:
        raise error_from_answer("apply", "Pod demo/a", 429, {"reason": "TooManyRequests"}, retry_after_s=40.0)

    async with working(queue, act):
        queue.add(A)
        await eventually(lambda: queue.delayed == 1, "the retry")
    (record,) = caplog.records
    assert record.exc_info is None
    assert "Model demo/a: apply Pod demo/a: the API server answered 429" in record.getMessage()
    assert "Next look in 40.0 s." in record.getMessage()


async def test_no_more_than_the_limit_work_at_once_and_an_outcome_asks_for_a_later_look() -> None:
    queue, release = ReconcileQueue(), asyncio.Event()
    at_work: set[Key] = set()

    async def act(key: Key) -> Outcome:
        at_work.add(key)
        await release.wait()
        return Outcome(requeue_after_s=60.0)

    async with working(queue, act):
        for name in "abc":
            queue.add(Key("Model", "demo", name))
        await eventually(lambda: len(at_work) == 2, "two at work")
        assert queue.depth == 1
        release.set()
        await eventually(lambda: queue.delayed == 3, "three later looks")


async def test_a_stop_waits_for_what_ends_and_cancels_what_does_not(caplog: pytest.LogCaptureFixture) -> None:
    queue, may_end = ReconcileQueue(), {A: asyncio.Event(), B: asyncio.Event()}
    ended: list[str] = []

    async def act(key: Key) -> Outcome:
        try:
            await may_end[key].wait()
        except asyncio.CancelledError:
            ended.append(f"{key.name} cancelled")
            raise
        ended.append(f"{key.name} in time")
        return Outcome()

    async with working(queue, act) as workers:
        queue.add(A)
        queue.add(B)
        await eventually(lambda: queue.depth == 0, "both at work")
        asyncio.get_running_loop().call_soon(may_end[A].set)
        await workers.drain(2.0)
        assert ended == ["a in time", "b cancelled"]
    assert "reconcile Model demo/b was stopped in the middle" in caplog.text


async def test_what_a_reconcile_logs_names_its_object() -> None:
    queue, lines = ReconcileQueue(), list[dict[str, str]]()

    async def act(key: Key) -> Outcome:
        lines.append(json.loads(JsonFormatter().format(logging.makeLogRecord({"msg": "looked"}))))
        return Outcome()

    workers = Workers(queue, {SERVICE.kind: Scripted(act, SERVICE.kind)}, Metrics(), limit=1)
    task = asyncio.create_task(workers.run())
    queue.add(SERVICE)
    await eventually(lambda: len(lines) == 1, "a look")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await workers.drain(10.0)
    said = {name: lines[0][name] for name in ("kind", "namespace", "object", "service")}
    assert said == {"kind": "InferenceService", "namespace": "demo", "object": "chat", "service": "chat"}
