"""What a worker says of its load, and of a step that takes long."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.contract import WORKER_PATH_LOAD
from tests.waiting import eventually
from tests.worker_image.engine.fake_engine import Fake
from tests.worker_image.scripted import a_server
from tests.worker_image.servers import a_worker
from tests.worker_image.tiny_gguf import Shape, tiny_llama, write_gguf
from worker_image.engine.messages import Add, Expect, Sampling, StepKind, decode, encode
from worker_image.engine.pace import WARM_UP_S, Pace
from worker_image.server.load import WINDOW_S, Utilisation


def test_the_first_step_of_a_kind_is_a_warm_up_and_may_take_long() -> None:
    pace = Pace()
    assert pace.expected(8, 0) == pace.expected(0, 3) == Expect(StepKind.WARM_UP, WARM_UP_S)


def test_a_prefill_is_expected_to_take_what_its_tokens_took_before() -> None:
    pace = Pace()
    pace.took(0, 4, 0.1)
    pace.took(100, 4, 1.0)
    assert pace.expected(200, 4) == Expect(StepKind.PREFILL, pytest.approx(2.1))
    assert pace.expected(0, 4) == Expect(StepKind.DECODE, pytest.approx(0.1))


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=50))
def test_one_stop_of_the_process_does_not_make_the_next_hang_invisible(steps: list[float]) -> None:
    pace = Pace()
    for step_s in steps:
        pace.took(0, 1, step_s)
    usual_s = pace.expected(0, 1).expected_s
    pace.took(0, 1, 3600.0)
    assert pace.expected(0, 1).expected_s <= 4 * usual_s


def test_the_engine_announces_its_first_steps_and_no_short_ones() -> None:
    fake, said = Fake.build(), []
    fake.engine.on_long_step(said.append)
    assert fake.engine.prepare() is False
    assert [one.kind for one in said] == [StepKind.CAPTURE, StepKind.CAPTURE]
    fake.engine.add(Add(1, [1, 2, 3], Sampling(max_tokens=20, seed=1)))
    fake.run()
    kinds = [one.kind for one in said[2:]]
    assert kinds
    assert set(kinds) == {StepKind.WARM_UP}
    said.clear()
    fake.engine.add(Add(2, [1, 2, 3], Sampling(max_tokens=20, seed=1)))
    fake.run()
    assert said == []


def test_what_is_expected_survives_the_wire() -> None:
    message = Expect(StepKind.PREFILL, 2.5)
    assert decode(encode(message)[4:]) == message


def test_utilisation_is_the_share_of_the_last_seconds() -> None:
    utilisation = Utilisation()
    assert utilisation.at(10.0, 5.0) == 0.0
    assert utilisation.at(10.5, 5.5) == 1.0
    for step in range(1, 21):
        last = utilisation.at(10.5 + step / 4, 5.5)
    assert last == 0.0
    assert len(utilisation._samples) <= WINDOW_S * 4 + 2


async def test_load_is_told_while_loading_and_tells_waiting_and_running(tmp_path: Path) -> None:
    async with a_server(tmp_path, lambda add, n: "the " * 50, loaded=False) as server:
        facts = await load_of(server.url)
        assert (facts["ready"], facts["message"], facts["model"]) == (False, "the model is being loaded", None)
        server.state.loaded(server.served)
        server.engine.held.clear()
        asking = asyncio.create_task(server.client.completions.create(model="chat", prompt="the", max_tokens=5))
        await eventually(lambda: server.state.engine.load.running == 1, "the request runs")
        facts = await load_of(server.url)
        assert (facts["ready"], facts["running"], facts["waiting"], facts["model"]) == (True, 1, 0, "chat")
        server.engine.held.set()
        await asking
        server.state.drain()
        facts = await load_of(server.url)
        assert (facts["ready"], facts["draining"], facts["stalled_s"]) == (False, True, 0.0)
        assert facts["steps"] >= 5


async def load_of(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession(url) as session, session.get(WORKER_PATH_LOAD) as answer:
        assert answer.status == 200
        facts: dict[str, Any] = await answer.json()
        return facts


async def test_a_stopped_engine_shows_as_stalled_and_an_idle_one_does_not(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", tiny_llama(Shape(context=20000)))
    body = {"model": "chat", "prompt": "the", "max_tokens": 100, "ignore_eos": True}
    with a_worker(model, tmp_path, "--kv-cache-bytes", str(64 << 20), "--max-num-seqs", "7") as worker:

        def facts() -> dict[str, Any]:
            with urllib.request.urlopen(worker.url + WORKER_PATH_LOAD, timeout=10) as answer:
                told: dict[str, Any] = json.loads(answer.read())
                return told

        assert (facts()["max_num_seqs"], facts()["stalled_s"]) == (7, 0.0)
        engine = worker.engine_pid()
        async with aiohttp.ClientSession(worker.url) as session:
            async with session.post("/v1/completions", json=body) as answer:
                assert answer.status == 200
            await eventually(lambda: (now := facts())["steps"] > 20 and now["utilisation"] > 0.0, "its work shows")
            os.kill(engine, signal.SIGSTOP)
            asking = asyncio.create_task(session.post("/v1/completions", json=body).__aenter__())
            await eventually(lambda: facts()["stalled_s"] > 0.5, "the stall shows")
            assert facts()["step"] is None, "no long step was announced"
            os.kill(engine, signal.SIGCONT)
            assert (await asking).status == 200
            await eventually(lambda: facts()["stalled_s"] == 0.0, "an idle engine owes nothing")
