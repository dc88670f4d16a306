"""Sends a workload to the engine's own process over its socket and notes when tokens arrive, on the host's clock.

HTTP and text are left out, as they are for the peers' figures. Knows nothing of goals.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.engine.workloads import Request, Workload
from worker_image.engine.client import EngineClient, TokenStream
from worker_image.engine.messages import EngineLoad, EngineSettings, Progress, Ready, Sampling, StepDone

LIMIT_S: Final = 300.0
"""No workload takes this long on a card; one that does has hung."""


@dataclass(slots=True)
class Answer:
    """When one request was due and when its tokens came, in seconds from the workload's start."""

    due_s: float
    first_s: float = 0.0
    last_s: float = 0.0
    tokens: list[int] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.due_s

    @property
    def tpot_s(self) -> float | None:
        """Seconds per token after the first; None for an answer of one token."""
        return (self.last_s - self.first_s) / (len(self.tokens) - 1) if len(self.tokens) > 1 else None


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float
    """The whole blocking call: from before the first request was sent until the last token was there."""
    answers: tuple[Answer, ...]
    steps: int
    preemptions: int
    kv_waste: float
    """Share of the KV cache's held slots that no token uses, mean over the steps."""
    step_s: float
    """The engine's own mean over the steps, from launch to the next commit's end."""
    host_s: float
    """Of that, what scheduling, launching and committing took while the device ran the step before."""


@dataclass(slots=True)
class StepSums:
    """Sums over the steps of what the engine says about each."""

    count: int = 0
    kv_waste: float = 0.0
    step_s: float = 0.0
    host_s: float = 0.0

    def take(self, _: EngineLoad, step: StepDone) -> None:
        if step.new_tokens:
            self.count += 1
            self.kv_waste += step.load.kv_waste
            self.step_s += step.load.step_s
            self.host_s += step.load.host_s

    def mean(self, total: float) -> float:
        return total / max(self.count, 1)


class Engine:
    """One engine process and the event loop it is spoken to from."""

    def __init__(self, settings: EngineSettings, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Blocks until requests may be sent. Raises WorkerError with the engine's own sentence."""
        self._loop = asyncio.Runner()
        self._client, self.ready = self._loop.run(self._start(settings, on_progress))

    async def _start(
        self, settings: EngineSettings, on_progress: Callable[[Progress], None]
    ) -> tuple[EngineClient, Ready]:
        client = await EngineClient.start(settings, on_progress)
        return client, await client.wait_ready()

    def run(self, workload: Workload) -> Outcome:
        """Raises EngineError when the engine ended, TimeoutError when it hung."""
        return self._loop.run(asyncio.wait_for(self._run(workload), LIMIT_S))

    async def _run(self, workload: Workload) -> Outcome:
        steps, preemptions = self._client.load.steps, self._client.load.preemptions
        sampling = [Sampling(request.output_tokens, temperature=workload.temperature) for request in workload.requests]
        sums = StepSums()
        self._client.on_step(sums.take)
        started_at = time.perf_counter()
        answers = await asyncio.gather(
            *(self._ask(request, each, started_at) for request, each in zip(workload.requests, sampling, strict=True))
        )
        seconds = time.perf_counter() - started_at
        load = self._client.load
        return Outcome(
            seconds, tuple(answers), load.steps - steps, load.preemptions - preemptions,
            sums.mean(sums.kv_waste), sums.mean(sums.step_s), sums.mean(sums.host_s),
        )  # fmt: skip

    async def _ask(self, request: Request, sampling: Sampling, started_at: float) -> Answer:
        if request.at_s > 0:
            await asyncio.sleep(started_at + request.at_s - time.perf_counter())
        return await _collect(self._client.submit(request.prompt, sampling), Answer(request.at_s), started_at)

    def close(self) -> None:
        self._loop.run(self._client.stop())
        self._loop.close()


async def _collect(stream: TokenStream, answer: Answer, started_at: float) -> Answer:
    async with stream:
        async for arrived in stream:
            now_s = time.perf_counter() - started_at
            if not answer.tokens:
                answer.first_s = now_s
            answer.last_s = now_s
            answer.tokens.extend(item.token for item in arrived)
    return answer
