"""The answers' JSON, in OpenAI's shapes. Plain dicts built here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from worker_image.checkpoint.tokenizer import Vocabulary
from worker_image.engine.messages import TokenOut
from worker_image.text.detokenizer import TokenBytes

Json = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int

    def json(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True)
class Envelope:
    """What every part of one answer repeats."""

    model: str
    chat: bool
    id: str = field(default_factory=lambda: uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def _wrap(self, kind: str, choices: list[Json]) -> Json:
        prefix = "chatcmpl-" if self.chat else "cmpl-"
        return {
            "id": prefix + self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def whole(self, text: str, finish: str, usage: Usage, logprobs: Json | None) -> Json:
        content: Json = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": logprobs, "finish_reason": finish}
        kind = "chat.completion" if self.chat else "text_completion"
        return self._wrap(kind, [choice]) | {"usage": usage.json()}

    def opening(self) -> Json:
        """A chat stream's first part names the role."""
        return self._part({"delta": {"role": "assistant", "content": ""}}, None, None)

    def part(self, text: str, finish: str | None, logprobs: Json | None) -> Json:
        content: Json = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return self._part(content, finish, logprobs)

    def usage_part(self, usage: Usage) -> Json:
        return self._wrap(self._part_kind, []) | {"usage": usage.json()}

    @property
    def _part_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _part(self, content: Json, finish: str | None, logprobs: Json | None) -> Json:
        return self._wrap(self._part_kind, [{"index": 0, **content, "logprobs": logprobs, "finish_reason": finish}])


class LogprobsWriter:
    """Log probabilities in the two shapes OpenAI has for them."""

    def __init__(self, vocabulary: Vocabulary, token_bytes: TokenBytes, *, chat: bool) -> None:
        self._vocabulary = vocabulary
        self._token_bytes = token_bytes
        self._chat = chat
        self._offset = 0

    def write(self, tokens: Sequence[TokenOut]) -> Json:
        return {"content": [self._chat_entry(t) for t in tokens]} if self._chat else self._completion_entries(tokens)

    def _spelling(self, token_id: int) -> bytes:
        return self._token_bytes.of(token_id) or self._vocabulary.tokens[token_id].encode()

    def _scored(self, token_id: int, logprob: float) -> Json:
        spelling = self._spelling(token_id)
        return {"token": spelling.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(spelling)}

    def _chat_entry(self, token: TokenOut) -> Json:
        assert token.logprobs is not None
        top = [self._scored(i, p) for i, p in token.logprobs.top]
        return self._scored(token.token, token.logprobs.chosen) | {"top_logprobs": top}

    def _completion_entries(self, tokens: Sequence[TokenOut]) -> Json:
        result: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            assert token.logprobs is not None
            text = self._spelling(token.token).decode("utf-8", "replace")
            result["tokens"].append(text)
            result["token_logprobs"].append(token.logprobs.chosen)
            likeliest = {self._spelling(i).decode("utf-8", "replace"): p for i, p in token.logprobs.top}
            result["top_logprobs"].append(likeliest)
            result["text_offset"].append(self._offset)
            self._offset += len(text)
        return result
