"""A worker process from start to exit: refusals, drain, signals, a dead or a stuck engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from crds.contract import HEADER_DRAINING
from tests.waiting import eventually
from tests.worker_image.servers import WorkerProcess, a_worker
from tests.worker_image.tiny_gguf import Contents, Shape, tiny_llama, write_gguf

LONG: Any = {"model": "chat", "prompt": "the", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}
ENDLESS: Any = LONG | {"max_tokens": 16000}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", tiny_llama(Shape(context=20000)))


async def read_stream(url: str, body: Any, started: asyncio.Event) -> list[dict[str, Any]]:
    """The events of a streamed completion, as JSON, without [DONE]."""
    events: list[dict[str, Any]] = []
    async with (
        aiohttp.ClientSession(url) as session,
        session.post("/v1/completions", json=body | {"stream": True}) as a,
    ):
        assert a.status == 200
        async for line in a.content:
            if line.startswith(b"data: {"):
                events.append(json.loads(line[6:]))
                started.set()
    return events


async def test_sigterm_answers_503_to_new_requests_finishes_open_ones_and_exits_0(model: Path, tmp_path: Path) -> None:
    with a_worker(model, tmp_path, "--stall-limit-s", "600", "--kv-cache-bytes", str(64 << 20)) as worker:
        engine = worker.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        open_request = asyncio.create_task(read_stream(worker.url, LONG, asyncio.Event()))
        await eventually(lambda: worker.health()["open_requests"] == 1, "the request is open")
        worker.signal(signal.SIGTERM)
        await eventually(lambda: worker.admin("/health/ready")[0] == 503, "readiness says draining")
        async with aiohttp.ClientSession(worker.url) as session, session.post("/v1/completions", json=LONG) as answer:
            assert answer.status == 503
            assert answer.headers[HEADER_DRAINING] == "true"
            assert (await answer.json())["error"]["code"] == "draining"
        assert worker.admin("/health/live")[0] == 200
        os.kill(engine, signal.SIGCONT)
        events = await open_request
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        assert await asyncio.to_thread(worker.wait) == 0


async def test_drain_refuses_new_requests_and_the_process_stays(model: Path, tmp_path: Path) -> None:
    with a_worker(model, tmp_path) as worker:
        assert worker.admin("/drain")[0] == worker.admin("/drain")[0] == 200
        assert worker.admin("/health/ready")[0] == 503
        async with aiohttp.ClientSession(worker.url) as session, session.post("/v1/completions", json=LONG) as answer:
            assert (answer.status, answer.headers[HEADER_DRAINING]) == (503, "true")
        assert worker.admin("/health/live")[0] == 200
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 0


@pytest.mark.parametrize("cut", ["second signal", "timeout"])
async def test_a_second_signal_or_the_timeout_ends_the_drain_at_once(model: Path, tmp_path: Path, cut: str) -> None:
    flags = ("--drain-timeout-s", "1.5") if cut == "timeout" else ()
    with a_worker(model, tmp_path, "--kv-cache-bytes", str(64 << 20), *flags) as worker:
        started = asyncio.Event()
        open_request = asyncio.create_task(read_stream(worker.url, ENDLESS, started))
        await started.wait()
        worker.signal(signal.SIGTERM)
        if cut == "second signal":
            await eventually(lambda: worker.admin("/health/ready")[0] == 503, "the drain has begun")
            worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 130
        await asyncio.gather(open_request, return_exceptions=True)


async def test_a_dead_engine_fails_open_requests_and_ends_the_worker(model: Path, tmp_path: Path) -> None:
    with a_worker(model, tmp_path, "--kv-cache-bytes", str(64 << 20)) as worker:
        started = asyncio.Event()
        streamed = asyncio.create_task(read_stream(worker.url, ENDLESS, started))
        await started.wait()
        async with aiohttp.ClientSession(worker.url) as session:
            whole = asyncio.create_task(session.post("/v1/completions", json=ENDLESS).__aenter__())
            await eventually(lambda: worker.health()["open_requests"] == 2, "both requests are open")
            os.kill(worker.engine_pid(), signal.SIGKILL)
            answer = await whole
            assert (answer.status, answer.headers["x-foretide-engine-ended"]) == (500, "true")
            assert "engine process ended with code -9" in (await answer.json())["error"]["message"]
        assert (await streamed)[-1]["error"]["code"] == "engine_failed"
        assert await asyncio.to_thread(worker.wait) == 1
        assert "ended by itself" in worker.output


async def test_liveness_fails_while_the_engine_owes_an_answer_and_does_not_move(model: Path, tmp_path: Path) -> None:
    with a_worker(model, tmp_path, "--stall-limit-s", "1", "--kv-cache-bytes", str(64 << 20)) as worker:
        engine = worker.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        assert worker.admin("/health/live")[0] == 200, "an idle engine owes nothing"
        request = asyncio.create_task(read_stream(worker.url, LONG, asyncio.Event()))
        await eventually(lambda: worker.admin("/health/live")[0] == 503, "liveness notices")
        assert "made no progress" in worker.health()["message"]
        assert worker.admin("/health/ready")[0] == 503
        async with aiohttp.ClientSession(worker.url) as session:
            async with session.get("/health") as answer:
                assert "made no progress" in (await answer.json())["error"]["message"]
            async with session.get("/load") as answer:
                assert (await answer.json())["ready"], "gateways tell one that hangs from one that loads"
        os.kill(engine, signal.SIGCONT)
        await eventually(lambda: worker.admin("/health/live")[0] == 200, "liveness recovers")
        assert worker.admin("/health/ready")[0] == 200
        await request


async def test_an_engine_that_hangs_stays_dead_when_its_request_is_taken_back(model: Path, tmp_path: Path) -> None:
    """As gateways do, who know sooner: else nobody would ever restart it."""
    with a_worker(model, tmp_path, "--stall-limit-s", "1", "--kv-cache-bytes", str(64 << 20)) as worker:
        engine = worker.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        request = asyncio.create_task(read_stream(worker.url, LONG, asyncio.Event()))
        await eventually(lambda: worker.admin("/health/live")[0] == 503, "liveness notices")
        request.cancel()
        await eventually(lambda: worker.health()["open_requests"] == 0, "the request is taken back")
        assert worker.admin("/health/live")[0] == 503, "it owes a word about it"
        os.kill(engine, signal.SIGCONT)
        await eventually(lambda: worker.admin("/health/live")[0] == 200, "it says that it has nothing to do")


async def test_a_worker_with_too_much_in_its_scratch_folder_hands_its_streams_over_and_empties_it_as_it_starts_again(
    model: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    (scratch / "cache").mkdir(parents=True)
    flags = ("--scratch", str(scratch), "--scratch-bytes", str(1 << 20), "--kv-cache-bytes", str(64 << 20))
    with a_worker(model, tmp_path, *flags) as worker:
        started = asyncio.Event()
        endless = asyncio.create_task(read_stream(worker.url, ENDLESS, started))
        await started.wait()
        (scratch / "cache/grown").write_bytes(b"x" * (2 << 20))
        await eventually(lambda: worker.admin("/health/ready")[0] == 503, "it refuses new requests")
        assert await asyncio.to_thread(worker.wait) == 3
        await asyncio.gather(endless, return_exceptions=True)
        assert f"the scratch folder {scratch} holds 2 MiB; it may hold 1 MiB" in worker.output
    with a_worker(model, tmp_path, *flags) as worker:
        assert list(scratch.iterdir()) == []
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 0


async def test_a_scratch_folder_below_its_limit_is_kept(model: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "kernels").write_bytes(b"compiled")
    with a_worker(model, tmp_path, "--scratch", str(scratch)) as worker:
        assert (scratch / "kernels").read_bytes() == b"compiled"
        assert worker.admin("/health/ready")[0] == 200


@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_a_port_that_another_has_ends_the_start_with_one_sentence_and_code_2(
    model: Path, tmp_path: Path, flag: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        worker = WorkerProcess(model, tmp_path / "log", flag, str(taken))
        try:
            assert worker.wait(60.0) == 2, worker.output
        finally:
            worker.stop()
    assert f"{flag} {taken}, --host 127.0.0.1: cannot listen" in worker.output.splitlines()[-1]
    assert "Traceback" not in worker.output


def no_engine_is_left(worker: WorkerProcess, engine_pid: int) -> bool:
    try:
        return "worker_image" not in Path(f"/proc/{engine_pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_no_engine_outlives_its_server(model: Path, tmp_path: Path) -> None:
    with a_worker(model, tmp_path) as worker:
        engine = worker.engine_pid()
        worker.signal(signal.SIGKILL)
        await eventually(lambda: no_engine_is_left(worker, engine), "the engine ends after its server")


def truncated(path: Path, contents: Contents) -> None:
    whole = write_gguf(path, contents).read_bytes()
    path.write_bytes(whole[:-64])


def unknown_quantisation(path: Path, contents: Contents) -> None:
    contents.encodings["blk.0.attn_q.weight"] = 13
    write_gguf(path, contents)


def unknown_architecture(path: Path, contents: Contents) -> None:
    contents.metadata["general.architecture"] = "rwkv"
    write_gguf(path, contents)


def whole(path: Path, contents: Contents) -> None:
    write_gguf(path, contents)


@pytest.mark.parametrize(
    ("write", "flags", "sentence"),
    [
        (truncated, (), "tiny.gguf: is truncated: tensor 'output_norm.weight' reaches byte"),
        (unknown_quantisation, (), "tensor 'blk.0.attn_q.weight' is quantised as Q5_K"),
        (unknown_architecture, (), "architecture 'rwkv' is not supported"),
        (whole, ("--digest", "sha256:" + "ab" * 32), "was asked for. Fetch it again."),
        (whole, ("--max-model-len", "9999"), "the model was trained for 256 tokens"),
        (whole, ("--max-num-batched-tokens", "8"), "it must be more than --max-num-seqs"),
    ],
)
def test_what_cannot_be_served_ends_the_start_with_one_sentence_and_code_2(
    tmp_path: Path, write: Callable[[Path, Contents], None], flags: tuple[str, ...], sentence: str
) -> None:
    write(tmp_path / "tiny.gguf", tiny_llama())
    worker = WorkerProcess(tmp_path, tmp_path / "log", "--log-format", "json", *flags)
    try:
        assert worker.wait(60.0) == 2
    finally:
        worker.stop()
    last = json.loads(worker.output.splitlines()[-1])
    assert last["level"] == "critical"
    assert sentence in last["message"]
    assert "Traceback" not in worker.output
