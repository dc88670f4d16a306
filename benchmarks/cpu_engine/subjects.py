"""Our engine and transformers' `generate`, made to do the same work: greedy, float32, a fixed number of tokens."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from worker_image.engine.client import EngineClient, TokenStream
from worker_image.engine.messages import EngineSettings, Sampling

NO_TOKEN = 10**9
"""An end-of-sequence id that no model has, so that both sides generate to the full length."""

WINDOW = 8
"""Steps in a row that a step's time is taken from: one alone could be short because the one before was seen late."""


@dataclass(frozen=True)
class Answer:
    tokens: list[list[int]]
    seconds: float
    fastest_step_s: float
    """Of the steps that gave each request one more token: what is left when nothing else disturbs the machine."""


class StepTimes:
    """The time between marks; the first one ends the prefill and is only a beginning."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        self._marks.append(time.perf_counter())

    @property
    def fastest_s(self) -> float:
        """The mean of the fastest WINDOW steps in a row; infinite where there were fewer."""
        return min((b - a for a, b in zip(self._marks, self._marks[WINDOW:], strict=False)), default=inf) / WINDOW


class Subject(Protocol):
    def generate(self, prompts: list[list[int]], n_tokens: int) -> Answer:
        """`n_tokens` for every prompt, all prompts at once."""


class Ours:
    """The engine's own process, as `serve` runs it; HTTP and text are not measured here."""

    def __init__(self, checkpoint: Path, n_threads: int) -> None:
        settings = EngineSettings(
            model_path=str(checkpoint), n_threads=n_threads, max_num_seqs=32, step_tokens=256, block_tokens=16,
            max_model_len=2048, kv_cache_bytes=None,
        )  # fmt: skip
        self._runner = asyncio.Runner()
        self._engine = self._runner.run(self._start(settings))

    async def _start(self, settings: EngineSettings) -> EngineClient:
        engine = await EngineClient.start(settings, lambda _: None)
        await engine.wait_ready()
        return engine

    def generate(self, prompts: list[list[int]], n_tokens: int) -> Answer:
        return self._runner.run(self._generate(prompts, n_tokens))

    async def _generate(self, prompts: list[list[int]], n_tokens: int) -> Answer:
        started_at, steps = time.perf_counter(), StepTimes()
        streams = [self._engine.submit(prompt, Sampling(n_tokens, temperature=0.0)) for prompt in prompts]
        # The last one is admitted last, so its tokens mark steps in which every request takes part.
        tokens = await asyncio.gather(
            *(_collect(stream, steps if stream is streams[-1] else None) for stream in streams)
        )
        return Answer(list(tokens), time.perf_counter() - started_at, steps.fastest_s)

    def close(self) -> None:
        self._runner.run(self._engine.stop())
        self._runner.close()


async def _collect(stream: TokenStream, steps: StepTimes | None) -> list[int]:
    tokens: list[int] = []
    async with stream:
        async for arrived in stream:
            tokens += [token.token for token in arrived]
            if steps is not None:
                for _ in arrived:
                    steps.mark()
    return tokens


class Transformers:
    """`AutoModelForCausalLM.generate` with left padding, as its documentation batches decoder-only models."""

    def __init__(self, checkpoint: Path, n_threads: int) -> None:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.getLogger("transformers").setLevel(logging.ERROR)
        torch.set_num_threads(n_threads)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.parent, gguf_file=checkpoint.name, dtype=torch.float32
        )

    def generate(self, prompts: list[list[int]], n_tokens: int) -> Answer:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=n_tokens, do_sample=False, eos_token_id=NO_TOKEN, pad_token_id=0
        )
        started_at = time.perf_counter()
        steps = StepTimes()

        def never_stop(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
            steps.mark()
            return torch.zeros(len(ids), dtype=torch.bool)

        with torch.inference_mode():
            generated = self._model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=[never_stop]
            )
        return Answer(generated[:, longest:].tolist(), time.perf_counter() - started_at, steps.fastest_s)
