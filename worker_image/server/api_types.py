"""The plain completions' requests, and what they share with chat, as pydantic types.

Fields of OpenAI's API that this worker has not are listed with the one value that asks for nothing, so that a client
which spells out defaults is served, and one that asks for more is told.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from worker_image.server.validation import Strict

MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 128
"""Of one request: prompts × n."""
MAX_TOLD_IDS = 1024
"""Whose logits a request may change: they are looked up one by one for each token, while all others wait."""

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0)]
Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class StreamOptions(Strict):
    include_usage: bool = False
    continuous_usage_stats: bool = False
    """Usage so far with every part, not only with the last."""
    include_obfuscation: Literal[False] | None = None


class JsonSchema(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    schema_: dict[str, JsonValue] = Field(alias="schema")
    strict: bool | None = None
    """The schema is always kept to; this changes nothing."""


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_belongs_to_its_type(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' is required with type 'json_schema', and only allowed with it")
        return self


class GenerationRequest(Strict):
    """What chat and plain completions share. Beyond OpenAI's: top_k, min_p, repetition_penalty, min_tokens,
    ignore_eos, stop_token_ids, cache_salt and priority, named as in vLLM.
    """

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_TOLD_IDS)] | None
    ) = None
    """Token id, as a JSON key, to what is added to its logit."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_TOLD_IDS, fail_fast=True)] | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Requests share cached prefixes only with those of the same salt."""
    priority: int | None = None
    """Accepted for clients that send it; the gateway orders requests, the worker serves them as they come."""
    user: str | None = None
    """For the client's own bookkeeping; has no effect on the answer."""

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is only allowed when 'stream' is true")
        if self.min_tokens and self.n_most is not None and self.min_tokens > self.n_most:
            raise ValueError(f"'min_tokens' is {self.min_tokens}, more than the {self.n_most} tokens asked for at most")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def n_choices(self) -> int:
        """Of each prompt."""
        return self.n or 1

    @property
    def n_most(self) -> int | None:
        """The most tokens to generate, where the client says."""
        return self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        """None: no log probabilities; else how many of the likeliest tokens are shown beside the chosen one."""
        return None


class CompletionRequest(GenerationRequest):
    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    @model_validator(mode="after")
    def _no_more_than_can_be_answered(self) -> Self:
        if len(self.prompts) * self.n_choices > MAX_CHOICES:
            raise ValueError(f"{len(self.prompts)} prompts × n {self.n_choices} exceed {MAX_CHOICES} choices a request")
        if self.echo and self.logprobs is not None:
            raise ValueError("'logprobs' of an echoed prompt are not available; leave out 'echo' or 'logprobs'")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each as text or as token ids."""
        prompt: Any = self.prompt
        return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else list(prompt)

    @property
    def n_logprobs(self) -> int | None:
        return self.logprobs
