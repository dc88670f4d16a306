"""Probe tokens: for workers that were lost, and for those that nobody asks."""

from __future__ import annotations

import orjson
import pytest

from tests.gateway.harness import Exchange, FakeWorker, answers, load, serving
from tests.waiting import eventually

ASK = {"model": "chat", "messages": []}


async def hangs(exchange: Exchange) -> None:
    await exchange.hang()


def probes(worker: FakeWorker) -> int:
    return sum(orjson.loads(one.body).get("prompt") == "probe" for one in worker.asked)


async def test_a_lost_worker_that_reports_again_is_believed_when_it_gives_a_token() -> None:
    bad, good = FakeWorker(hangs, answers, name="chat-aa-1-bad"), FakeWorker(answers, name="chat-aa-1-good")
    bad.load, good.load = load(), load()
    async with serving(bad, good) as gateway:
        state = next(iter(gateway.gateway._fleet))
        await eventually(lambda: all(one.load for one in state.backends), "both were heard")
        bad.load = load(running=1, stalled_s=9.0)
        await eventually(lambda: any(one.loss for one in state.backends), "one is lost")
        bad.load = load()
        await eventually(lambda: probes(bad) == 1, "it is asked for a token")
        asked = bad.load_asked
        await eventually(lambda: bad.load_asked > asked + 2, "it goes on reporting")
        assert any(one.loss for one in state.backends), "a report alone proves nothing"
        assert probes(bad) == 1, "one probe at a time"
        for line in list(bad.lines):
            if line.asks:
                line.transport.abort()
        await eventually(lambda: probes(bad) == 2, "it is asked again")
        await eventually(lambda: not any(one.loss for one in state.backends), "it is believed")
        assert await gateway.metric("requests_total") == 0, "probes are no requests of clients"


async def test_an_idle_worker_is_probed_and_one_that_answers_clients_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.health.prober.IDLE_S", 0.5)
    idle, mute = FakeWorker(answers, name="chat-aa-1-idle"), FakeWorker(answers, name="chat-aa-1-mute")
    idle.load = load()
    async with serving(idle, mute) as gateway:
        await eventually(lambda: probes(idle) >= 2, "the idle one is probed now and then")
        assert probes(mute) == 0
        idle.load = load(running=1)
        state = next(iter(gateway.gateway._fleet))
        await eventually(lambda: any(one.load and one.load.running for one in state.backends), "it is busy now")
        before, asked = probes(idle), idle.load_asked
        await eventually(lambda: idle.load_asked > asked + 4, "longer has passed than it may be idle")
        assert probes(idle) <= before + 1
