"""Finds tool calls in an answer as it is written. What turns out to be none is text and is given out as such."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

from worker_image.text.tool_format import HERMES, ToolFormat

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
_NO_JSON: Final = (ValueError, RecursionError)
"""The second: of what nests deeper than Python goes, which a model can write, too."""


@dataclass(frozen=True)
class Call:
    """One call. `arguments`: a JSON object, as text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Parsed:
    """What some piece of an answer came to; both may be empty."""

    text: str = ""
    calls: tuple[Call, ...] = ()


class ToolCalls(Protocol):
    """`push` takes text as it comes; `flush` ends the answer."""

    def push(self, text: str) -> Parsed: ...

    def flush(self) -> Parsed: ...


def tool_calls(format: ToolFormat, names: Collection[str]) -> ToolCalls:
    """names: the tools the model was told of."""
    return HermesCalls() if format is HERMES else LlamaCalls(names)


class HermesCalls:
    """Text, with calls between tags in it. White space around calls is not text."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._searched = 0
        """No closing tag that begins before it closes the call."""

    def push(self, text: str) -> Parsed:
        self._held += text
        shown, calls = "", list[Call]()
        while True:
            if not self._inside:
                shown += self._text_before_call()
                if not self._inside:
                    return Parsed(shown, tuple(calls))
            call = self._next_call()
            if call is None:
                return Parsed(shown, tuple(calls))
            calls.append(call)

    def flush(self) -> Parsed:
        held, self._held = self._held, ""
        if self._inside and (call := _read_call(held)) is not None:
            return Parsed(calls=(call,))
        return Parsed(_OPEN + held if self._inside else held.rstrip())

    def _text_before_call(self) -> str:
        """Text that is certainly none of a call; white space and the beginning of a tag wait for what follows."""
        at = self._held.find(_OPEN)
        if at >= 0:
            text, self._held, self._inside = self._held[:at].rstrip(), self._held[at + len(_OPEN) :], True
            return text
        end = len(self._held) - _longest_end(self._held, _OPEN)
        end = len(self._held[:end].rstrip())
        text, self._held = self._held[:end], self._held[end:]
        return text

    def _next_call(self) -> Call | None:
        """The call whose closing tag is there. A tag inside the arguments' text does not close it."""
        while (at := self._held.find(_CLOSE, self._searched)) >= 0:
            if (call := _read_call(self._held[:at])) is not None:
                self._held, self._inside, self._searched = self._held[at + len(_CLOSE) :], False, 0
                return call
            self._searched = at + 1
        self._searched = max(self._searched, len(self._held) - len(_CLOSE) + 1)
        return None


class LlamaCalls:
    """An answer that begins with a brace is calls as a whole; any other is text as a whole."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._is_text = False

    def push(self, text: str) -> Parsed:
        if self._is_text:
            return Parsed(text)
        self._held += text
        begin = self._held.lstrip()
        if not begin or begin[0] == "{":
            return Parsed()
        self._is_text = True
        held, self._held = self._held, ""
        return Parsed(held)

    def flush(self) -> Parsed:
        held, self._held = self._held, ""
        calls = self._read_all(held.strip())
        return Parsed(held) if calls is None else Parsed(calls=calls)

    def _read_all(self, text: str) -> tuple[Call, ...] | None:
        """None unless all of the text is calls of known tools, with a semicolon or white space between them."""
        decoder, calls, at = json.JSONDecoder(), list[Call](), 0
        while at < len(text):
            try:
                value, at = decoder.raw_decode(text, at)
            except _NO_JSON:
                return None
            call = _call_of(value)
            if call is None or call.name not in self._names:
                return None
            calls.append(call)
            at += len(text[at:]) - len(text[at:].lstrip("; \n\t"))
        return tuple(calls) or None


def _read_call(text: str) -> Call | None:
    try:
        return _call_of(json.loads(text))
    except _NO_JSON:
        return None


def _call_of(value: Any) -> Call | None:
    """None where `value` is no JSON object with a name and arguments."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


def _longest_end(text: str, tag: str) -> int:
    """Length of the longest end of `text` with which `tag` begins."""
    lengths = range(min(len(tag) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(tag[:length])), 0)
