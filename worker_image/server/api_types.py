"""The requests we accept, as pydantic types. A field we do not have is refused by name, never silently ignored.

Fields of OpenAI's API that this worker has not are listed with the one value that asks for nothing, so that a client
which spells out defaults is served, and one that asks for more is told.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from worker_image.errors import RequestError

MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class GenerationRequest(Strict):
    """What chat and plain completions share."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    ignore_eos: bool | None = None
    user: str | None = None
    """For the client's own bookkeeping; has no effect on the answer."""
    n: Literal[1] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is only allowed when 'stream' is true")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def n_most(self) -> int | None:
        """The most tokens to generate, where the client says."""
        return self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        raise NotImplementedError


class CompletionRequest(GenerationRequest):
    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=1)]
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    @property
    def text_or_ids(self) -> str | list[int]:
        if isinstance(self.prompt, str):
            return self.prompt
        first = self.prompt[0]
        if isinstance(first, int):
            return [token_id for token_id in self.prompt if isinstance(token_id, int)]
        return first

    @property
    def n_logprobs(self) -> int | None:
        return self.logprobs


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def for_template(self) -> dict[str, object]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        # 'developer' is OpenAI's newer word for 'system'; templates know the older one.
        role = "system" if self.role == "developer" else self.role
        named = {} if self.name is None else {"name": self.name}
        return {"role": role, "content": content, **named}


class TextFormat(Strict):
    type: Literal["text"]


class ChatRequest(GenerationRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: TextFormat | None = None
    tools: Annotated[list[JsonValue], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' is only allowed when 'logprobs' is true")
        return self

    @property
    def n_most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


T = TypeVar("T", bound=GenerationRequest)


def parse_request(kind: type[T], body: bytes) -> T:
    """Raises RequestError: one sentence naming the first field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _sentence(error) from None


def _sentence(error: ValidationError) -> RequestError:
    # Every branch of a union reports its own failure; the field, not the branch, is what the client knows.
    # A field we do not have comes first: it is often the misspelt name of one that is then reported as missing.
    found = error.errors(include_url=False, include_input=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    if first["type"] == "json_invalid":
        return RequestError(f"the body is no valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}.")
    param = ".".join(_known_parts(first["loc"]))
    if not param:
        return RequestError(f"{first['msg'].removeprefix('Value error, ')}.")
    match first["type"]:
        case "missing":
            message = f"field '{param}' is required."
        case "extra_forbidden":
            message = f"field '{param}' is not supported by this worker; remove it."
        case "literal_error":
            message = f"field '{param}' has a value this worker does not support; it may be {first['ctx']['expected']}."
        case "too_long" if param in ("logit_bias", "tools"):
            message = f"field '{param}' is not supported by this worker; remove it."
        case _:
            message = f"field '{param}': {first['msg'].removeprefix('Value error, ')}."
    return RequestError(message, param=param)


def _known_parts(location: tuple[int | str, ...]) -> list[str]:
    """Drops pydantic's names of union branches ('constrained-str', 'list[…]') from an error's path."""
    return [str(part) for part in location if isinstance(part, int) or (part.isidentifier() and part not in _BRANCHES)]


_BRANCHES = frozenset({"str", "int", "float", "bool", "list"})
