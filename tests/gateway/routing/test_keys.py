"""What makes requests belong together, and what must not."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.messages import Request
from gateway.routing.keys import Keys, keys_of, marks_of

LONG = "You are the assistant of a shop that sells bicycles. " * 10


def keys(body: dict[str, Any], tenant: str = "acme", **headers: str) -> Keys:
    lines = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return keys_of(Request(b"POST", b"/", lines, 1, True), marks_of(body), tenant.encode())


def chat(*texts: str) -> dict[str, Any]:
    roles = ("system", "user", "assistant")
    return {"messages": [{"role": roles[min(n, 1)], "content": text} for n, text in enumerate(texts)]}


def test_a_conversation_keeps_its_key_as_it_grows() -> None:
    assert keys(chat(LONG, "hello")).prefix == keys(chat(LONG, "hello", "hi", "and now?")).prefix
    assert keys(chat("Be brief.", "hello")).prefix == keys(chat("Be brief.", "hello", "hi", "more")).prefix


def test_requests_of_one_system_prompt_share_their_key_and_short_ones_need_the_question_too() -> None:
    assert keys(chat(LONG, "hello")).prefix == keys(chat(LONG, "what else")).prefix
    assert keys(chat("Be brief.", "hello")).prefix != keys(chat("Be brief.", "what else")).prefix


def test_tenants_share_nothing() -> None:
    body = chat(LONG) | {"user": "u1"}
    mine, theirs = keys(body, "acme"), keys(body, "globex")
    assert mine.prefix != theirs.prefix
    assert mine.session != theirs.session


def test_the_session_is_the_header_s_else_the_user_s() -> None:
    named = keys({"prompt": "x", "user": "u1"}, x_foretide_session="s1")
    assert named.session == keys({"prompt": "y"}, x_foretide_session="s1").session
    assert named.session != keys({"prompt": "x", "user": "u1"}).session
    assert keys({"prompt": "x", "user": "u1"}).session is not None
    assert keys({"prompt": "x"}).session is None
    assert keys({"prompt": "x"}).sticky == keys({"prompt": "x"}).prefix
    assert named.sticky == named.session


def test_prompts_may_be_texts_lists_of_texts_or_tokens_and_contents_lists_of_parts() -> None:
    assert keys({"prompt": "abc"}).prefix == keys({"prompt": ["abc", "def"]}).prefix
    assert keys({"prompt": [1, 2, 3]}).prefix == keys({"prompt": [1, 2, 3]}).prefix
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "abc"}]}]}
    assert keys(parts).prefix == keys({"messages": [{"role": "user", "content": "abc"}]}).prefix


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "user", "content", "text"]), json_values))
def test_no_body_breaks_the_reading(body: dict[str, Any]) -> None:
    keys(body)


def test_what_is_nested_deeper_than_python_writes_breaks_nothing() -> None:
    deep = orjson.loads(b"[" * 1000 + b"]" * 1000)
    assert keys({"prompt": deep}).prefix is None
    assert keys({"prompt": [1, deep]}).prefix == keys({"prompt": [1]}).prefix
    assert keys({"messages": [{"role": deep, "content": "abc"}]}).prefix is not None


def test_a_list_of_token_lists_is_known_by_the_first_of_them() -> None:
    assert (
        keys({"prompt": [[1, 2], [3]]}).prefix == keys({"prompt": [[1, 2], [4]]}).prefix != keys({"prompt": [3]}).prefix
    )
