"""From a validated request to a stream of text: prompt → tokens → engine → text, with stop strings and usage.

Shared by chat and plain completions, streamed or not. Knows no HTTP.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from worker_image.engine.client import EngineClient
from worker_image.engine.messages import Finish, Sampling, TokenOut
from worker_image.errors import RequestError
from worker_image.server.answers import Usage
from worker_image.server.api_types import ChatRequest, CompletionRequest, GenerationRequest
from worker_image.server.metrics import Metrics
from worker_image.server.state import Served
from worker_image.text.detokenizer import Detokenizer
from worker_image.text.stop_strings import StopStrings

DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI's plain completions generate where the client does not say; chat goes on to the end of the context."""


@dataclass(frozen=True)
class Job:
    """A request the engine can run."""

    prompt: list[int]
    sampling: Sampling
    stops: list[str]


def plan_chat(request: ChatRequest, served: Served) -> Job:
    """Raises RequestError."""
    served.check_name(request.model)
    if served.template is None:
        raise RequestError("this model has no chat template; use /v1/completions.", param="messages")
    text = served.template.render([message.for_template() for message in request.messages])
    # The template writes the beginning-of-sequence token itself where the model wants one.
    prompt = served.vocabulary.encode(text, add_bos=False)
    return _job(request, prompt, served, default_tokens=served.max_model_len, param="messages")


def plan_completion(request: CompletionRequest, served: Served) -> Job:
    """Raises RequestError."""
    served.check_name(request.model)
    vocabulary, prompt = served.vocabulary, request.text_or_ids
    ids = vocabulary.encode(prompt, add_bos=vocabulary.add_bos) if isinstance(prompt, str) else prompt
    n_tokens = len(vocabulary.tokens)
    if unknown := next((i for i in ids if i >= n_tokens), None):
        raise RequestError(f"token id {unknown} is outside the vocabulary of {n_tokens}.", param="prompt")
    return _job(request, ids, served, default_tokens=DEFAULT_COMPLETION_TOKENS, param="prompt")


def _job(request: GenerationRequest, prompt: list[int], served: Served, *, default_tokens: int, param: str) -> Job:
    if not prompt:
        raise RequestError("the prompt is empty.", param=param)
    room = served.max_model_len - len(prompt)
    asked = request.n_most
    if room < (asked or 1):
        more = f" and {asked} more were asked for" if asked else ""
        raise RequestError(
            f"this model's context is {served.max_model_len} tokens; the prompt has {len(prompt)}{more}. "
            "Shorten the prompt or lower max_tokens.",
            param=param, code="context_length_exceeded",
        )  # fmt: skip
    return Job(prompt, _sampling(request, served, min(asked or default_tokens, room)), request.stops)


def _sampling(request: GenerationRequest, served: Served, max_tokens: int) -> Sampling:
    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    return Sampling(
        max_tokens=max_tokens,
        temperature=given(request.temperature, 1.0),
        top_p=given(request.top_p, 1.0),
        top_k=max(request.top_k or 0, 0),
        min_p=given(request.min_p, 0.0),
        presence_penalty=given(request.presence_penalty, 0.0),
        frequency_penalty=given(request.frequency_penalty, 0.0),
        repetition_penalty=given(request.repetition_penalty, 1.0),
        seed=request.seed,
        stop_ids=() if request.ignore_eos else tuple(served.vocabulary.stop_ids),
        top_logprobs=request.n_logprobs,
    )


@dataclass(frozen=True)
class Piece:
    """Some text (may be empty), the tokens it came from, and why it was the last one, if it was."""

    text: str
    tokens: list[TokenOut]
    finish: Finish | None


class Generation:
    """One running job. Iterate `pieces`; leaving early cancels the engine's work."""

    def __init__(self, job: Job, served: Served, engine: EngineClient, metrics: Metrics) -> None:
        self._job = job
        self._engine = engine
        self._metrics = metrics
        self._detokenizer = Detokenizer(served.token_bytes)
        self._stops = StopStrings(job.stops)
        self._n_generated = 0
        self._started_at = self._last_token_at = time.monotonic()

    @property
    def usage(self) -> Usage:
        return Usage(len(self._job.prompt), self._n_generated)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Ends after the piece with a `finish`. Raises EngineError."""
        ended = "abort"
        try:
            async with self._engine.submit(self._job.prompt, self._job.sampling) as stream:
                async for tokens in stream:
                    piece = self._take(tokens)
                    if piece.finish is not None:
                        ended = piece.finish.value
                    yield piece
                    if piece.finish is not None:
                        return
        finally:
            self._metrics.ended(ended)
            self._metrics.e2e.observe(time.monotonic() - self._started_at)

    def _take(self, tokens: list[TokenOut]) -> Piece:
        """Text of the tokens, up to a stop string if one completes among them."""
        text, used = "", 0
        for token in tokens:
            used += 1
            # The token that ends a generation is not part of its text.
            if token.finish is not Finish.STOP:
                text += self._stops.push(self._detokenizer.push(token.token))
            if token.finish is not None:
                text += self._stops.push(self._detokenizer.flush()) + self._stops.flush()
            if self._stops.stopped:
                break
        self._count(used)
        finish = Finish.STOP if self._stops.stopped else tokens[used - 1].finish
        return Piece(text, tokens[:used], finish)

    def _count(self, n_tokens: int) -> None:
        now = time.monotonic()
        if self._n_generated == 0:
            self._metrics.prompt_tokens.inc(len(self._job.prompt))
            self._metrics.ttft.observe(now - self._started_at)
        else:
            for _ in range(n_tokens):
                self._metrics.tpot.observe((now - self._last_token_at) / n_tokens)
                self._metrics.itl.observe((now - self._last_token_at) / n_tokens)
        self._metrics.generation_tokens.inc(n_tokens)
        self._n_generated += n_tokens
        self._last_token_at = now
