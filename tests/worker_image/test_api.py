"""The API before a scripted engine: choices, sampling fields, token counts, errors; through the official client."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import APIStatusError, BadRequestError, InternalServerError, OpenAI
from pydantic import ValidationError

from crds.contract import HEADER_STREAM, JOURNAL_COMPLETE
from tests.waiting import eventually
from tests.worker_image.scripted import CONTEXT, a_server
from worker_image.checkpoint.tokenizer import Vocabulary
from worker_image.engine.messages import Add, Sampling
from worker_image.engine.standing import Standing
from worker_image.errors import RequestError
from worker_image.server.api_types import CompletionRequest
from worker_image.server.chat_types import ChatRequest
from worker_image.server.tokenization import Detokenize, Tokenize
from worker_image.server.validation import Strict, parse_request

MESSAGES: Any = [{"role": "user", "content": "hello"}]
CHAT: Any = {"model": "chat", "messages": MESSAGES}


def hello(_: Add, number: int) -> str:
    return f"hello {number}"


async def test_n_choices_are_numbered_and_counted_once_per_prompt(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        answer = await server.client.chat.completions.create(n=3, seed=7, **CHAT)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == ["hello 0", "hello 1", "hello 2"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3 * len("hello 0!")
    assert answer.usage.prompt_tokens == len(server.engine.adds[0].prompt)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens // 2


async def test_streamed_choices_come_interleaved_and_each_ends_by_itself(tmp_path: Path) -> None:
    async with a_server(tmp_path, lambda add, number: "ab" * (number + 1)) as server:
        stream = await server.client.chat.completions.create(n=2, stream=True, **CHAT)
        texts, order = {0: "", 1: ""}, []
        async for chunk in stream:
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            order.append((choice.index, choice.finish_reason))
    assert texts == {0: "ab", 1: "abab"}
    assert order.index((0, "stop")) < order.index((1, "stop"))
    assert order.index((1, None)) < order.index((0, "stop"))


async def test_several_prompts_are_several_choices_with_their_own_stop_strings(tmp_path: Path) -> None:
    async with a_server(tmp_path, lambda add, number: f"{len(add.prompt)} STOP after") as server:
        answer = await server.client.completions.create(
            model="chat", prompt=["a", "ab", "abc"], n=2, stop=["STOP", "x"], max_tokens=50
        )
        assert [choice.text for choice in answer.choices] == ["1 ", "1 ", "2 ", "2 ", "3 ", "3 "]
        assert {choice.finish_reason for choice in answer.choices} == {"stop"}
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 6
        ids = await server.client.completions.create(model="chat", prompt=[[5, 6], [7]], max_tokens=2)
    assert [choice.text for choice in ids.choices] == ["2 ", "1 "]
    assert sorted(server.engine.cancelled) == [1, 2, 3, 4, 5, 6], "the engine goes on with none of them"


async def test_an_echoed_prompt_stands_before_each_choice(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        arguments: Any = {"model": "chat", "prompt": ["the", "th"], "echo": True}
        whole = await server.client.completions.create(**arguments)
        assert [choice.text for choice in whole.choices] == ["thehello 0", "thhello 0"]
        texts = ["", ""]
        async for chunk in await server.client.completions.create(stream=True, **arguments):
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["thehello 0", "thhello 0"]


async def test_sampling_fields_reach_the_engine(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        await server.client.chat.completions.create(
            temperature=0.5, top_p=0.9, presence_penalty=0.1, frequency_penalty=0.2, logit_bias={"5": -100, "7": 1.5},
            seed=11, max_completion_tokens=9,
            extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 3, "stop_token_ids": [9],
                        "cache_salt": "acme", "priority": 2, "ignore_eos": True}, **CHAT,
        )  # fmt: skip
    (add,) = server.engine.adds
    sampling = add.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 4, 0.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.1, 0.2, 1.1)
    assert (sampling.logit_bias, sampling.seed, sampling.max_tokens) == (((5, -100.0), (7, 1.5)), 11, 9)
    assert (sampling.min_tokens, sampling.stop_ids, add.cache_salt) == (3, (9,), "\0acme")


@pytest.mark.parametrize(("asked", "used"), [(1e-300, 0.0), (9e-6, 0.0), (1e-5, 1e-5), (0.0, 0.0), (None, 1.0)])
async def test_a_temperature_too_low_to_divide_by_takes_the_likeliest(
    tmp_path: Path, asked: float | None, used: float
) -> None:
    async with a_server(tmp_path, hello) as server:
        await server.client.chat.completions.create(temperature=asked, **CHAT)
    assert server.engine.adds[0].sampling.temperature == used


@pytest.mark.parametrize("top_k", [2**31, 2**40, 10**30])
async def test_a_top_k_beyond_any_vocabulary_keeps_every_token(tmp_path: Path, top_k: int) -> None:
    async with a_server(tmp_path, hello) as server:
        await server.client.chat.completions.create(extra_body={"top_k": top_k}, **CHAT)
        (add,) = server.engine.adds
        assert server.served.shape.n_vocabulary < add.sampling.top_k < 2**31, "the card's table holds 32 bits"


async def test_what_cannot_be_said_to_the_engine_is_not_owed_by_it(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        engine = server.state.engine
        await eventually(lambda: engine.stalled_for_s(math.inf) == 0.0, "the engine owes nothing")
        with pytest.raises(TypeError):
            engine.submit([1], Sampling(max_tokens=1, top_k=10**30))
        assert engine.n_open == 0
        assert engine.stalled_for_s(math.inf) == 0.0


async def test_no_salt_of_a_client_reaches_into_what_the_gateways_header_keeps_apart(tmp_path: Path) -> None:
    said: list[tuple[str | None, str | None]] = [(None, None), ("a", None), (None, "a"), ("a", "a"), ("b", "a")]
    async with a_server(tmp_path, hello) as server:
        for header, body in said:
            headers = {} if header is None else {"x-foretide-cache-salt": header}
            await server.client.chat.completions.create(
                extra_headers=headers, extra_body={} if body is None else {"cache_salt": body}, **CHAT
            )
    assert len({add.cache_salt for add in server.engine.adds}) == len(said)


async def test_the_gateways_headers_say_how_a_request_stands(tmp_path: Path) -> None:
    headers = {
        "x-foretide-class": "P1", "x-foretide-tenant": "acme", "x-foretide-weight": "2.5",
        "x-foretide-deadline-ms": "30000", "x-foretide-ttft-target-ms": "500",
    }  # fmt: skip
    async with a_server(tmp_path, hello) as server:
        await server.client.chat.completions.create(extra_headers=headers, **CHAT)
        await server.client.chat.completions.create(**CHAT)
    told, silent = (add.standing for add in server.engine.adds)
    assert told == Standing(1, "acme", 2.5, deadline_s=30.0, ttft_target_s=0.5)
    assert silent == Standing(priority=2, tenant="", weight=1.0)


@pytest.mark.parametrize(
    ("header", "value", "allowed"),
    [
        ("x-foretide-class", "P4", "P0, P1, P2 or P3"),
        ("x-foretide-class", "", "P0, P1, P2 or P3"),
        ("x-foretide-tenant", "", "1 to 256 printable characters"),
        ("x-foretide-tenant", "a" * 257, "1 to 256 printable characters"),
        ("x-foretide-cache-salt", "", "1 to 256 printable characters"),
        ("x-foretide-weight", "0", "a number above 0, at most 1000000"),
        ("x-foretide-weight", "inf", "a number above 0, at most 1000000"),
        ("x-foretide-weight", "1e3", "a number above 0, at most 1000000"),
        ("x-foretide-deadline-ms", "0", "a whole number above 0"),
        ("x-foretide-deadline-ms", "-5", "a whole number above 0"),
        ("x-foretide-ttft-target-ms", "1.5", "a whole number above 0"),
        ("x-foretide-ttft-target-ms", "9" * 5000, "a whole number above 0"),
    ],
)
async def test_a_bad_header_is_named(tmp_path: Path, header: str, value: str, allowed: str) -> None:
    async with a_server(tmp_path, hello) as server:
        with pytest.raises(BadRequestError) as refused:
            await server.client.chat.completions.create(extra_headers={header: value}, **CHAT)
    body: Any = refused.value.body
    assert body["message"] == f"Header '{header}' is '{value[:40]}'; it may be {allowed}."
    assert body["param"] == header
    assert server.engine.adds == []


async def test_a_stream_tells_its_gateway_at_once_how_long_the_prompt_was(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        create = server.client.chat.completions.with_streaming_response.create
        async with create(stream=True, **CHAT) as response:
            told = response.headers["x-foretide-prompt-tokens"]
            await response.read()
    assert int(told) == len(server.engine.adds[0].prompt)


async def test_usage_comes_last_or_with_every_part(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        stream = await server.client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **CHAT
        )
        chunks = [chunk async for chunk in stream]
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == len("hello 0!")
        every: Any = {"include_usage": True, "continuous_usage_stats": True}
        stream = await server.client.chat.completions.create(stream=True, stream_options=every, **CHAT)
        counts = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage is not None]
    assert counts == sorted(counts)
    assert counts[-1] == len("hello 0!")


async def test_log_probabilities_are_written_for_each_choice_streamed_or_not(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        arguments: Any = {"n": 2, "logprobs": True, "top_logprobs": 2, "max_tokens": 3, **CHAT}
        whole = await server.client.chat.completions.create(**arguments)
        entries: dict[int, list[Any]] = {0: [], 1: []}
        async for chunk in await server.client.chat.completions.create(stream=True, **arguments):
            if chunk.choices[0].logprobs is not None:
                entries[chunk.choices[0].index] += chunk.choices[0].logprobs.content or []
    for choice in whole.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content == entries[choice.index]
        assert [entry.token for entry in entries[choice.index]] == ["h", "e", "l"]
        assert [top.logprob for top in entries[choice.index][0].top_logprobs] == [-0.5, -1.5]


async def test_a_request_the_engine_cannot_finish_fails_alone(tmp_path: Path) -> None:
    def script(add: Add, number: int) -> str | Exception:
        return hello(add, number) if add.sampling.seed is None else RuntimeError("the card ran out of memory.")

    async with a_server(tmp_path, script) as server:
        with pytest.raises(InternalServerError, match=r"The card ran out of memory\."):
            await server.client.chat.completions.create(seed=1, **CHAT)
        assert (await server.client.chat.completions.create(**CHAT)).choices[0].message.content == "hello 0"


async def test_a_grammar_that_fails_amid_an_answer_is_the_requests_own_fault(tmp_path: Path) -> None:
    def script(_: Add, number: int) -> str | Exception:
        return RequestError("the grammar failed: Parser Error.")

    body = CHAT | {"response_format": {"type": "json_object"}}
    async with a_server(tmp_path, script) as server:
        with pytest.raises(BadRequestError, match="The grammar failed") as caught:
            await server.client.chat.completions.create(**body)
        assert caught.value.param == "response_format"
        headers = {HEADER_STREAM: "1 a 1"}
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.post("/v1/chat/completions", json=body | {"stream": True}, headers=headers) as answer,
        ):
            *_, event, mark, _ = (await answer.read()).split(b"\n\n")
        assert json.loads(event.removeprefix(b"data: "))["error"]["type"] == "invalid_request_error"
        assert mark == b":" + JOURNAL_COMPLETE, "no other worker is asked"


async def test_while_the_model_is_loaded_requests_get_503_and_when_to_come_again(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello, loaded=False) as server:
        for ask in (server.client.chat.completions.create(**CHAT), server.client.models.retrieve("chat")):
            with pytest.raises(APIStatusError, match="still being loaded") as caught:
                await ask
            assert caught.value.status_code == 503
            assert caught.value.response.headers["retry-after"] == "1"
            assert caught.value.code == "model_loading"
        server.state.loaded(server.served)
        assert (await server.client.chat.completions.create(**CHAT)).choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (ChatRequest, {"messages": [1] * 5000}),
        (ChatRequest, {"messages": [{"role": "user", "content": [1] * 5000}]}),
        (CompletionRequest, {"prompt": [1] + [None] * 5000}),
        (CompletionRequest, {"prompt": [[1] + [None] * 5000]}),
        (Tokenize, {"tools": [1] * 5000, "messages": []}),
        (Detokenize, {"tokens": [None] * 5000}),
    ],
)
def test_a_list_of_mistakes_is_left_at_the_first(kind: type[Strict], wrong: dict[str, Any]) -> None:
    """A body as large as is accepted would hold millions, and telling them apart take gigabytes."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(json.dumps({"model": "chat"} | wrong))
    assert caught.value.error_count() < 8


def test_thousands_of_unknown_fields_are_counted_and_not_named() -> None:
    body = json.dumps({"model": "chat", "prompt": "x"} | dict.fromkeys(map(str, range(1500)), 1)).encode()
    with pytest.raises(RequestError, match="the body has 1500 fields that are wrong or unknown"):
        parse_request(CompletionRequest, body)


@pytest.mark.parametrize(
    ("more", "sentence", "param"),
    [
        ({"n": 0}, "Field 'n': Input should be greater than or equal to 1.", "n"),
        ({"n": 500}, "Field 'n': Input should be less than or equal to 128.", "n"),
        ({"logit_bias": {"9999": 1}}, "Token id 9999 is outside the vocabulary of 261.", "logit_bias"),
        ({"logit_bias": {"the": 1}}, "Field 'logit_bias' has the key 'the'; a key is a token id.", "logit_bias"),
        ({"logit_bias": {"5": 101}}, "Field 'logit_bias.*less than or equal to 100.", None),
        (
            {"logit_bias": dict.fromkeys(map(str, range(1025)), 1)},
            "Field 'logit_bias': Dictionary should have at most 1024 items",
            "logit_bias",
        ),
        (
            {"extra_body": {"stop_token_ids": [1] * 1025}},
            "Field 'stop_token_ids': List should have at most 1024",
            "stop_token_ids",
        ),
        ({"stop": ["a"] * 17}, "Field 'stop': List should have at most 16 items", "stop"),
        ({"stop": ""}, "Field 'stop': String should have at least 1 character.", "stop"),
        ({"extra_body": {"stop_token_ids": [300]}}, "Token id 300 is outside the vocabulary", "stop_token_ids"),
        ({"extra_body": {"min_tokens": 5}, "max_tokens": 4}, "'min_tokens' is 5, more than the 4 tokens", None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "chat template has no tools", "tools"),
        ({"tool_choice": "required"}, "'tool_choice' asks for a call, but there are no 'tools'.", None),
        (
            {"messages": [{"role": "user", "content": "x", "tool_call_id": "1"}]},
            "'tool_call_id' belongs to role 'tool', not to 'user'.",
            "messages.0",
        ),
        ({"messages": [{"role": "user"}]}, "Field 'messages.0': 'content' is required.", "messages.0"),
        (
            {"response_format": {"type": "json_schema"}},
            "'json_schema' is required with type 'json_schema'",
            "response_format",
        ),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, str) else "",
)
async def test_a_bad_value_is_named(tmp_path: Path, more: Any, sentence: str, param: str | None) -> None:
    async with a_server(tmp_path, hello) as server:
        with pytest.raises(BadRequestError, match=sentence) as caught:
            await server.client.chat.completions.create(**CHAT | more)
    assert param is None or caught.value.param == param


async def test_more_choices_than_a_request_may_have_are_refused(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        with pytest.raises(BadRequestError, match="3 prompts × n 50 exceed 128 choices a request"):
            await server.client.completions.create(model="chat", prompt=["a", "b", "c"], n=50)


async def test_tokens_and_text_are_converted_in_both_directions(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        client = server.client
        text = await client.post("/../tokenize", cast_to=object, body={"prompt": "the end", "return_token_strs": True})
        assert text == {
            "count": 5, "max_model_len": 4096, "tokens": server.served.vocabulary.encode("the end", add_bos=False),
            "token_strs": ["the", "Ġ", "e", "n", "d"],
        }  # fmt: skip
        chat: Any = await client.post("/../tokenize", cast_to=object, body={"model": "chat", "messages": MESSAGES})
        back = await client.post("/../detokenize", cast_to=object, body={"tokens": chat["tokens"]})
        assert back == {"prompt": "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"}
        assert (await client.post("/../detokenize", cast_to=object, body={"tokens": text["tokens"]})) == {
            "prompt": "the end"
        }
        with pytest.raises(BadRequestError, match="Either 'prompt' or 'messages' is required"):
            await client.post("/../tokenize", cast_to=object, body={})
        with pytest.raises(BadRequestError, match="Token id 261 is outside the vocabulary"):
            await client.post("/../detokenize", cast_to=object, body={"tokens": [261]})


async def test_a_long_text_is_tokenized_as_a_short_one_is(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        long = await server.client.post("/../tokenize", cast_to=dict, body={"prompt": "the " * 10_000})
        assert long["count"] == 20_000
        with pytest.raises(BadRequestError, match="context is 4096 tokens; the prompt has 20000"):
            await server.client.completions.create(model="chat", prompt="the " * 10_000)


TOO_LONG = "x" * (len("<|endoftext|>") * CONTEXT + 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"prompt": TOO_LONG}),
        ("chat/completions", {"messages": [{"role": "user", "content": TOO_LONG}]}),
        ("../tokenize", {"prompt": TOO_LONG}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    def encode(*_: object, **__: object) -> list[int]:
        raise AssertionError("it costs seconds and gigabytes")

    monkeypatch.setattr(Vocabulary, "encode", encode)
    async with a_server(tmp_path, hello) as server:
        with pytest.raises(BadRequestError, match=r"tokens; the prompt has 53\d+ bytes, which are more") as caught:
            await server.client.post(f"/{path}", cast_to=object, body={"model": "chat"} | body)
        assert caught.value.code == "context_length_exceeded"


async def test_without_prefix_caching_no_two_requests_have_a_salt_in_common(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello, prefix_caching=False) as server:
        for _ in range(2):
            await server.client.chat.completions.create(extra_body={"cache_salt": "same"}, **CHAT)
    assert len({add.cache_salt for add in server.engine.adds}) == 2


async def test_health_and_version_answer_on_the_api_port(tmp_path: Path) -> None:
    async with a_server(tmp_path, hello) as server:
        assert (await server.client.get("/../version", cast_to=dict))["version"]
        await server.client.get("/../health", cast_to=object)
        server.state.drain()
        with pytest.raises(APIStatusError, match="Draining"):
            await server.client.get("/../health", cast_to=object)


async def test_a_stream_that_is_left_ends_all_its_choices(tmp_path: Path) -> None:
    async with a_server(tmp_path, lambda add, number: "x" * 3000) as server:
        stream = await server.client.chat.completions.create(n=2, stream=True, **CHAT)
        await anext(aiter(stream))
        await stream.close()
        await eventually(lambda: server.state.n_open == 0, "the request is forgotten")
    assert sorted(server.engine.cancelled) == [1, 2]


def test_the_synchronous_client_parses_the_same_stream(tmp_path: Path) -> None:
    async def scenario() -> str:
        def read(url: str) -> str:
            with OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
                stream = client.chat.completions.create(stream=True, **CHAT)
                return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        async with a_server(tmp_path, hello) as server:
            return await asyncio.to_thread(read, server.url)

    assert asyncio.run(scenario()) == "hello 0"
