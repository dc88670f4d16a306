"""Tools and response formats through the API: what the model is told, what the engine is bound to, what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer
from openai import BadRequestError

from tests.worker_image.scripted import a_server
from tests.worker_image.tiny_gguf import tiny_llama, write_gguf
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary
from worker_image.engine.messages import Add, Sampling
from worker_image.text.grammar import json_schema_grammar
from worker_image.text.grammar_check import GrammarLimits

TOOL_TEMPLATE = (
    "{% if tools %}tools: {% for t in tools %}{{ t | tojson }}\n{% endfor %}use <tool_call></tool_call>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_TEMPLATE = TOOL_TEMPLATE.replace("<tool_call></tool_call>", "<|python_tag|>").replace("<tool_call>", "")
PARAMETERS: Any = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "description": "Forecast.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "get_time"}},
]
MESSAGES: Any = [{"role": "user", "content": "hello"}]
CHAT: Any = {"model": "chat", "messages": MESSAGES}
CALL = 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


class Guided:
    """A script that keeps to the grammar it was sent, and is random beyond that."""

    def __init__(self, folder: Path) -> None:
        vocabulary = load_vocabulary(GgufFile(write_gguf(folder / "guided.gguf", tiny_llama())))
        self._vocabulary: Vocabulary = vocabulary
        self._tokenizer = LLTokenizer(
            vocabulary.tokenizer.to_str(), len(vocabulary.tokens), sorted(vocabulary.stop_ids)
        )

    def __call__(self, add: Add, number: int) -> str:
        grammar = add.sampling.grammar
        assert grammar is not None, "nothing to be guided by"
        matcher, draw, ids = LLMatcher(self._tokenizer, grammar, log_level=0), Random(number), list[int]()
        while not matcher.is_stopped():
            mask = matcher.compute_bitmask()
            allowed = [i for i in range(3, len(self._vocabulary.tokens)) if mask[i // 8] >> (i % 8) & 1]
            if matcher.is_accepting():
                break
            ids.append(draw.choice(allowed))
            assert matcher.consume_token(ids[-1])
        return str(self._vocabulary.tokenizer.decode(ids))


def test_the_guided_script_is_random(tmp_path: Path) -> None:
    guided, grammar = Guided(tmp_path), json_schema_grammar(PARAMETERS)
    said = {guided(Add(1, [1], Sampling(100, grammar=grammar)), number) for number in range(8)}
    assert len(said) > 2


async def test_a_call_comes_as_a_call_and_the_text_before_it_as_text(tmp_path: Path) -> None:
    async with a_server(tmp_path, lambda add, number: CALL, template=TOOL_TEMPLATE) as server:
        answer = await server.client.chat.completions.create(tools=TOOLS, **CHAT)
        (add,) = server.engine.adds
    prompt = server.served.token_bytes.text(add.prompt)
    assert '"name": "get_weather"' in prompt
    assert '"name": "get_time"' in prompt
    assert add.sampling.grammar is None, "with 'auto' the model is free"
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look.")
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})


async def test_streamed_calls_are_what_whole_ones_are(tmp_path: Path) -> None:
    two = CALL + '\n<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    async with (
        a_server(tmp_path, lambda add, number: two, template=TOOL_TEMPLATE) as server,
        server.client.chat.completions.stream(tools=TOOLS, **CHAT) as stream,
    ):
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert message.tool_calls is not None
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls]
    assert calls == [("get_weather", '{"city": "Oslo"}'), ("get_time", "{}")]
    assert (final.choices[0].finish_reason, message.content) == ("tool_calls", "I look.")


async def test_llamas_way_of_calling(tmp_path: Path) -> None:
    said = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
    async with a_server(tmp_path, lambda add, number: said, template=LLAMA_TEMPLATE) as server:
        answer = await server.client.chat.completions.create(tools=TOOLS, **CHAT)
        plain = await server.client.chat.completions.create(tools=TOOLS, tool_choice="none", **CHAT)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (answer.choices[0].message.content, calls[0].function.arguments) == (None, '{"city": "Rome"}')
    assert (plain.choices[0].message.content, plain.choices[0].finish_reason) == (said, "stop")
    assert "get_weather" not in server.served.token_bytes.text(server.engine.adds[1].prompt)


@pytest.mark.parametrize("template", [TOOL_TEMPLATE, LLAMA_TEMPLATE], ids=["hermes", "llama"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_enforced_call_is_one_that_the_schema_allows(
    tmp_path: Path, template: str, choice: Any, stream: bool
) -> None:
    async with a_server(tmp_path, Guided(tmp_path), template=template) as server:
        arguments: Any = {"tools": TOOLS, "tool_choice": choice, "n": 4, "parallel_tool_calls": False, **CHAT}
        calls: list[tuple[str, str]] = []
        finishes = []
        if stream:
            async for chunk in await server.client.chat.completions.create(stream=True, **arguments):
                assert not chunk.choices[0].delta.content
                for delta in chunk.choices[0].delta.tool_calls or ():
                    assert delta.function is not None
                    calls.append((delta.function.name or "", delta.function.arguments or ""))
                finishes += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
        else:
            for each in (await server.client.chat.completions.create(**arguments)).choices:
                finishes.append(each.finish_reason)
                calls += [(call.function.name, call.function.arguments) for call in each.message.tool_calls or ()]
    assert finishes == ["tool_calls"] * 4
    assert len(calls) == 4
    for name, text in calls:
        if name == "get_weather":
            jsonschema.validate(json.loads(text), PARAMETERS)
        assert name == "get_weather" or (choice == "required" and name == "get_time")


async def test_calls_and_their_results_are_accepted_as_messages(tmp_path: Path) -> None:
    async with a_server(tmp_path, lambda add, number: "Rain.", template=TOOL_TEMPLATE) as server:
        client = server.client
        call = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": '{"zone": "UTC"}'}}
        history: Any = [
            *MESSAGES,
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "noon"}]},
        ]
        await client.chat.completions.create(model="chat", messages=history, tools=TOOLS)
        history[1]["tool_calls"][0]["function"]["arguments"] = "{"
        with pytest.raises(BadRequestError, match=r"'function\.arguments' of 'get_time' is no valid JSON") as caught:
            await client.chat.completions.create(model="chat", messages=history, tools=TOOLS)
    assert caught.value.param == "messages.1.tool_calls.0"
    prompt = server.served.token_bytes.text(server.engine.adds[0].prompt)
    assert '{"name": "get_time", "arguments": {"zone": "UTC"}}' in prompt
    assert "<|im_start|>tool\nnoon<|im_end|>" in prompt


async def test_a_template_without_tools_is_said_so(tmp_path: Path) -> None:
    async with a_server(tmp_path, lambda add, number: "x") as server:
        with pytest.raises(BadRequestError, match="chat template has no tools that this worker can read"):
            await server.client.chat.completions.create(tools=TOOLS, **CHAT)
        off = await server.client.chat.completions.create(tools=TOOLS, tool_choice="none", **CHAT)
    assert off.choices[0].message.content == "x"


async def test_json_that_was_asked_for_satisfies_its_schema(tmp_path: Path) -> None:
    format: Any = {"type": "json_schema", "json_schema": {"name": "trip", "schema": PARAMETERS, "strict": True}}
    async with a_server(tmp_path, Guided(tmp_path)) as server:
        answer = await server.client.chat.completions.create(n=5, response_format=format, **CHAT)
        for choice in answer.choices:
            jsonschema.validate(json.loads(choice.message.content or ""), PARAMETERS)


async def test_a_schema_that_cannot_be_used_is_refused_before_the_engine_sees_it(tmp_path: Path) -> None:
    limits = GrammarLimits(timeout_s=5.0)
    async with a_server(tmp_path, lambda add, number: "x", limits=limits, template=TOOL_TEMPLATE) as server:
        bad: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "sting"}}}
        with pytest.raises(
            BadRequestError, match="'response_format' cannot be compiled: Invalid type: sting"
        ) as caught:
            await server.client.chat.completions.create(response_format=bad, **CHAT)
        assert caught.value.param == "response_format"
        tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "sting"}}}]
        with pytest.raises(BadRequestError, match="'tools' cannot be compiled"):
            await server.client.chat.completions.create(tools=tools, tool_choice="required", **CHAT)
        with pytest.raises(BadRequestError, match="'response_format' cannot be combined with 'tools'"):
            await server.client.chat.completions.create(tools=TOOLS, response_format={"type": "json_object"}, **CHAT)
        assert server.engine.adds == []
