"""Tool calls in what a model writes, in the formats of Hermes and Llama; and what only looks like one."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_image.text.tool_calls import Call, tool_calls
from worker_image.text.tool_format import HERMES, LLAMA, ToolFormat, tool_format

WEATHER = Call("get_weather", '{"city": "Köln"}')
TIME = Call("get_time", "{}")
HERMES_TEXT = (
    'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
)
LLAMA_TEXT = '{"name": "get_weather", "parameters": {"city": "Köln"}}; {"name": "get_time", "parameters": {}}'


def read(format: ToolFormat, text: str, cuts: list[int]) -> tuple[str, list[Call]]:
    parser, shown, calls = tool_calls(format, {"get_weather", "get_time"}), "", list[Call]()
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for begin, end in pairwise(edges):
        parsed = parser.push(text[begin:end])
        shown += parsed.text
        calls += parsed.calls
    last = parser.flush()
    return shown + last.text, [*calls, *last.calls]


@given(cuts=st.lists(st.integers(0, 500), max_size=12))
def test_calls_are_found_however_the_text_arrives(cuts: list[int]) -> None:
    assert read(HERMES, HERMES_TEXT, cuts) == ("I look.", [WEATHER, TIME])
    assert read(LLAMA, LLAMA_TEXT, cuts) == ("", [WEATHER, TIME])


@given(cuts=st.lists(st.integers(0, 500), max_size=12))
@pytest.mark.parametrize("format", [HERMES, LLAMA])
@pytest.mark.parametrize(
    "text",
    [
        "Plain text with <b>tags</b> and {braces}.",
        '{"answer": 42}',
        '{"name": "unknown", "parameters": {}} is JSON',
        "<tool_cal",
        "",
    ],
)
def test_what_is_no_call_is_text(format: ToolFormat, text: str, cuts: list[int]) -> None:
    assert read(format, text, cuts) == (text, [])


def test_a_call_cut_off_by_the_end_is_text_and_one_without_its_last_tag_is_a_call() -> None:
    begun = '<tool_call>\n{"name": "get_time", "argu'
    assert read(HERMES, begun, []) == (begun, [])
    assert read(HERMES, '<tool_call>{"name": "get_time", "arguments": {}}', []) == ("", [TIME])


def test_a_closing_tag_inside_an_argument_does_not_close_the_call() -> None:
    arguments = {"text": "a </tool_call> b"}
    text = f"<tool_call>{json.dumps({'name': 'say', 'arguments': arguments})}</tool_call> done"
    assert read(HERMES, text, [30]) == (" done", [Call("say", json.dumps(arguments))])


def test_each_closing_tag_is_tried_once_however_many_an_argument_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: tried.append(text) or loads(text))
    parser, calls = tool_calls(HERMES, {"say"}), list[Call]()
    for piece in ['<tool_call>{"name": "say", "arguments": {"text": "', *["</tool_call>"] * 50, '"}}', "</tool_call>"]:
        calls += parser.push(piece).calls
    assert [call.arguments for call in calls] == [json.dumps({"text": "</tool_call>" * 50})]
    assert len(tried) == 51


def test_llama_calls_only_tools_it_was_told_of() -> None:
    text = '{"name": "Anna", "parameters": {"age": 7}}'
    assert read(LLAMA, text, []) == (text, [])


def test_the_format_is_seen_in_the_template() -> None:
    assert tool_format("{% if tools %}… <tool_call></tool_call> …{% endif %}") is HERMES
    assert tool_format("{% if tools %}…{{ '<|python_tag|>' }}{% endif %}") is LLAMA
    assert tool_format("{% if tools %}[TOOL_CALLS]{% endif %}") is None
    assert tool_format("{% for m in messages %}…{% endfor %}") is None
