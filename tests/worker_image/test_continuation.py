"""A stream that goes on where another worker stopped, cut after every one of its writes: the client sees one answer.

The engine is a real one with a real (tiny) model; the second worker is the first one, which has kept nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.contract import HEADER_CONTINUE, HEADER_STREAM
from tests.worker_image.servers import WorkerProcess, a_worker
from tests.worker_image.test_chat_tools import PARAMETERS, TOOL_TEMPLATE, TOOLS
from tests.worker_image.tiny_gguf import Shape, tiny_llama, write_gguf
from worker_image.errors import RequestError
from worker_image.server.journal import read_journal

TICKET = "18446744073709551615 abc123 1700000000"
MESSAGES: Any = [{"role": "user", "content": "hello"}]
CHAT: Any = {"model": "chat", "messages": MESSAGES, "max_tokens": 10, "ignore_eos": True}
PLAIN: Any = {"model": "chat", "prompt": "the", "max_tokens": 10, "ignore_eos": True}
USAGE: Any = {"stream_options": {"include_usage": True}}
PENALTIES: Any = {"presence_penalty": 0.4, "frequency_penalty": 0.3, "repetition_penalty": 1.2}
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": PARAMETERS}}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("worker")
    contents = tiny_llama(Shape(context=2048))
    contents.metadata["tokenizer.chat_template"] = TOOL_TEMPLATE
    with a_worker(write_gguf(folder / "tiny.gguf", contents), folder, "--kv-cache-bytes", str(32 << 20)) as running:
        yield running


@pytest.fixture
async def http(worker: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(worker.url, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@dataclass
class Stream:
    """What came of one request: its writes, each with the comment that ended it."""

    fingerprint: str
    units: list[tuple[bytes, bytes]]

    def journal(self, n_units: int) -> bytes:
        return b"".join(comment + b"\n" for _, comment in self.units[:n_units])

    def events(self, start: int = 0, end: int | None = None) -> bytes:
        return b"".join(shown for shown, _ in self.units[start:end])


_UNIT = re.compile(rb"((?:data: [^\n]*\n\n)*):([^\n]*)\n\n")


async def stream(http: aiohttp.ClientSession, body: Any, begun: Stream | None = None, n_units: int = 0) -> Stream:
    """The whole of it, or what follows the first `n_units` writes of one that has begun."""
    data = orjson.dumps(body | {"stream": True})
    headers = {HEADER_STREAM: TICKET}
    if begun is not None:
        headers[HEADER_CONTINUE] = f"{begun.fingerprint} {len(data)}"
        data += begun.journal(n_units)
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    async with http.post(path, data=data, headers=headers) as answer:
        text = await answer.read()
        assert answer.status == 200, text
        units = [(found[1], found[2]) for found in _UNIT.finditer(text)]
        assert b"".join(b"%b:%b\n\n" % unit for unit in units) == text, "each write ends with a comment"
        assert units[-1][1] == b"."
        return Stream(answer.headers[HEADER_STREAM], units)


@dataclass
class Said:
    """One choice as a client would put it together."""

    role: str = ""
    text: str = ""
    calls: list[Any] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)


def read(events: bytes) -> tuple[dict[int, Said], list[Any]]:
    """The choices, and what else an answer says of itself: usage, id, time and end."""
    choices: dict[int, Said] = {}
    about: list[Any] = []
    for event in events.split(b"\n\n")[:-1]:
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            about.append("done")
            continue
        part = orjson.loads(data)
        assert "error" not in part, part
        if part.get("usage") and not part["choices"]:
            # How much was in a cache is another matter: the first worker asked here is the one that fills it.
            about.append(part["usage"] | {"prompt_tokens_details": None})
        assert (part["id"].partition("-")[2], part["created"]) == ("abc123", 1700000000)
        for choice in part["choices"]:
            _add(choices.setdefault(choice["index"], Said()), choice)
    return choices, about


def _add(said: Said, choice: Any) -> None:
    delta = choice.get("delta", {"content": choice.get("text")})
    said.role += delta.get("role") or ""
    said.text += delta.get("content") or ""
    said.calls += [(call["index"], call["function"]) for call in delta.get("tool_calls", ())]
    logprobs = choice["logprobs"]
    if logprobs is not None:
        said.logprobs += logprobs.get("content") or list(
            zip(*(logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")), strict=True)
        )
    said.finish += [choice["finish_reason"]] if choice["finish_reason"] else []


ASKED: dict[str, Any] = {
    "greedy chat": CHAT | {"temperature": 0} | USAGE,
    "seeded, penalised, at least so many": CHAT | PENALTIES | {"seed": 7, "min_tokens": 8, "ignore_eos": False} | USAGE,
    "several choices that nobody seeded": CHAT | {"n": 3, "logprobs": True, "top_logprobs": 2} | USAGE,
    "filters, a bias, usage in each part": CHAT
    | {"top_p": 0.9, "top_k": 40, "min_p": 0.01, "logit_bias": {"70": 5}, "seed": -3, "n": 2}
    | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    "lists of prompts with log probabilities": PLAIN | {"prompt": ["the", "a cat"], "n": 2, "logprobs": 2} | USAGE,
    "an echo of ids": PLAIN | {"prompt": [[5, 6, 7], [8, 9]], "max_tokens": 30, "echo": True, "temperature": 0} | USAGE,
    "a schema": CHAT | {"response_format": SCHEMA, "max_tokens": 60, "ignore_eos": False, "seed": 5} | USAGE,
    "a schema cut short": CHAT | {"response_format": {"type": "json_object"}, "seed": 9, "n": 2},
    "calls that must be made": CHAT
    | {"tools": TOOLS, "tool_choice": "required", "max_tokens": 150, "seed": 2, "ignore_eos": False},
}


@pytest.mark.parametrize("name", ASKED)
async def test_an_answer_cut_after_any_write_goes_on_as_it_would_have(http: aiohttp.ClientSession, name: str) -> None:
    await goes_on_after_every_cut(http, ASKED[name])


async def goes_on_after_every_cut(http: aiohttp.ClientSession, body: Any) -> None:
    whole = await uncut(http, body)
    expected = read(whole.events())
    assert any(said.text or said.calls for said in expected[0].values())
    for cut in cuts(len(whole.units)):
        rest = await stream(http, body, whole, cut)
        assert_same(read(whole.events(0, cut) + rest.events()), expected, f"cut after {cut} writes")
        assert said_in(whole.journal(cut) + rest.journal(-1)) == said_in(whole.journal(-1)), "it may be moved again"


async def uncut(http: aiohttp.ClientSession, body: Any) -> Stream:
    """An answer in six writes or more: a server that is kept from its processor writes several tokens at once."""
    for _ in range(20):
        whole = await stream(http, body)
        if len(whole.units) > 5:
            return whole
    raise AssertionError("there is little to cut")


def assert_same(got: Any, expected: Any, where: str) -> None:
    """Equal but for the last bits of log probabilities, which depend on what else shared the step."""
    match expected:
        case Said():
            assert_same(vars(got), vars(expected), where)
        case float():
            assert got == pytest.approx(expected, abs=1e-4), where
        case dict():
            assert got.keys() == expected.keys(), where
            for key, value in expected.items():
                assert_same(got[key], value, f"{where}, {key}")
        case list() | tuple():
            assert len(got) == len(expected), where
            for one, other in zip(got, expected, strict=True):
                assert_same(one, other, where)
        case _:
            assert got == expected, where


def said_in(journal: bytes) -> list[Any]:
    return [past.tokens for past in read_journal(journal, 128, 1 << 20)]


def cuts(n_units: int) -> list[int]:
    """After every write but the last of a short answer; of a longer one, some 40 that are spread over it."""
    return sorted({1 + (n_units - 2) * i // 39 for i in range(40)}) if n_units > 41 else list(range(1, n_units))


@pytest.mark.parametrize("length", [2, 5])
async def test_a_stop_string_is_found_on_whichever_side_of_the_cut_it_begins(
    http: aiohttp.ClientSession, length: int
) -> None:
    body = PLAIN | {"seed": 4, "max_tokens": 14}
    text = read((await stream(http, body)).events())[0][0].text
    stop = text[6 : 6 + length]
    stopped = body | {"stop": ["never there", stop]} | USAGE
    whole = await stream(http, stopped)
    said = read(whole.events())[0][0]
    assert (said.text, said.finish) == (text[: text.index(stop)], ["stop"])
    for cut in range(1, len(whole.units)):
        rest = await stream(http, stopped, whole, cut)
        assert read(whole.events(0, cut) + rest.events()) == read(whole.events()), f"cut after {cut} writes"


async def test_what_was_in_the_first_workers_cache_is_what_the_usage_says(http: aiohttp.ClientSession) -> None:
    body = CHAT | USAGE | {"messages": [{"role": "user", "content": "a prompt of its own"}]}
    first = await stream(http, body)
    rest = await stream(http, body, first, 1)
    assert b'"cached_tokens":0' in first.units[-1][0]
    assert b'"cached_tokens":0' in rest.units[-1][0], "the second has all of it in its cache"
    again = await stream(http, body)
    assert again.units[0][1].startswith(b"@")
    assert (await stream(http, body, again, 1)).units[-1][0] == again.units[-1][0]


async def test_a_stream_that_is_not_journalled_has_no_comments(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/completions", json=PLAIN | {"stream": True}) as answer:
        assert HEADER_STREAM not in answer.headers
        assert b"\n:" not in await answer.read()


BEGUN = PLAIN | {"stream": True, "n": 2}


@pytest.mark.parametrize(
    ("journal", "sentence"),
    [
        (b"12 x\n", "Line 1 of the journal: '12 x' is no entry."),
        (b"12\n\n-3\n", "Line 3 of the journal: '-3' is no entry."),
        (b"!draining\n", "'!draining' is no entry."),
        (b"\xff\x00\n", "is no entry."),
        (b"1=5;2=6\n", "choice 2 is outside the request's 2 choices."),
        (b"5s\n6\n", "choice 0 goes on after its end."),
        (b"999999\n", "token 999999 is outside the vocabulary of"),
        (b"5 6 7 8 9 10 11 12 13 14\n", "The journal has 10 tokens of choice 0"),
        (b"5 6 7 8 9 10 11 12 13 14 15 16l\n", "The journal has 12 tokens of choice 0"),
    ],
)
async def test_a_journal_that_cannot_be_is_400_with_what_is_wrong(
    http: aiohttp.ClientSession, journal: bytes, sentence: str
) -> None:
    fingerprint = (await stream(http, PLAIN)).fingerprint
    data = orjson.dumps(BEGUN)
    headers = {HEADER_STREAM: TICKET, HEADER_CONTINUE: f"{fingerprint} {len(data)}"}
    async with http.post("/v1/completions", data=data + journal, headers=headers) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (400, "bad_journal")
    assert sentence in error["message"]


@pytest.mark.parametrize(
    ("headers", "status", "sentence"),
    [
        ({HEADER_STREAM: "x"}, 400, "it is '<seed> <id> <created>'"),
        ({HEADER_STREAM: f"{2**64} a 1"}, 400, "it is '<seed> <id> <created>'"),
        ({HEADER_STREAM: TICKET, HEADER_CONTINUE: "abc"}, 400, "it is '<fingerprint> <bytes of the original body>'"),
        ({HEADER_STREAM: TICKET, HEADER_CONTINUE: "ab 999999"}, 400, "and the body has"),
        ({HEADER_CONTINUE: "ab 10"}, 400, f"needs '{HEADER_STREAM}' beside it"),
        ({HEADER_STREAM: TICKET, HEADER_CONTINUE: "ab 10"}, 409, "begun by a worker with fingerprint ab"),
    ],
)
async def test_headers_that_cannot_be_understood_and_other_fingerprints_are_refused(
    http: aiohttp.ClientSession, headers: dict[str, str], status: int, sentence: str
) -> None:
    async with http.post("/v1/completions", json=BEGUN, headers=headers) as answer:
        assert answer.status == status
        assert sentence in (await answer.json())["error"]["message"]


async def test_only_a_stream_goes_on(http: aiohttp.ClientSession) -> None:
    fingerprint, data = (await stream(http, PLAIN)).fingerprint, orjson.dumps(PLAIN)
    headers = {HEADER_STREAM: TICKET, HEADER_CONTINUE: f"{fingerprint} {len(data)}"}
    async with http.post("/v1/completions", data=data, headers=headers) as answer:
        assert answer.status == 400
        assert "only a stream goes on" in (await answer.json())["error"]["message"].lower()


@given(st.binary(max_size=60))
def test_whatever_a_journal_holds_it_is_read_or_refused(journal: bytes) -> None:
    try:
        pasts = read_journal(journal, 3, 100)
    except RequestError:
        return
    assert all(0 <= token.token < 100 for past in pasts for token in past.tokens)
    assert all(token.finish is None for past in pasts for token in past.tokens[:-1])
