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
from worker_image.server.errors import answer_for
from worker_image.text import grammar_check
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

LONG = json_schema_grammar({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(8000)}})
"""Takes seconds."""


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


MANY = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(600)}}
"""More than the parser takes once the object has begun."""


@pytest.mark.parametrize(
    "grammar",
    [
        json_schema_grammar(MANY),
        json_schema_grammar({"type": "object", "properties": {"all": MANY}, "required": ["all"]}),
        tools_grammar(HERMES, [("save", MANY)], several=True),
        tools_grammar(LLAMA, [("save", MANY)], several=False),
    ],
)
async def test_a_grammar_that_would_fail_amid_an_answer_is_refused_before_it(check: GrammarCheck, grammar: str) -> None:
    with pytest.raises(RequestError, match="cannot be compiled: Parser Error: Current row has"):
        await check.check(grammar, "tools")


async def test_a_grammar_that_takes_too_long_costs_its_child_and_nobody_elses_request(vocabulary: Vocabulary) -> None:
    check = GrammarCheck(vocabulary, GrammarLimits(timeout_s=0.1, patience_s=60))
    try:
        for _ in range(2):
            with pytest.raises(RequestError, match=r"takes longer than 0\.1 s; make it simpler"):
                await check.check(LONG, "response_format")
        assert check.n_killed == 1, "the verdict is remembered"
        await check.check(json_object_grammar(), "response_format")
        with pytest.raises(RequestError, match="takes longer"):
            await check.check(LONG, "response_format", "another salt")
        assert check.n_killed == 2, "nothing is remembered for another salt"
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


async def test_a_tenants_many_schemas_hold_up_anothers_by_one(
    check: GrammarCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, order = asyncio.Event(), asyncio.Event(), list[str]()

    async def exchange(_: object, grammar: str) -> str:
        order.append(grammar)
        begun.set()
        await may_go_on.wait()
        return ""

    await check.check(json_object_grammar(), "response_format")
    monkeypatch.setattr(grammar_check, "_exchange", exchange)
    asking = [asyncio.create_task(check.check(text, "tools", text[0])) for text in ("a1", "a2", "a3", "a4", "b1")]
    await begun.wait()
    await asyncio.sleep(0)
    asking[2].cancel()
    may_go_on.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert order == ["a1", "b1", "a2", "a4"]
    await check.check("c1", "tools", "c")


async def test_a_grammar_at_which_the_child_breaks_is_refused_for_good(check: GrammarCheck) -> None:
    """As it does when it gets no more memory."""
    await check.check(json_object_grammar(), "response_format")
    with pytest.raises(RequestError, match="needs more than the 2048 MiB of memory allowed"):
        await killed_amid(check, json_schema_grammar(PERSON), times=1, number=signal.SIGABRT)
    with pytest.raises(RequestError, match="needs more than the 2048 MiB of memory allowed"):
        await check.check(json_schema_grammar(PERSON), "tools")
    await check.check(json_schema_grammar({"type": "integer"}), "tools")


async def test_a_child_that_was_killed_while_idle_is_replaced(check: GrammarCheck) -> None:
    await check.check(json_object_grammar(), "response_format")
    assert check.pid is not None
    os.kill(check.pid, signal.SIGKILL)
    await check.check(json_schema_grammar(PERSON), "tools")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_a_child_that_is_ended_from_outside_amid_a_grammar_is_asked_once_more(
    check: GrammarCheck, number: signal.Signals
) -> None:
    await check.check(json_object_grammar(), "response_format")
    await killed_amid(check, json_schema_grammar(PERSON), times=1, number=number)


async def test_that_a_child_was_killed_is_not_remembered_of_its_grammar(check: GrammarCheck) -> None:
    await check.check(json_object_grammar(), "response_format")
    with pytest.raises(RequestError, match="its process was killed twice; try again") as refused:
        await killed_amid(check, json_schema_grammar(PERSON), times=2)
    assert (refused.value.status, refused.value.param) == (503, "tools")
    await check.check(json_schema_grammar(PERSON), "tools")


async def killed_amid(check: GrammarCheck, grammar: str, times: int, number: int = signal.SIGKILL) -> None:
    """Asks, and kills as many children before they answer."""
    exchange, left = grammar_check._exchange, times

    async def exchange_with_a_killed_one(child: asyncio.subprocess.Process, text: str) -> str:
        nonlocal left
        if text == grammar and left:
            left -= 1
            child.send_signal(number)
        return await exchange(child, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammar_check, "_exchange", exchange_with_a_killed_one)
        await check.check(grammar, "tools")


async def test_what_a_busy_machine_could_not_do_in_time_may_be_asked_again(
    check: GrammarCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check.check(json_object_grammar(), "response_format")
    assert check.pid is not None
    os.kill(check.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(check, "_limits", GrammarLimits(timeout_s=0.1, patience_s=0.0))
        with pytest.raises(RequestError, match="'tools' could not be compiled in time; try again") as refused:
            await check.check(json_schema_grammar(PERSON), "tools")
        answer = answer_for(refused.value)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    await check.check(json_schema_grammar(PERSON), "tools")
