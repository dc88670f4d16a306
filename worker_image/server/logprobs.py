"""Log probabilities in the two shapes OpenAI has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker_image.engine.messages import TokenOut
from worker_image.text.detokenizer import TokenBytes


class LogprobsWriter:
    """Of one choice, from its first token on."""

    def __init__(self, token_bytes: TokenBytes, *, chat: bool) -> None:
        self._token_bytes = token_bytes
        self._chat = chat
        self._offset = 0

    def write(self, tokens: Sequence[TokenOut]) -> dict[str, Any]:
        if self._chat:
            return {"content": [self._chat_entry(token) for token in tokens], "refusal": None}
        return self._completion_entries(tokens)

    def skip(self, tokens: Sequence[TokenOut]) -> None:
        """Another worker has written these."""
        self._offset += sum(len(self._token_bytes.spelling(token.token).decode("utf-8", "replace")) for token in tokens)

    def _scored(self, token_id: int, logprob: float) -> dict[str, Any]:
        spelling = self._token_bytes.spelling(token_id)
        return {"token": spelling.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(spelling)}

    def _chat_entry(self, token: TokenOut) -> dict[str, Any]:
        assert token.logprobs is not None
        top = [self._scored(i, p) for i, p in token.logprobs.top]
        return self._scored(token.token, token.logprobs.chosen) | {"top_logprobs": top}

    def _completion_entries(self, tokens: Sequence[TokenOut]) -> dict[str, Any]:
        result: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            assert token.logprobs is not None
            text = self._token_bytes.spelling(token.token).decode("utf-8", "replace")
            result["tokens"].append(text)
            result["token_logprobs"].append(token.logprobs.chosen)
            likeliest = {self._token_bytes.spelling(i).decode("utf-8", "replace"): p for i, p in token.logprobs.top}
            result["top_logprobs"].append(likeliest)
            result["text_offset"].append(self._offset)
            self._offset += len(text)
        return result
