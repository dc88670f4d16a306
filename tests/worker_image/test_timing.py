"""What a traced request is told of its time."""

from pathlib import Path

import aiohttp
import pytest

from crds.contract import HEADER_STREAM, HEADER_TIMING
from tests.worker_image.scripted import a_server
from worker_image.server.metrics import Ended
from worker_image.server.timing import is_traced, server_timing


def ended(queue_s: float | None, prefill_s: float | None, decode_s: float | None) -> Ended:
    return Ended("stop", 2, 1.0, queue_s, prefill_s, decode_s, prompt_tokens=812, generation_tokens=41)


def test_each_phase_counts_as_long_as_it_took_the_slowest_choice() -> None:
    told = server_timing([ended(0.001, 0.2, 1.0), ended(0.003, 0.1, 0.9)], 41)
    assert told == "queue;dur=3.000, prefill;dur=200.000;desc=812, decode;dur=1000.000;desc=41"


def test_a_phase_that_was_not_reached_is_left_out() -> None:
    assert server_timing([ended(0.001, None, None)], 0) == "queue;dur=1.000"
    assert server_timing([], 0) == ""


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("03", True), ("00", False), ("02", False)])
def test_only_a_sampled_request_is_traced(flags: str, sampled: bool) -> None:
    assert is_traced({"traceparent": f"00-{'a' * 32}-{'b' * 16}-{flags}"}) is sampled


def test_a_header_that_is_none_is_no_trace() -> None:
    assert not is_traced({})
    assert not is_traced({"traceparent": "01"})


TRACED = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


async def test_a_server_tells_its_time_with_whole_answers_and_at_the_end_of_journals(tmp_path: Path) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    async with a_server(tmp_path, lambda add, number: "hello") as server, aiohttp.ClientSession() as session:
        url = f"{server.client.base_url}chat/completions"
        async with session.post(url, json=body, headers=TRACED) as whole:
            assert whole.headers[HEADER_TIMING].startswith("queue;dur=")
        async with session.post(url, json=body) as untraced:
            assert HEADER_TIMING not in untraced.headers
        headers = TRACED | {HEADER_STREAM: "7 abc 1700000000"}
        async with session.post(url, json=body | {"stream": True}, headers=headers) as stream:
            assert b"\n:.queue;dur=" in await stream.read()
