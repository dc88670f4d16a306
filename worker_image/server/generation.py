"""One running job: its choices' tokens from the engine, as pieces of text. Knows no HTTP."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

from worker_image.engine.client import EngineClient, TokenStream, Work
from worker_image.engine.messages import TokenOut
from worker_image.errors import EngineError, LeavingError, RequestError
from worker_image.server.answers import Usage
from worker_image.server.choice import Choice, Piece
from worker_image.server.journal import Past
from worker_image.server.metrics import Ended, Metrics
from worker_image.server.plans import Job
from worker_image.server.state import Served
from worker_image.server.timing import server_timing


class Generation:
    """Iterate `pieces` to the end; leaving early cancels the engine's work."""

    def __init__(
        self, job: Job, served: Served, engine: EngineClient, metrics: Metrics, pasts: Sequence[Past] | None = None
    ) -> None:
        """pasts: what each choice has said on another worker. Raises RequestError for what it cannot have said."""
        self._job = job
        self._stream: TokenStream | None = None
        self._leaving = False
        self._ended: list[Ended] = []
        self._first_step: int | None = None
        self._engine = engine
        self._metrics = metrics
        n_choices = len(job.prompts) * job.sampling.n
        self.choices = [Choice(index, job, served.token_bytes, metrics) for index in range(n_choices)]
        self._works, self._going = job.works, self.choices
        if pasts is not None:
            self._works, self._going = self._resume(pasts)
        metrics.n.observe(job.sampling.n)
        metrics.max_tokens.observe(job.sampling.max_tokens)

    def _resume(self, pasts: Sequence[Past]) -> tuple[list[Work], list[Choice]]:
        """What is left to do, and the choices that it is of."""
        for choice, past in zip(self.choices, pasts, strict=True):
            choice.replay(past.tokens, past.cached_tokens)
            n_said, n_most = len(past.tokens), self._job.sampling.max_tokens
            if choice.n_generated < n_said or n_said > n_most - (choice.finish is None):
                raise RequestError(
                    f"the journal has {n_said} tokens of choice {choice.index}, which ended "
                    f"after {min(choice.n_generated, n_most)}.",
                    code="bad_journal",
                )
        going = [choice for choice in self.choices if choice.finish is None]
        return [self._job.work_left(choice.index, pasts[choice.index].ids) for choice in going], going

    def leave(self) -> None:
        """`pieces` ends with a LeavingError: this worker's time is up."""
        self._leaving = True
        if self._stream is not None:
            self._stream.fail(LeavingError("this worker is leaving."))

    @property
    def usage(self) -> Usage:
        """So far. A prompt is counted once, however many choices it has."""
        return Usage(
            prompt_tokens=self._job.n_prompt_tokens,
            completion_tokens=sum(choice.n_generated for choice in self.choices),
            cached_tokens=sum(choice.n_cached for choice in self.choices[:: self._job.sampling.n]),
        )

    @property
    def timing(self) -> str:
        """Where the time went, as a `Server-Timing` value, once `pieces` has ended."""
        steps = 0 if self._first_step is None else self._engine.load.steps - self._first_step
        return server_timing(self._ended, steps)

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """What the newest tokens of each choice came to; ends when all have finished. Raises EngineError, or
        RequestError where no engine could go on."""
        job, reason = self._job, "abort"
        try:
            if not self._going:
                return
            async with self._engine.submit_works(self._works, job.cache_salt, job.standing) as stream:
                self._stream = stream
                if self._leaving:
                    self.leave()
                by_id = dict(zip(stream.choice_ids, self._going, strict=True))
                async for tokens in stream:
                    yield self._take(tokens, by_id, stream)
        except EngineError as error:
            reason = "abort" if isinstance(error, LeavingError) else "error"
            raise
        except RequestError as error:
            raise RequestError(str(error), param=job.grammar_from) from None
        finally:
            now = time.monotonic()
            self._ended = [choice.ended(reason, now) for choice in self._going]
            for ended in self._ended:
                self._metrics.ended(ended)

    def _take(self, tokens: list[TokenOut], by_id: dict[int, Choice], stream: TokenStream) -> list[Piece]:
        now = time.monotonic()
        if self._first_step is None:
            self._first_step = self._engine.load.steps
        if len(by_id) == 1:
            return [_piece(self._going[0], tokens, now, stream)]
        of_choice: defaultdict[int, list[TokenOut]] = defaultdict(list)
        for token in tokens:
            of_choice[token.request_id].append(token)
        return [_piece(by_id[i], own, now, stream) for i, own in of_choice.items() if by_id[i].finish is None]


def _piece(choice: Choice, tokens: Sequence[TokenOut], now: float, stream: TokenStream) -> Piece:
    if choice.admitted is None:
        choice.admitted = stream.admitted.get(tokens[0].request_id)
    piece = choice.take(tokens, now)
    if piece.finish is not None:
        # A stop string ended it, of which the engine knows nothing.
        stream.cancel(tokens[0].request_id)
    return piece
