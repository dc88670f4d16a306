"""Grammars of formats and tools, and the child that says whether they can be compiled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer, models

from tests.waiting import eventually
from tests.worker_image.tiny_gguf import tiny_llama, write_gguf
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary
from worker_image.errors import EngineError, RequestError
from worker_image.text.grammar import json_object_grammar, json_schema_grammar, tools_grammar
from worker_image.text.grammar_check import GrammarCheck, GrammarLimits
from worker_image.text.tool_calls import Call, tool_calls
from worker_image.text.tool_format import HERMES, LLAMA, ToolFormat

PERSON: Any = {
    "type": "object",
    "properties": {
        "name": {"enum": ["Anna", "Böll"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return load_vocabulary(GgufFile(write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", tiny_llama())))


@pytest.fixture
async def check(vocabulary: Vocabulary) -> AsyncIterator[GrammarCheck]:
    check = GrammarCheck(vocabulary, GrammarLimits())
    yield check
    await check.stop()


def sentences(vocabulary: Vocabulary, grammar: str, n: int) -> Iterator[str]:
    """Random ones: each token drawn from those that may come next, the end as soon as it may."""
    tokenizer = LLTokenizer(vocabulary.tokenizer.to_str(), len(vocabulary.tokens), sorted(vocabulary.stop_ids))
    (end,) = vocabulary.stop_ids
    for seed in range(n):
        matcher, draw, ids = LLMatcher(tokenizer, grammar, log_level=0), Random(seed), list[int]()
        while not matcher.is_stopped():
            mask = matcher.compute_bitmask()
            allowed = [i for i in range(len(vocabulary.tokens)) if mask[i // 8] >> (i % 8) & 1]
            ids.append(end if end in allowed else draw.choice(allowed))
            assert matcher.consume_token(ids[-1]), matcher.get_error()
            assert len(ids) < 5000
        yield vocabulary.tokenizer.decode(ids, skip_special_tokens=True)


def test_every_sentence_of_a_schemas_grammar_satisfies_the_schema(vocabulary: Vocabulary) -> None:
    for text in sentences(vocabulary, json_schema_grammar(PERSON), 20):
        jsonschema.validate(json.loads(text), PERSON)


def test_a_json_object_is_an_object(vocabulary: Vocabulary) -> None:
    for text in sentences(vocabulary, json_object_grammar(), 10):
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("format", [HERMES, LLAMA])
@pytest.mark.parametrize("several", [True, False])
def test_every_sentence_of_the_tools_grammar_is_calls_of_the_tools(
    vocabulary: Vocabulary, format: ToolFormat, several: bool
) -> None:
    tools = {"save": PERSON, "stop": {"type": "object", "properties": {}, "additionalProperties": False}}
    grammar = tools_grammar(format, list(tools.items()), several=several)
    for text in sentences(vocabulary, grammar, 20):
        parser = tool_calls(format, tools)
        pushed, flushed = parser.push(text), parser.flush()
        calls: list[Call] = [*pushed.calls, *flushed.calls]
        assert pushed.text + flushed.text == ""
        assert calls
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), tools[call.name])


async def test_good_grammars_pass_and_bad_ones_are_named(check: GrammarCheck) -> None:
    await check.check(json_schema_grammar(PERSON), "response_format")
    with pytest.raises(RequestError, match="'response_format' cannot be compiled: Invalid type: objec") as caught:
        await check.check(json_schema_grammar({"type": "objec"}), "response_format")
    assert caught.value.param == "response_format"
    with pytest.raises(RequestError, match="Unimplemented keys"):
        await check.check(json_schema_grammar({"if": {}, "then": {}}), "response_format")
    with pytest.raises(RequestError, match="unclosed group"):
        await check.check(json_schema_grammar({"type": "string", "pattern": "("}), "response_format")
    with pytest.raises(RequestError, match="larger than the 1 MiB"):
        await check.check(json_schema_grammar({"enum": ["x" * 2**20]}), "response_format")


async def test_a_grammar_that_takes_too_long_costs_its_child_and_nobody_elses_request(vocabulary: Vocabulary) -> None:
    check = GrammarCheck(vocabulary, GrammarLimits(timeout_s=0.0))
    try:
        for _ in range(2):
            with pytest.raises(RequestError, match="takes longer than 0 s; make it simpler"):
                await check.check(json_schema_grammar(PERSON), "response_format")
        assert check.n_killed == 1, "the verdict is remembered"
        with pytest.raises(RequestError, match="takes longer"):
            await check.check(json_object_grammar(), "response_format")
        assert check.n_killed == 2
        with pytest.raises(RequestError, match="takes longer"):
            await check.check(json_object_grammar(), "response_format", "another salt")
        assert check.n_killed == 3, "nothing is remembered for another salt"
    finally:
        await check.stop()


async def test_a_model_that_cannot_be_guided_says_so(vocabulary: Vocabulary) -> None:
    endless = GrammarCheck(replace(vocabulary, stop_ids=frozenset()), GrammarLimits())
    with pytest.raises(RequestError, match="no token ends this model's answers, which 'response_format' needs"):
        await endless.check(json_object_grammar(), "response_format")
    words = replace(vocabulary, tokenizer=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    check = GrammarCheck(words, GrammarLimits())
    try:
        with pytest.raises(EngineError, match="the process that checks schemas cannot start"):
            await check.check(json_object_grammar(), "response_format")
    finally:
        await check.stop()


async def test_a_client_that_leaves_amid_its_grammar_does_not_spoil_the_next(check: GrammarCheck) -> None:
    await check.check(json_object_grammar(), "response_format")
    schema = json_schema_grammar({"enum": [f"x{i}" for i in range(40000)]})
    left = asyncio.create_task(check.check(schema, "response_format"))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    await check.check(json_schema_grammar(PERSON), "response_format")


async def test_a_client_that_leaves_while_the_child_starts_does_not_shift_the_verdicts_of_others(
    vocabulary: Vocabulary,
) -> None:
    check = GrammarCheck(vocabulary, GrammarLimits())
    try:
        left = asyncio.create_task(check.check(json_object_grammar(), "response_format"))
        await eventually(lambda: check.pid is not None, "the child is there")
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        with pytest.raises(RequestError, match="Invalid type: objec"):
            await check.check(json_schema_grammar({"type": "objec"}), "response_format")
        await check.check(json_schema_grammar(PERSON), "response_format")
    finally:
        await check.stop()


async def test_a_child_that_dies_is_told_from_a_bad_grammar(vocabulary: Vocabulary) -> None:
    check = GrammarCheck(vocabulary, GrammarLimits())
    try:
        await check.check(json_object_grammar(), "response_format")
        assert check.pid is not None
        os.kill(check.pid, signal.SIGSTOP)
        asking = asyncio.create_task(check.check(json_schema_grammar(PERSON), "tools"))
        await asyncio.sleep(0)
        os.kill(check.pid, signal.SIGKILL)
        with pytest.raises(RequestError, match="needs more than the 2048 MiB of memory allowed"):
            await asking
        await check.check(json_schema_grammar({"type": "integer"}), "tools")
    finally:
        await check.stop()
