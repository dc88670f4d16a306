"""Who is asked to measure itself, and how often."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from controllers.inference_service.profiles import AT_ONCE, ProfileBoard
from controllers.inference_service.worker_profile import WorkerProfile
from controllers.plans.snapshot import Load, Snapshot, Worker
from controllers.runtime.queue import ReconcileQueue
from kube.resources import MODELS
from tests.controllers.inference_service.harness import READY_MODEL, FakePorts, Operator, model, put
from tests.fakes import FakeClient
from tests.gen import model_view, service_spec, snapshot, with_workers
from tests.waiting import eventually


class Slow(FakePorts):
    """Workers that measure themselves until they may end."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.may_end = asyncio.Event()

    async def worker_profile(self, worker: str) -> WorkerProfile | None:
        self.asked.append(worker)
        await self.may_end.wait()
        return WorkerProfile(7e-3, 15e-6, 39e-9, 33e-6, 8e-3, 400_000, 256, 2048)


def idle(number: int) -> Snapshot:
    """A service of a Model of its own, with one idle worker."""
    seen = snapshot(
        spec=service_spec(scaling={"max": 2}),
        model=model_view(f"m{number}", uid=f"uid-{number}"),
        status={"currentRevision": "r"},
        loads={"w": Load(0, 0.0)},
    )
    return with_workers(seen, workers=(Worker("w", "r", ready=True, ip=f"10.0.0.{number}"),))


async def test_a_worker_whose_turn_has_not_come_is_not_asked_once_more() -> None:
    now_s = 0.0
    ports = Slow()
    board = ProfileBoard(ports, ReconcileQueue(), lambda: now_s, lambda: datetime.now(UTC))
    subjects = [idle(number) for number in range(AT_ONCE + 2)]
    running = asyncio.create_task(board.run())
    try:
        for _ in range(5):
            for seen in subjects:
                board.offer(seen)
            now_s += 100.0
        await eventually(lambda: len(ports.asked) == AT_ONCE, "as many as may be")
        ports.may_end.set()
        await eventually(lambda: all(board.measured(f"uid-{at}") for at in range(len(subjects))), "all are measured")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(ports.asked) == [f"10.0.0.{number}" for number in range(len(subjects))]


async def test_of_a_model_that_is_gone_nothing_is_kept() -> None:
    client, ports = FakeClient(), Slow()
    ports.may_end.set()
    await put(client, MODELS, model("demo"), READY_MODEL)
    async with Operator(client, ports).running() as operator:
        board, models = operator.wired.profiles, operator.caches.models
        await eventually(lambda: models.items(), "the Model is known")
        uid = models.items()[0]["metadata"]["uid"]
        seen = idle(1)
        assert seen.model
        board.offer(replace(seen, model=replace(seen.model, uid=uid)))
        await eventually(lambda: board.measured(uid), "it is measured")
        client.remove(MODELS, "demo", "m")
        await eventually(lambda: not board.measured(uid), "it is forgotten")
