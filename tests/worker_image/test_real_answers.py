"""SmolLM2-135M-Instruct through the whole worker, with the official client: processes, sockets, grammar, text."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI

from e2e import checkpoint as checkpoints
from tests.worker_image.servers import WorkerProcess, a_worker

pytestmark = pytest.mark.checkpoint
CAPITAL: Any = {
    "model": "chat", "temperature": 0, "max_tokens": 24,
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
}  # fmt: skip
CITY: Any = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "country": {"enum": ["France", "Spain"]},
        "population_millions": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["city", "country", "population_millions"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("worker")
    with a_worker(
        checkpoints.path(), folder, "--device", "cpu", "--max-model-len", "1024", "--kv-cache-bytes", str(256 << 20)
    ) as running:
        yield running


@pytest.fixture
async def client(worker: WorkerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=worker.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_synchronous_client_streams_the_answer(worker: WorkerProcess) -> None:
    with OpenAI(base_url=worker.url + "/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(stream=True, **CAPITAL)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "Paris" in text


async def test_greedy_choices_are_equal_and_seeded_ones_differ_and_repeat(client: AsyncOpenAI) -> None:
    greedy = await client.chat.completions.create(n=2, **CAPITAL)
    assert greedy.choices[0].message.content == greedy.choices[1].message.content
    free: Any = CAPITAL | {"temperature": 1.5, "n": 3, "seed": 4}
    first, second = [await client.chat.completions.create(**free) for _ in range(2)]
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in second.choices]


async def test_an_answer_bound_to_a_schema_satisfies_it(client: AsyncOpenAI) -> None:
    format: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    answer = await client.chat.completions.create(response_format=format, **CAPITAL | {"max_tokens": 100})
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), CITY)


async def test_a_biased_token_is_never_or_always_chosen(client: AsyncOpenAI) -> None:
    greedy: Any = {"model": "chat", "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}
    plain = await client.completions.create(**greedy)
    assert plain.choices[0].text == " Paris"
    tokens: Any = await client.post("/../tokenize", cast_to=object, body={"prompt": " Paris"})
    (paris,) = tokens["tokens"]
    banned = await client.completions.create(logit_bias={str(paris): -100}, **greedy)
    assert banned.choices[0].text != " Paris"
    forced = await client.completions.create(
        model="chat", prompt="One, two,", max_tokens=3, temperature=1, logit_bias={str(paris): 100}
    )
    assert forced.choices[0].text == " Paris Paris Paris"


async def test_a_prompt_that_was_seen_is_found_in_the_cache(client: AsyncOpenAI, worker: WorkerProcess) -> None:
    arguments: Any = {"model": "chat", "prompt": "Once upon a time, " * 30, "max_tokens": 1}
    usages = [(await client.completions.create(**arguments)).usage for _ in range(2)]
    cached = [u.prompt_tokens_details.cached_tokens for u in usages if u is not None and u.prompt_tokens_details]
    assert cached[0] == 0
    assert cached[1] is not None
    assert cached[1] > 100
    assert worker.metric("vllm:prefix_cache_hits_total") >= cached[1]
    salted = await client.completions.create(extra_body={"cache_salt": "another"}, **arguments)
    assert salted.usage is not None
    assert salted.usage.prompt_tokens_details is not None
    assert salted.usage.prompt_tokens_details.cached_tokens == 0


async def test_its_template_knows_no_tools(client: AsyncOpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(BadRequestError, match="chat template has no tools"):
        await client.chat.completions.create(tools=tools, **CAPITAL)
