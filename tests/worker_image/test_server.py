"""The worker's API over loopback, with the official client and with raw HTTP where the client would hide things."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from tests.waiting import eventually
from tests.worker_image.servers import WorkerProcess, a_worker
from tests.worker_image.tiny_gguf import Shape, tiny_llama, write_gguf

MESSAGES: Any = [{"role": "user", "content": "hello"}]
GREEDY: Any = {"temperature": 0, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("worker")
    model = write_gguf(folder / "tiny.gguf", tiny_llama(Shape(context=4096)))
    with a_worker(model, folder, "--kv-cache-bytes", str(64 << 20)) as running:
        yield running


@pytest.fixture
async def client(worker: WorkerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=worker.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(worker: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(worker.url) as session:
        yield session


async def test_models_are_listed_under_every_served_name(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["chat", "demo/chat"]
    assert (await client.models.retrieve("demo/chat")).id == "demo/chat"
    with pytest.raises(NotFoundError, match="The model 'other' does not exist; this worker serves chat, demo/chat"):
        await client.models.retrieve("other")


async def test_a_streamed_chat_says_what_the_whole_one_says_with_the_same_usage(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=20, **GREEDY)
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (20, "length")
    stream = await client.chat.completions.create(
        model="demo/chat", messages=MESSAGES, max_completion_tokens=20, stream=True,
        stream_options={"include_usage": True}, **GREEDY,
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    # The second time, the prompt is found in the prefix cache.
    assert chunks[-1].usage.model_copy(update={"prompt_tokens_details": None}) == whole.usage.model_copy(
        update={"prompt_tokens_details": None}
    )


async def test_completions_take_text_and_token_ids_and_stream(client: AsyncOpenAI) -> None:
    arguments: Any = {"model": "chat", "max_tokens": 12, **GREEDY}
    ids = [3 + i for i in range(5)]
    from_ids = await client.completions.create(prompt=ids, **arguments)
    assert from_ids.usage is not None
    assert from_ids.usage.prompt_tokens == 5
    assert (await client.completions.create(prompt=[ids], **arguments)).choices[0].text == from_ids.choices[0].text
    text = await client.completions.create(prompt="the", **arguments)
    parts = [
        part.choices[0].text async for part in await client.completions.create(prompt="the", stream=True, **arguments)
    ]
    assert "".join(parts) == text.choices[0].text


async def test_a_seed_repeats_a_sampled_answer(client: AsyncOpenAI) -> None:
    arguments: Any = {
        "model": "chat", "messages": MESSAGES, "max_tokens": 16, "temperature": 1.0, "top_p": 0.95,
        "presence_penalty": 0.2, "frequency_penalty": 0.1, "extra_body": {"top_k": 50, "min_p": 0.01},
    }  # fmt: skip
    answers = [await client.chat.completions.create(seed=seed, **arguments) for seed in (5, 5, 6)]
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts[0] == texts[1] != texts[2]


async def test_a_stop_string_ends_the_answer_before_it(client: AsyncOpenAI) -> None:
    arguments: Any = {"model": "chat", "prompt": "the", "max_tokens": 40, **GREEDY}
    text = (await client.completions.create(**arguments)).choices[0].text
    stop = text[10:13]
    cut = await client.completions.create(stop=["never there", stop], **arguments)
    assert cut.choices[0].text == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    parts = [
        part.choices[0].text async for part in await client.completions.create(stop=stop, stream=True, **arguments)
    ]
    assert "".join(parts) == cut.choices[0].text


async def test_log_probabilities_come_in_openais_shapes(client: AsyncOpenAI) -> None:
    chat = await client.chat.completions.create(
        model="chat", messages=MESSAGES, max_tokens=3, logprobs=True, top_logprobs=2, **GREEDY
    )
    assert chat.choices[0].logprobs is not None
    assert chat.choices[0].logprobs.content is not None
    for entry in chat.choices[0].logprobs.content:
        assert entry.logprob == entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob
    plain = await client.completions.create(model="chat", prompt="the", max_tokens=3, logprobs=2, **GREEDY)
    assert plain.choices[0].logprobs is not None
    assert plain.choices[0].logprobs.token_logprobs is not None
    assert len(plain.choices[0].logprobs.token_logprobs) == 3


CHAT: Any = {"model": "chat", "messages": MESSAGES}


@pytest.mark.parametrize(
    ("body", "status", "sentence", "param"),
    [
        (b'{"model": "chat"', 400, "The body is no valid JSON: EOF while parsing", None),
        (b"[1]", 400, "Input should be an object", None),
        (b"\xff\xfe", 400, "The body is no valid JSON", None),
        ({"model": "chat"}, 400, "Field 'messages' is required.", "messages"),
        ({"model": "chat", "mesages": []}, 400, "Field 'mesages' is not supported by this worker", "mesages"),
        (CHAT | {"frobnicate": 1}, 400, "Field 'frobnicate' is not supported by this worker; remove it.", "frobnicate"),
        (CHAT | {"temperature": "hot"}, 400, "Field 'temperature': Input should be a valid number.", "temperature"),
        (
            CHAT | {"temperature": 3},
            400,
            "Field 'temperature': Input should be less than or equal to 2.",
            "temperature",
        ),
        (CHAT | {"tools": [{"type": "function"}]}, 400, "Field 'tools.0.function' is required.", "tools.0.function"),
        (CHAT | {"response_format": {"type": "xml"}}, 400, "Field 'response_format.type' has a value", None),
        (
            CHAT | {"store": True},
            400,
            "Field 'store' has a value this worker does not support; it may be False",
            "store",
        ),
        (CHAT | {"stream_options": {}}, 400, "'stream_options' is only allowed when 'stream' is true.", None),
        (CHAT | {"top_logprobs": 2}, 400, "'top_logprobs' is only allowed when 'logprobs' is true.", None),
        (CHAT | {"messages": []}, 400, "Field 'messages': List should have at least 1 item", "messages"),
        (CHAT | {"messages": [{"role": "robot", "content": ""}]}, 400, "Field 'messages.0.role' has a value", None),
        (CHAT | {"model": "other"}, 404, "The model 'other' does not exist", "model"),
        (CHAT | {"max_tokens": 5000}, 400, "context is 4096 tokens; the prompt has 24 and 5000 more", "messages"),
        (
            CHAT | {"messages": [{"role": "user", "content": "x" * 5000}]},
            400,
            "context is 4096 tokens; .* 5",
            "messages",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
async def test_a_bad_request_is_answered_with_a_sentence(
    http: aiohttp.ClientSession, body: Any, status: int, sentence: str, param: str | None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body)
    async with http.post("/v1/chat/completions", data=data) as answer:
        error = (await answer.json())["error"]
    assert answer.status == status
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(sentence, error["message"]), error["message"]
    assert param is None or error["param"] == param


async def test_the_client_library_understands_a_refusal(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError, match="Shorten the prompt or lower max_tokens") as caught:
        await client.completions.create(model="chat", prompt="the " * 5000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError, match="Token id 99999 is outside the vocabulary"):
        await client.completions.create(model="chat", prompt=[5, 99999])


async def test_a_path_that_is_not_there_is_answered_in_openais_shape(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/nothing") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_request_id_is_echoed_or_given(http: aiohttp.ClientSession, stream: bool) -> None:
    body = CHAT | {"max_tokens": 1, "stream": stream}
    async with http.post("/v1/chat/completions", json=body, headers={"x-request-id": "abc-1"}) as answer:
        assert answer.headers["x-request-id"] == "abc-1"
        await answer.read()
    async with http.post("/v1/chat/completions", json=body) as answer:
        assert len(answer.headers["x-request-id"]) == 32
        await answer.read()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place_before_the_answer_is_whole(
    worker: WorkerProcess, stream: bool
) -> None:
    body = {"model": "chat", "prompt": "the", "max_tokens": 4000, "stream": stream, "ignore_eos": True}

    async def ask() -> None:
        async with aiohttp.ClientSession(worker.url) as session, session.post("/v1/completions", json=body) as answer:
            await answer.read()

    def tokens() -> float:
        return worker.metric("vllm:generation_tokens_total")

    before = tokens()
    asking = asyncio.create_task(ask())
    await eventually(lambda: tokens() > before, "the engine works on it")
    asking.cancel()
    await eventually(lambda: worker.health()["open_requests"] == 0, "the request is forgotten")
    await eventually(lambda: worker.metric("vllm:num_requests_running") == 0, "it is nobody's load")
    await eventually(lambda: worker.metric("vllm:kv_cache_usage_perc") == 0, "its place is free")
    assert tokens() - before < 4000


async def test_many_requests_at_once_give_what_each_gives_alone(client: AsyncOpenAI) -> None:
    async def ask(word: str) -> str:
        answer = await client.completions.create(model="chat", prompt=word, max_tokens=15, **GREEDY)
        return answer.choices[0].text

    words = [f"{i} the {i * i}" for i in range(10)]
    alone = [await ask(word) for word in words]
    assert await asyncio.gather(*(ask(word) for word in words)) == alone


async def test_metrics_count_tokens_and_requests_under_vllms_names(worker: WorkerProcess, client: AsyncOpenAI) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_count",
             "vllm:inter_token_latency_seconds_count", "vllm:e2e_request_latency_seconds_count",
             "vllm:request_success_total")  # fmt: skip
    before = [worker.metric(name) for name in names]
    answer = await client.completions.create(model="chat", prompt=[5, 6, 7], max_tokens=9, **GREEDY)
    assert answer.usage is not None
    after = [worker.metric(name) for name in names]
    prompt, generated, first, between, *ended = (b - a for a, b in zip(before, after, strict=True))
    assert (prompt, generated, first, *ended) == (3, 9, 1, 1, 1)
    # A server that waits for a core gets the first tokens together, between which it saw no time pass.
    assert 0 < between <= 8
    assert 'vllm:num_requests_running{model_name="chat"} 0.0' in worker.admin("/metrics")[1]
