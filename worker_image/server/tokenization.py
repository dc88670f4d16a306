"""/tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from worker_image.server.answers import Json
from worker_image.server.api_types import TokenId
from worker_image.server.chat_types import ChatMessage, Tool
from worker_image.server.plans import chat_prompt
from worker_image.server.state import Served
from worker_image.server.validation import Strict, parse_request


class Tokenize(Strict):
    """A prompt, or messages as chat would write them."""

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = None
    """Of a prompt only: the template writes its own."""
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)] | None = None
    add_generation_prompt: bool = True
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("either 'prompt' or 'messages' is required")
        return self


class Detokenize(Strict):
    model: str | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


def tokenize(body: bytes, served: Served) -> Json:
    """Raises RequestError."""
    request = parse_request(Tokenize, body)
    served.check_name(request.model or served.names[0])
    vocabulary = served.vocabulary
    if request.messages is not None:
        variables = {**(request.chat_template_kwargs or {}), "add_generation_prompt": request.add_generation_prompt}
        ids = chat_prompt(request.messages, request.tools or (), variables, served)
    else:
        add_bos = vocabulary.add_bos and request.add_special_tokens is not False
        ids = served.encode(request.prompt or "", add_bos=add_bos, param="prompt")
    spelled = [vocabulary.tokens[i] for i in ids] if request.return_token_strs else None
    return {"count": len(ids), "max_model_len": served.max_model_len, "tokens": ids, "token_strs": spelled}


def detokenize(body: bytes, served: Served) -> Json:
    """Special tokens are written out. Raises RequestError."""
    request = parse_request(Detokenize, body)
    served.check_name(request.model or served.names[0])
    served.check_ids(request.tokens, param="tokens")
    return {"prompt": served.token_bytes.text(request.tokens)}
