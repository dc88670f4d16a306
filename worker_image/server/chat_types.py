"""The chat requests as pydantic types: messages, tools, and the choice among them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator
from pydantic_core import from_json

from worker_image.server.api_types import MAX_TOP_LOGPROBS, GenerationRequest
from worker_image.server.validation import Strict

MAX_TOOLS = 128

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Nothing = Annotated[list[JsonValue], Field(max_length=0)]


class TextPart(Strict):
    type: Literal["text"]
    text: str


class CalledFunction(Strict):
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(Strict):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None

    @model_validator(mode="after")
    def _arguments_are_an_object(self) -> Self:
        try:
            arguments = from_json(self.function.arguments or "{}")
        except ValueError as error:
            raise ValueError(f"'function.arguments' of '{self.function.name}' is no valid JSON: {error}") from None
        if not isinstance(arguments, dict):
            raise ValueError(f"'function.arguments' of '{self.function.name}' is no JSON object")
        return self

    def for_template(self) -> dict[str, object]:
        """Templates write the arguments themselves, so they get them as values."""
        arguments = from_json(self.function.arguments or "{}")
        return {"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class ChatMessage(Strict):
    """Of any role. What else a client may echo of our own answers has to be empty."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Nothing | None = None

    @model_validator(mode="after")
    def _fields_belong_to_the_role(self) -> Self:
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError(f"'tool_calls' belongs to role 'assistant', not to '{self.role}'")
        if self.tool_call_id is not None and self.role != "tool":
            raise ValueError(f"'tool_call_id' belongs to role 'tool', not to '{self.role}'")
        if self.content is None and not self.tool_calls:
            raise ValueError("'content' is required")
        return self

    def for_template(self) -> dict[str, object]:
        # 'developer' is OpenAI's newer word for 'system'; templates know the older one.
        message: dict[str, object] = {"role": "system" if self.role == "developer" else self.role, "content": self.text}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = [call.for_template() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Function(Strict):
    name: ToolName
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    """JSON schema of the arguments; None: there are none."""
    strict: bool | None = None
    """A call that is enforced ('required' or by name) always keeps to the schema; this changes nothing."""


class Tool(Strict):
    type: Literal["function"]
    function: Function

    def for_template(self) -> dict[str, Any]:
        function: dict[str, Any] = {"name": self.function.name}
        if self.function.description is not None:
            function["description"] = self.function.description
        function["parameters"] = self.function.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": function}


class FunctionName(Strict):
    name: ToolName


class NamedToolChoice(Strict):
    type: Literal["function"]
    function: FunctionName


class ChatRequest(GenerationRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    """Variables for the checkpoint's chat template, e.g. {"enable_thinking": false}."""
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _chat_fields_fit_together(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' is only allowed when 'logprobs' is true")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("'tools' names a function twice")
        if self.tool_choice not in (None, "none", "auto") and not names:
            raise ValueError("'tool_choice' asks for a call, but there are no 'tools'")
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.function.name not in names:
            raise ValueError(f"'tool_choice' names '{self.tool_choice.function.name}', which is not among the 'tools'")
        if self.offered_tools and self.response_format is not None and self.response_format.type != "text":
            raise ValueError("'response_format' cannot be combined with 'tools'; set 'tool_choice' to 'none'")
        return self

    @property
    def offered_tools(self) -> list[Tool]:
        """The tools that the model is told of."""
        return [] if self.tool_choice == "none" else list(self.tools or ())

    @property
    def enforced_tools(self) -> list[Tool]:
        """Those of which the answer has to call one; empty where it may be text as well."""
        if isinstance(self.tool_choice, NamedToolChoice):
            return [tool for tool in self.offered_tools if tool.function.name == self.tool_choice.function.name]
        return self.offered_tools if self.tool_choice == "required" else []

    @property
    def n_most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None
