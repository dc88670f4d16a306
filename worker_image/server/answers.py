"""The answers' JSON, in OpenAI's shapes, whole and in parts. Built here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import orjson

from worker_image.server.ticket import Ticket
from worker_image.text.tool_calls import Call

Json = dict[str, Any]
DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt, those whose keys and values were in the cache."""

    def json(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True)
class WholeChoice:
    """One finished choice."""

    index: int
    text: str
    calls: Sequence[Call]
    logprobs: Json | None
    finish: str

    def json(self, *, chat: bool) -> Json:
        content: Json = {"text": self.text}
        if chat:
            content = {"message": {"role": "assistant", "content": self.text}}
            if self.calls:
                content["message"] |= {
                    "content": self.text or None,
                    "tool_calls": [call_json(call) for call in self.calls],
                }
        return {"index": self.index, **content, "logprobs": self.logprobs, "finish_reason": self.finish}


@dataclass(frozen=True)
class Part:
    """What is new of one choice of a stream. `first_call`: how many calls the choice had before."""

    index: int
    text: str
    calls: Sequence[Call]
    first_call: int
    logprobs: Json | None
    finish: str | None

    def json(self, *, chat: bool) -> Json:
        content: Json = {"text": self.text}
        if chat:
            delta: Json = {"content": self.text} if self.text else {}
            if self.calls:
                numbered = enumerate(self.calls, self.first_call)
                delta["tool_calls"] = [{"index": number, **call_json(call)} for number, call in numbered]
            content = {"delta": delta}
        return {"index": self.index, **content, "logprobs": self.logprobs, "finish_reason": self.finish}


class Envelope:
    """What every part of one answer repeats. `usage`: whether the client wants it at a stream's end."""

    def __init__(self, model: str, *, chat: bool, usage: bool = False, ticket: Ticket | None = None) -> None:
        """ticket: where the gateway has chosen what to call the answer."""
        self.chat = chat
        self._model = model
        self._id = ("chatcmpl-" if chat else "cmpl-") + (uuid4().hex if ticket is None else ticket.id)
        self._created = int(time.time()) if ticket is None else ticket.created
        self._part_kind = "chat.completion.chunk" if chat else "text_completion"
        # Where the last part will carry the usage, the others say that they do not.
        self._no_usage: Json = {"usage": None} if usage else {}
        self._heads: dict[int, bytes] = {}
        self._tail = self._cut(0)[1]

    def whole(self, choices: Sequence[WholeChoice], usage: Usage) -> bytes:
        kind = "chat.completion" if self.chat else "text_completion"
        body = self._wrap(kind, [choice.json(chat=self.chat) for choice in choices]) | {"usage": usage.json()}
        return orjson.dumps(body)

    def opening(self, index: int) -> bytes:
        """A chat stream's first part of a choice names the role."""
        choice: Json = {"index": index, "delta": {"role": "assistant", "content": ""}}
        return self._event([choice | {"logprobs": None, "finish_reason": None}], self._no_usage)

    def text(self, index: int, text: str) -> bytes:
        """The part that nearly all are: some text and nothing else. Only the text is written anew."""
        head = self._heads.get(index)
        if head is None:
            head = self._heads[index] = self._cut(index)[0]
        return head + orjson.dumps(text) + self._tail

    def part(self, part: Part, usage: Usage | None = None) -> bytes:
        more = self._no_usage if usage is None else {"usage": usage.json()}
        return self._event([part.json(chat=self.chat)], more)

    def usage(self, usage: Usage) -> bytes:
        return self._event([], {"usage": usage.json()})

    def _cut(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and after the text of a part."""
        mark = uuid4().hex
        head, tail = self.part(Part(index, mark, (), 0, None, None)).split(orjson.dumps(mark))
        return head, tail

    def _event(self, choices: list[Json], more: Json) -> bytes:
        return b"data: " + orjson.dumps(self._wrap(self._part_kind, choices) | more) + b"\n\n"

    def _wrap(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }


def call_json(call: Call) -> Json:
    return {
        "id": f"call_{uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
