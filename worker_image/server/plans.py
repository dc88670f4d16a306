"""From a validated request to a job for the engine: template, tokens, limits, sampling. Pure; may run in a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from worker_image.engine.client import Work
from worker_image.engine.messages import Sampling
from worker_image.engine.standing import ORDINARY, Standing
from worker_image.errors import RequestError
from worker_image.server.api_types import CompletionRequest, GenerationRequest
from worker_image.server.chat_types import ChatMessage, ChatRequest, Tool
from worker_image.server.state import Served
from worker_image.server.ticket import MAX_SEED
from worker_image.text.grammar import json_object_grammar, json_schema_grammar, tools_grammar
from worker_image.text.tool_format import ToolFormat

DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI's plain completions generate where the client does not say; chat goes on to the end of the context."""
MAX_TOP_K = (1 << 31) - 1
"""As much as the engine's tables hold, and more than any vocabulary: beyond it nothing changes."""
LEAST_TEMPERATURE = 1e-5
"""Logits divided by less leave float32, and the least likely token could be drawn; below it the likeliest is taken."""
MAX_ID_DIGITS = 19
"""Of a token id as text; Python refuses to read thousands of digits."""


@dataclass(frozen=True)
class ToolPlan:
    """The calls to look for in the answer."""

    format: ToolFormat
    names: frozenset[str]


@dataclass(frozen=True)
class Job:
    """A request the engine can run: `sampling.n` choices of each prompt."""

    prompts: tuple[list[int], ...]
    sampling: Sampling
    stops: tuple[str, ...]
    tools: ToolPlan | None
    echo: tuple[str, ...] | None
    """What the text of each prompt's choices begins with."""
    grammar_from: str
    """The request's field that the grammar comes from."""
    cache_salt: str
    standing: Standing = ORDINARY
    drawn_seed: int | None = None
    """For a request that names none, where the gateway has drawn one: of the first choice, and 1 more for each next."""

    @property
    def n_prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def works(self) -> list[Work]:
        """All of it, from the beginning."""
        each = [(prompt, self.seed_of(i * self.sampling.n)) for i, prompt in enumerate(self.prompts)]
        return [Work(prompt, replace(self.sampling, seed=seed)) for prompt, seed in each]

    def work_left(self, index: int, said: list[int]) -> Work:
        """The rest of one choice that has said something elsewhere."""
        sampling = replace(self.sampling, seed=self.seed_of(index), n=1)
        return Work([*self.prompts[index // self.sampling.n], *said], sampling, len(said))

    def seed_of(self, index: int) -> int | None:
        """Of one choice, as the engine counts them on from the first of its prompt. None: whatever it draws."""
        if self.sampling.seed is not None:
            return (self.sampling.seed + index % self.sampling.n) & MAX_SEED
        return None if self.drawn_seed is None else (self.drawn_seed + index) & MAX_SEED


def plan_chat(request: ChatRequest, served: Served, created: int | None = None) -> Job:
    """created: Unix seconds of a request that was made earlier. Raises RequestError."""
    served.check_name(request.model)
    format = _tool_format(request, served)
    variables = request.chat_template_kwargs or {}
    prompt = chat_prompt(request.messages, request.offered_tools, variables, served, created)
    names = frozenset(tool.function.name for tool in request.offered_tools)
    tools = None if format is None else ToolPlan(format, names)
    grammar, source = _grammar(request), "response_format"
    if format and request.enforced_tools:
        named = [(tool.function.name, tool.for_template()["function"]["parameters"]) for tool in request.enforced_tools]
        grammar, source = tools_grammar(format, named, several=request.parallel_tool_calls is not False), "tools"
    room = _room(request, [prompt], served, param="messages")
    sampling = _sampling(request, served, min(request.n_most or room, room), grammar)
    return Job((prompt,), sampling, tuple(request.stops), tools, None, source, served.cache_salt(request.cache_salt))


def chat_prompt(
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool],
    variables: Mapping[str, object],
    served: Served,
    created: int | None = None,
) -> list[int]:
    """The messages as the model reads them. Raises RequestError."""
    if served.template is None:
        raise RequestError("this model has no chat template; use /v1/completions.", param="messages")
    if tools:
        variables = {**variables, "tools": [tool.for_template() for tool in tools]}
    text = served.template.render([message.for_template() for message in messages], variables, created)
    # The template writes the beginning-of-sequence token itself where the model wants one.
    return served.encode(text, add_bos=False, param="messages")


def plan_completion(request: CompletionRequest, served: Served, created: int | None = None) -> Job:
    """created: as for chat; a plain prompt has no date. Raises RequestError."""
    served.check_name(request.model)
    prompts = [completion_prompt(prompt, served) for prompt in request.prompts]
    room = _room(request, prompts, served, param="prompt")
    sampling = _sampling(request, served, min(request.n_most or DEFAULT_COMPLETION_TOKENS, room), _grammar(request))
    echo = None
    if request.echo:
        echo = tuple(
            prompt if isinstance(prompt, str) else served.token_bytes.text(prompt) for prompt in request.prompts
        )
    stops, salt = tuple(request.stops), served.cache_salt(request.cache_salt)
    return Job(tuple(prompts), sampling, stops, None, echo, "response_format", salt)


def completion_prompt(prompt: str | list[int], served: Served) -> list[int]:
    """Token ids. Raises RequestError for one that is not in the vocabulary."""
    if isinstance(prompt, str):
        return served.encode(prompt, add_bos=served.vocabulary.add_bos, param="prompt")
    served.check_ids(prompt, param="prompt")
    return prompt


def _tool_format(request: ChatRequest, served: Served) -> ToolFormat | None:
    """None where no tools are offered."""
    if not request.offered_tools:
        return None
    if served.tool_format is None:
        raise RequestError(
            "this model's chat template has no tools that this worker can read; leave out 'tools', "
            "or serve a model of the Hermes, Qwen or Llama 3 kind.",
            param="tools",
        )  # fmt: skip
    return served.tool_format


def _grammar(request: GenerationRequest) -> str | None:
    format = request.response_format
    if format is None or format.type == "text":
        return None
    return json_object_grammar() if format.json_schema is None else json_schema_grammar(format.json_schema.schema_)


def _room(request: GenerationRequest, prompts: list[list[int]], served: Served, *, param: str) -> int:
    """How many tokens may follow the longest prompt. Raises RequestError where that is fewer than asked for."""
    if not all(prompts):
        raise RequestError("the prompt is empty.", param=param)
    longest = max(map(len, prompts))
    room, asked = served.max_model_len - longest, request.n_most
    if room < (asked or 1):
        more = f" and {asked} more were asked for" if asked else ""
        raise RequestError(
            f"this model's context is {served.max_model_len} tokens; the prompt has {longest}{more}. "
            "Shorten the prompt or lower max_tokens.",
            param=param, code="context_length_exceeded",
        )  # fmt: skip
    return room


def _sampling(request: GenerationRequest, served: Served, max_tokens: int, grammar: str | None) -> Sampling:
    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    stop_ids = set(request.stop_token_ids or ())
    served.check_ids(list(stop_ids), param="stop_token_ids")
    if not request.ignore_eos:
        stop_ids |= served.vocabulary.stop_ids
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=min(request.min_tokens or 0, max_tokens),
        temperature=_temperature(given(request.temperature, 1.0)),
        top_p=given(request.top_p, 1.0),
        top_k=min(max(request.top_k or 0, 0), MAX_TOP_K),
        min_p=given(request.min_p, 0.0),
        presence_penalty=given(request.presence_penalty, 0.0),
        frequency_penalty=given(request.frequency_penalty, 0.0),
        repetition_penalty=given(request.repetition_penalty, 1.0),
        logit_bias=_logit_bias(request, served),
        seed=request.seed,
        stop_ids=tuple(sorted(stop_ids)),
        top_logprobs=request.n_logprobs,
        n=request.n_choices,
        grammar=grammar,
    )


def _temperature(asked: float) -> float:
    return asked if asked >= LEAST_TEMPERATURE else 0.0


def _logit_bias(request: GenerationRequest, served: Served) -> tuple[tuple[int, float], ...]:
    bias = request.logit_bias or {}
    for key in bias:
        if not key.isascii() or not key.isdigit() or len(key) > MAX_ID_DIGITS:
            raise RequestError(f"field 'logit_bias' has the key '{key[:40]}'; a key is a token id.", param="logit_bias")
    ids = [int(key) for key in bias]
    served.check_ids(ids, param="logit_bias")
    return tuple(zip(ids, bias.values(), strict=True))
