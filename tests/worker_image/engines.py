"""Engines in this process, for tests that look at tokens rather than at HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from worker_image.checkpoint.open import open_checkpoint
from worker_image.engine.core import Engine
from worker_image.engine.loading import load_engine
from worker_image.engine.messages import Add, EngineSettings, Sampling, TokenOut

SMALL: Final = EngineSettings(
    model_path="",
    n_threads=1,
    max_num_seqs=8,
    step_tokens=32,
    block_tokens=4,
    max_model_len=None,
    kv_cache_bytes=None,
)


def an_engine(path: Path, settings: EngineSettings = SMALL) -> Engine:
    checkpoint = open_checkpoint(path)
    checkpoint.prefetch(2)
    try:
        return load_engine(checkpoint, replace(settings, model_path=str(path)), lambda _: None)
    finally:
        checkpoint.close()


def outputs(
    engine: Engine, prompts: Sequence[list[int]], sampling: Sampling | Iterable[Sampling]
) -> list[list[TokenOut]]:
    """Runs all prompts together to their ends."""
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    for request_id, (prompt, own) in enumerate(zip(prompts, each, strict=True)):
        engine.add(Add(request_id, list(prompt), own))
    results: list[list[TokenOut]] = [[] for _ in prompts]
    while engine.has_work:
        for token in engine.step().tokens:
            results[token.request_id].append(token)
    return results


def tokens(engine: Engine, prompts: Sequence[list[int]], sampling: Sampling | Iterable[Sampling]) -> list[list[int]]:
    return [[token.token for token in result] for result in outputs(engine, prompts, sampling)]
