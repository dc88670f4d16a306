"""Engines on the same dummy weights in float32: one with the reference, one with the card's runner and kernels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from benchmarks.engine.quick import CONFIG
from worker_image.checkpoint.dummy import DummyCheckpoint
from worker_image.engine.core import Engine
from worker_image.engine.cpu_runner import CpuRunner
from worker_image.engine.gpu_runner import GpuRunner, RunnerSizes
from worker_image.engine.grammar import Grammars
from worker_image.engine.graphs import Capture
from worker_image.engine.host_blocks import HostBlocks
from worker_image.engine.host_cache import HostCache
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.messages import Add, Ready, Sampling
from worker_image.engine.prefix_cache import LeastRecentlyUsed
from worker_image.engine.runner import Runner
from worker_image.engine.scheduler.core import Limits, Scheduler
from worker_image.engine.scheduler.settings import DEFAULT, PolicyName, Scheduling
from worker_image.kernels.triton_ops import KvTensors, StepLimits, Steps, TritonOps
from worker_image.kernels.tuning import OTHER, tuning_for
from worker_image.models.assembly import load_model
from worker_image.models.kv_cache import KvCache
from worker_image.models.reference_ops import ReferenceOps

CPU: Final = torch.device("cpu")
BLOCKS: Final = 24
SLOTS: Final = 16
"""Of host memory."""
BLOCK_TOKENS: Final = 16
LONGEST: Final = 96
SEQUENCES: Final = 4
STEP_TOKENS: Final = 48


def shape_folder(folder: Path, **changes: object) -> Path:
    """A directory with the tiny shape's config.json."""
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 1} | changes), encoding="utf-8")
    return folder


def cpu_engine(folder: Path) -> Engine:
    model = load_model(DummyCheckpoint(folder), ReferenceOps(), lambda done, total: None, LONGEST)
    return _engine(CpuRunner(model, KvCache(model.config.kv_shape, BLOCKS, BLOCK_TOKENS)))


def gpu_engine(
    folder: Path, capture: Capture | None = None, *, deterministic: bool = False, host: HostBlocks | None = None
) -> Engine:
    tuning = tuning_for(OTHER)
    ops = TritonOps(CPU, tuning, torch.float32, deterministic=deterministic)
    with torch.inference_mode():
        model = load_model(DummyCheckpoint(folder), ops, lambda done, total: None, LONGEST)
        config = model.config
        cache = KvTensors.allocate(
            config.n_layers, BLOCKS, config.n_kv_heads, BLOCK_TOKENS, config.head_dim, torch.float32, CPU
        )
        # What no token has written must not matter.
        cache.data.fill_(float("nan"))
        layers = [layer.attention for layer in model.weights.layers]
        steps = Steps(layers, cache, tuning, StepLimits(SEQUENCES, LONGEST), deterministic=deterministic)
        sizes = RunnerSizes(SEQUENCES, STEP_TOKENS, BLOCK_TOKENS, LONGEST // BLOCK_TOKENS)
        memory = None if host is None else HostCache((cache.data,), 2, SLOTS)
        return _engine(GpuRunner(model, steps, cache, sizes, capture, memory), host)


def _engine(runner: Runner, host: HostBlocks | None = None) -> Engine:
    """With room in host memory, better classes take the places of lower ones."""
    scheduling = DEFAULT if host is None else Scheduling(PolicyName.PRIORITY)
    kv = KvBlocks(BLOCKS, BLOCK_TOKENS, bytes(16), LeastRecentlyUsed())
    limits = Limits(SEQUENCES, STEP_TOKENS, BLOCK_TOKENS, LONGEST)
    return Engine(
        runner, Scheduler(limits, kv, scheduling, host), Ready(LONGEST, BLOCKS * BLOCK_TOKENS, 0.0), _no_grammars
    )


def _no_grammars() -> Grammars:
    raise AssertionError("no request here has a grammar")


@dataclass
class Rerun:
    """Stands for a graph: does the work again, and its result lies where the captured one lay."""

    work: Callable[[], torch.Tensor]
    result: torch.Tensor

    def replay(self) -> None:
        self.result.copy_(self.work())


def rerun(work: Callable[[], torch.Tensor]) -> Rerun:
    """A `Capture` that runs the work twice, as capturing a graph does."""
    work()
    return Rerun(work, work())


def tokens_of(engine: Engine, prompts: Sequence[list[int]], sampling: Sampling | Sequence[Sampling]) -> list[list[int]]:
    """All prompts together, to their ends."""
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    for request_id, (prompt, own) in enumerate(zip(prompts, each, strict=True)):
        engine.add(Add(request_id, list(prompt), own))
    results: list[list[int]] = [[] for _ in prompts]
    while engine.has_work:
        step = engine.step()
        for request_id, token in zip(step.ids, step.new_tokens, strict=True):
            results[request_id].append(token)
        assert not [end for end in step.ended if end.message], step.ended
    return results
