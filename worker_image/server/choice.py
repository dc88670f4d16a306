"""One choice of an answer as it is generated: tokens → text, stop strings, tool calls, and what it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from worker_image.engine.messages import Admitted, Finish, TokenOut
from worker_image.server.metrics import Ended, Metrics
from worker_image.server.plans import Job
from worker_image.server.quality import LEAST_ALLOWED_TOKENS, AnswerSoFar
from worker_image.text.detokenizer import Detokenizer, TokenBytes
from worker_image.text.stop_strings import StopStrings
from worker_image.text.tool_calls import Call, Parsed, tool_calls


@dataclass(slots=True)
class Piece:
    """What some tokens of one choice came to: text (may be empty), calls, and why they were the last, if they were."""

    choice: Choice
    text: str
    tokens: Sequence[TokenOut]
    finish: str | None
    calls: Sequence[Call] = field(default=())


class Choice:
    """`take` the engine's tokens in order until it says `finish`."""

    def __init__(self, index: int, job: Job, token_bytes: TokenBytes, metrics: Metrics) -> None:
        self.index = index
        self.n_generated = 0
        self.n_calls = 0
        self.admitted: Admitted | None = None
        """The engine's word on when it took this up; set before the first token is taken."""
        self.finish: str | None = None
        self._n_before = 0
        self._n_cached: int | None = None
        """Where another worker has said it."""
        self._n_prompt = len(job.prompts[index // job.sampling.n])
        self._metrics = metrics
        self._priority = job.standing.priority
        self._detokenizer = Detokenizer(token_bytes)
        self._stops = StopStrings(job.stops) if job.stops else None
        self._tools = tool_calls(job.tools.format, job.tools.names) if job.tools else None
        self._plain = self._stops is None and self._tools is None
        self._answer = AnswerSoFar()
        self._is_measured = job.sampling.max_tokens >= LEAST_ALLOWED_TOKENS
        self._started_at = self._last_token_at = time.monotonic()
        self._first_token_at: float | None = None

    @property
    def n_cached(self) -> int:
        """Prompt tokens whose keys and values were in the cache, of the worker that began."""
        if self._n_cached is not None:
            return self._n_cached
        return 0 if self.admitted is None else self.admitted.cached_tokens

    def replay(self, tokens: Sequence[TokenOut], cached_tokens: int) -> None:
        """Takes up what another worker has said: the state is as if it had been said here, and nothing is given out."""
        if tokens:
            self.n_generated = self._n_before = len(tokens)
            self._n_cached = cached_tokens
            self._take_with_care(tokens)

    def take(self, tokens: Sequence[TokenOut], now: float) -> Piece:
        """At least one token; `now` is when they came."""
        self._count(tokens, now)
        if self._plain and tokens[-1].finish is None:
            push = self._detokenizer.push
            text = push(tokens[0].token) if len(tokens) == 1 else "".join(push(t.token) for t in tokens)
            self._answer.take(tokens, text)
            return Piece(self, text, tokens, None)
        return self._take_with_care(tokens)

    def _take_with_care(self, tokens: Sequence[TokenOut]) -> Piece:
        """Up to a stop string if one completes among the tokens, or to the end."""
        text, used, stops = "", 0, self._stops or StopStrings(())
        for token in tokens:
            used += 1
            # The token that ends a generation is not part of its text.
            if token.finish is not Finish.STOP:
                text += stops.push(self._detokenizer.push(token.token))
            if token.finish is not None:
                text += stops.push(self._detokenizer.flush()) + stops.flush()
            if stops.stopped:
                break
        self.n_generated -= len(tokens) - used
        self._answer.take(tokens[:used], text)
        ending = tokens[used - 1].finish
        self.finish = "stop" if stops.stopped else ending and ending.value
        return self._with_calls(Piece(self, text, tokens[:used], self.finish))

    def _with_calls(self, piece: Piece) -> Piece:
        if self._tools is None:
            return piece
        found = [self._tools.push(piece.text)]
        if piece.finish is not None:
            found.append(self._tools.flush())
        piece.text, piece.calls = _joined(found)
        self.n_calls += len(piece.calls)
        if piece.finish == "stop" and self.n_calls:
            piece.finish = "tool_calls"
        return piece

    def _count(self, tokens: Sequence[TokenOut], now: float) -> None:
        metrics, n_tokens = self._metrics, len(tokens)
        if self._first_token_at is None:
            self._first_token_at = now
            metrics.prompt_tokens.value += self._n_prompt
            metrics.first_token(self._priority, now - self._started_at)
        else:
            metrics.itl.observe((now - self._last_token_at) / n_tokens, n_tokens)
        metrics.generation_tokens.value += n_tokens
        self.n_generated += n_tokens
        self._last_token_at = now

    def ended(self, reason: str, now: float) -> Ended:
        """What it took, for the metrics. `reason` counts where it has not finished by itself."""
        first_at, admitted = self._first_token_at, self.admitted
        if self.finish is not None and self._is_measured:
            self._metrics.quality.ended(self._answer, self.n_generated)
        queue_s = None if admitted is None else admitted.queued_s
        return Ended(
            reason=self.finish or reason,
            priority=self._priority,
            e2e_s=now - self._started_at,
            queue_s=queue_s,
            prefill_s=None if first_at is None else first_at - self._started_at - (queue_s or 0.0),
            decode_s=None if first_at is None else self._last_token_at - first_at,
            prompt_tokens=self._n_prompt,
            generation_tokens=self.n_generated,
            tokens_before=self._n_before,
        )


def _joined(found: Sequence[Parsed]) -> tuple[str, tuple[Call, ...]]:
    return "".join(each.text for each in found), tuple(call for each in found for call in each.calls)
