"""From a checkpoint and settings to an engine that is ready. The one place that knows which device has which runner."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from worker_image.checkpoint.base import Checkpoint
from worker_image.checkpoint.vocabulary import open_vocabulary
from worker_image.engine.core import Engine
from worker_image.engine.cpu_runner import CpuRunner
from worker_image.engine.grammar import Grammars
from worker_image.engine.host_blocks import HostBlocks
from worker_image.engine.host_cache import HostCache
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.memory import KvPlan, free_memory_bytes, plan_kv
from worker_image.engine.messages import Device, EngineSettings, Progress, Ready
from worker_image.engine.prefix_cache import SECRET_BYTES, LeastRecentlyUsed
from worker_image.engine.runner import Runner
from worker_image.engine.scheduler.core import Limits, Scheduler
from worker_image.engine.swapping import CPU_COPY_BYTES_PER_S, CPU_FLOPS, Rates, swap_costs, swap_slots
from worker_image.errors import SettingsError
from worker_image.models.assembly import OnProgress, load_model
from worker_image.models.kv_cache import KvCache
from worker_image.models.reference_ops import ReferenceOps


@dataclass(frozen=True)
class Loaded:
    """A device's runner with its weights in place, and the room its KV cache has."""

    runner: Runner
    plan: KvPlan
    host: HostBlocks | None
    """Room for those who give way."""


def load_engine(checkpoint: Checkpoint, settings: EngineSettings, on_progress: Callable[[Progress], None]) -> Engine:
    """Raises CheckpointError or SettingsError."""
    started_at = time.monotonic()
    try:
        loaded = _load_runner(checkpoint, settings, lambda done, total: on_progress(Progress("weights", done, total)))
    except torch.OutOfMemoryError as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(
            f"the card has not the memory for this model and these settings: {reason} "
            "Lower --kv-cache-bytes or --max-num-batched-tokens, or serve a smaller model."
        ) from None
    plan = loaded.plan
    limits = Limits(settings.max_num_seqs, settings.step_tokens, settings.block_tokens, plan.max_model_len)
    secret = secrets.token_bytes(SECRET_BYTES)
    kv = KvBlocks(plan.n_blocks, settings.block_tokens, secret, LeastRecentlyUsed())
    kv_tokens = plan.n_blocks * settings.block_tokens
    ready = Ready(plan.max_model_len, kv_tokens, time.monotonic() - started_at)
    return Engine(
        loaded.runner, Scheduler(limits, kv, settings.scheduling, loaded.host), ready, lambda: _grammars(settings)
    )


def _load_runner(checkpoint: Checkpoint, settings: EngineSettings, on_layer: OnProgress) -> Loaded:
    match settings.device:
        case Device.CPU:
            return _load_cpu(checkpoint, settings, on_layer)
        case Device.CUDA:
            # Triton and the kernels are of no use to a worker on CPUs.
            from worker_image.engine.gpu_loading import load_gpu

            return Loaded(*load_gpu(checkpoint, settings, on_layer))


def _load_cpu(checkpoint: Checkpoint, settings: EngineSettings, on_layer: OnProgress) -> Loaded:
    torch.set_num_threads(settings.n_threads)
    model = load_model(checkpoint, ReferenceOps(), on_layer, settings.max_model_len)
    shape = model.config.kv_shape
    plan = plan_kv(settings, model.config.context, shape.bytes_per_token, free_memory_bytes())
    cache = KvCache(shape, plan.n_blocks, settings.block_tokens)
    n_slots = swap_slots(settings, shape.bytes_per_token, free_memory_bytes())
    if n_slots == 0:
        return Loaded(CpuRunner(model, cache), plan, None)
    rates = Rates(CPU_FLOPS * settings.n_threads, CPU_COPY_BYTES_PER_S)
    host = HostBlocks(n_slots, swap_costs(model.config, shape.bytes_per_token, rates))
    return Loaded(CpuRunner(model, cache, HostCache((cache.keys, cache.values), 1, n_slots)), plan, host)


def _grammars(settings: EngineSettings) -> Grammars:
    """Reads the tokenizer again, which the engine has no other use for."""
    vocabulary = open_vocabulary(Path(settings.model_path), settings.load_format)
    return Grammars(vocabulary.tokenizer.to_str(), len(vocabulary.tokens), sorted(vocabulary.stop_ids))
