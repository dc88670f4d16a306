"""How fast this engine is with this model: a profile, measured with random requests on an engine without clients.

    T = max(alpha_s + gamma_s·KV, delta_s·(B + P)) + beta_s·B + request_s·admitted

is the time of a step with B decoding sequences, P prefill tokens and KV tokens in the cache. Each number comes from the
difference between two loads. A client goes first: what is being measured is dropped when one comes, and begins again
when it was a short one (a probe of the gateway); else nothing is said.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Final
from uuid import uuid4

from worker_image.engine.client import EngineClient, TokenStream
from worker_image.engine.messages import Sampling, TokenOut
from worker_image.errors import EngineError, WorkerError

WINDOW_STEPS: Final = 16
"""Decode steps that are timed."""
SHORT_PROMPT: Final = 8
MOST_SEQUENCES: Final = 32
PREFILL_LIMIT_S: Final = 2.0
"""As long as the longest prompt may take: a slow machine is measured with shorter ones."""
TIME_LIMIT_S: Final = 120.0
PATIENCE_S: Final = 3.0
"""As long as one client is waited for."""
POLL_S: Final = 0.05
ATTEMPTS: Final = 4
"""Of one part."""
_TINY_S: Final = 1e-9
"""The clock may see no difference; a profile has no zeros."""


class NotAlone(WorkerError):
    """A client's request came, so nothing can be said about the engine alone."""


class _Untimed(EngineError):
    """All tokens were there at once: this process stood still for as long as the engine took."""


@dataclass(frozen=True)
class Shape:
    """What the engine takes at once."""

    n_vocabulary: int
    max_model_len: int
    kv_tokens: int
    max_num_seqs: int
    step_tokens: int


@dataclass(frozen=True)
class Profile:
    """Seconds, and tokens of one worker."""

    alpha_s: float
    beta_s: float
    gamma_s: float
    delta_s: float
    request_s: float
    kv_tokens: int
    max_sequences: int
    chunk_tokens: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)


async def measure_profile(engine: EngineClient, shape: Shape, is_alone: Callable[[], bool]) -> Profile:
    """Some seconds. Raises NotAlone, or EngineError where the engine ends or takes too long."""
    bench = _Bench(engine, shape, is_alone)
    try:
        async with asyncio.timeout(TIME_LIMIT_S):
            return await bench.profile()
    except TimeoutError:
        raise EngineError(f"the measurement took more than {TIME_LIMIT_S:g} s and was ended.") from None


class _Bench:
    def __init__(self, engine: EngineClient, shape: Shape, is_alone: Callable[[], bool]) -> None:
        self._engine, self._shape, self._is_alone = engine, shape, is_alone
        self._draw = random.Random(0)

    async def profile(self) -> Profile:
        shape = self._shape
        await self._alone(lambda: self._decode_s(1, SHORT_PROMPT, 4))  # Whatever is slow only once.
        short = max(min(shape.step_tokens // 4, self._room // 2), 1)
        short_s = await self._alone(lambda: self._prefill_s(short))
        longest = max(min(shape.step_tokens, self._room, int(PREFILL_LIMIT_S / short_s * short)), short + 1)
        long_s = await self._alone(lambda: self._prefill_s(longest))
        many = min(shape.max_num_seqs, MOST_SEQUENCES, max(shape.kv_tokens // (4 * (SHORT_PROMPT + WINDOW_STEPS)), 1))
        few = max(min(many, 4), 1)
        one_s = await self._alone(lambda: self._decode_s(1, SHORT_PROMPT, WINDOW_STEPS))
        many_s = await self._alone(lambda: self._decode_s(many, SHORT_PROMPT, WINDOW_STEPS))
        few_s = await self._alone(lambda: self._decode_s(few, SHORT_PROMPT, WINDOW_STEPS))
        deep = max(min(longest // 2, shape.kv_tokens // (2 * few), self._room - WINDOW_STEPS), SHORT_PROMPT + 1)
        deep_s = await self._alone(lambda: self._decode_s(few, deep, WINDOW_STEPS))

        delta_s = max((long_s - short_s) / (longest - short), _TINY_S)
        gamma_s = max((deep_s - few_s) / (few * (deep - SHORT_PROMPT)), 0.0)
        beta_s = max((many_s - one_s) / (many - 1), _TINY_S) if many > 1 else _TINY_S
        alpha_s = max(one_s - beta_s, _TINY_S)
        request_s = max(short_s - max(alpha_s, delta_s * short), 0.0)
        return Profile(
            alpha_s, beta_s, gamma_s, delta_s, request_s, shape.kv_tokens, shape.max_num_seqs, shape.step_tokens
        )

    @property
    def _room(self) -> int:
        """Tokens of a prompt that leaves room for its answer."""
        return min(self._shape.max_model_len, self._shape.kv_tokens) - WINDOW_STEPS - 2

    async def _alone(self, measure: Callable[[], Awaitable[float]]) -> float:
        """A part, anew where a client came in between or nothing could be timed. Raises NotAlone, EngineError."""
        for left in reversed(range(ATTEMPTS)):
            try:
                return await measure()
            except NotAlone:
                await self._client_left()
            except _Untimed:
                if not left:
                    raise
        raise NotAlone("clients come too often; what the engine does alone cannot be measured now.")

    async def _client_left(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while not self._is_alone():
            if time.monotonic() > until:
                raise NotAlone("clients ask for something; what the engine does alone cannot be measured now.")
            await asyncio.sleep(POLL_S)

    async def _prefill_s(self, n_prompt: int) -> float:
        """From a prompt to its first token; the better of two."""
        times = []
        for _ in range(2):
            started_at = time.monotonic()
            async with self._tokens(1, n_prompt, 1) as tokens:
                async for _ in tokens:
                    times.append(time.monotonic() - started_at)
        return max(min(times), _TINY_S)

    async def _decode_s(self, n_sequences: int, n_prompt: int, n_steps: int) -> float:
        """Median time of the steps in which all sequences decode and none has ended."""
        n_chunks = -(-n_sequences * n_prompt // max(self._shape.step_tokens - n_sequences, 1))
        counts: dict[int, int] = {}
        seen: list[tuple[float, int]] = []
        async with self._tokens(n_sequences, n_prompt, n_steps + n_chunks + 2) as tokens:
            async for some in tokens:
                for token in some:
                    counts[token.request_id] = counts.get(token.request_id, 0) + 1
                if any(token.finish for token in some):
                    break
                if len(counts) == n_sequences and min(counts.values()) >= 2:
                    seen.append((time.monotonic(), self._engine.load.steps))
        each = [(at - before) / (step - last) for (before, last), (at, step) in pairwise(seen) if step > last]
        if not each:
            raise _Untimed("the engine made no steps that could be timed.")
        return max(median(each), _TINY_S)

    @asynccontextmanager
    async def _tokens(self, n: int, n_prompt: int, n_output: int) -> AsyncIterator[AsyncIterator[Sequence[TokenOut]]]:
        """The answers to `n` random prompts; nothing of them stays for requests of others."""
        prompts = [[self._draw.randrange(self._shape.n_vocabulary) for _ in range(n_prompt)] for _ in range(n)]
        engine, sampling = self._engine, Sampling(n_output, temperature=0.0)
        self._check()
        async with engine.submit_all(prompts, sampling, cache_salt=uuid4().hex) as stream:
            engine.n_measuring += n
            try:
                async with aclosing(self._checked(stream)) as tokens:
                    yield tokens
            finally:
                engine.n_measuring -= n

    async def _checked(self, stream: TokenStream) -> AsyncGenerator[Sequence[TokenOut], None]:
        async for some in stream:
            self._check()
            yield some

    def _check(self) -> None:
        if not self._is_alone():
            raise NotAlone("a client asks for something.")
