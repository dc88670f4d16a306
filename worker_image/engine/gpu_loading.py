"""From a checkpoint to a runner on a CUDA card: weights, then what is left for the KV cache, then buffers.

Imported only where a card is asked for; nothing here looks at requests.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from worker_image.checkpoint.base import Checkpoint
from worker_image.engine.gpu_memory import (
    LIBRARIES_BYTES,
    CardMemory,
    activation_bytes,
    kv_bytes,
    share_left,
    share_of,
)
from worker_image.engine.gpu_runner import GpuRunner, RunnerSizes
from worker_image.engine.graphs import GraphMaker, bucket_sizes
from worker_image.engine.host_blocks import HostBlocks
from worker_image.engine.host_cache import HostCache
from worker_image.engine.memory import KvPlan, check_weights, free_memory_bytes, plan_kv
from worker_image.engine.messages import EngineSettings
from worker_image.engine.swapping import CARD_COPY_BYTES_PER_S, CARD_FLOPS, Rates, swap_costs, swap_slots
from worker_image.errors import SettingsError
from worker_image.kernels.checks import KernelError
from worker_image.kernels.fitting import fitted
from worker_image.kernels.gemm import matmul_fits
from worker_image.kernels.triton_ops import KvTensors, StepLimits, Steps, TritonOps, TritonStep
from worker_image.kernels.tuning import Tuning, tuning_for
from worker_image.models.assembly import OnProgress, load_model
from worker_image.models.config import ModelConfig
from worker_image.models.decoder import Decoder

DTYPE = torch.bfloat16


def load_gpu(
    checkpoint: Checkpoint, settings: EngineSettings, on_layer: OnProgress
) -> tuple[GpuRunner, KvPlan, HostBlocks | None]:
    """Raises CheckpointError or SettingsError."""
    if not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA card. Use --device cpu, or look at the driver.")
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    card = torch.cuda.get_device_properties(device)
    tuning = fitted_tuning(tuning_for(card.name), checkpoint.config, card.shared_memory_per_block_optin)
    if settings.gpu_memory_bytes is not None:
        keep_to(settings.gpu_memory_bytes, device)
    if settings.deterministic:
        check_deterministic(checkpoint.config)
    check_weights(checkpoint.config, DTYPE.itemsize, card_memory(device, settings.gpu_memory_bytes).free_bytes)
    ops = TritonOps(device, tuning, DTYPE, deterministic=settings.deterministic)
    with torch.inference_mode():
        model: Decoder[torch.Tensor, TritonStep] = load_model(checkpoint, ops, on_layer, settings.max_model_len)
        plan = plan_card(settings, model.config, card_memory(device, settings.gpu_memory_bytes))
        cache = kv_tensors(model.config, plan, settings.block_tokens, device)
        layers = [layer.attention for layer in model.weights.layers]
        step_limits = StepLimits(settings.max_num_seqs, plan.max_model_len)
        steps = Steps(layers, cache, tuning, step_limits, deterministic=settings.deterministic)
        n_slots = swap_slots(settings, kv_bytes_per_token(model.config), free_memory_bytes())
        memory = HostCache((cache.data,), 2, n_slots) if n_slots else None
        runner = GpuRunner(model, steps, cache, runner_sizes(settings, plan), GraphMaker(), memory)
        return runner, plan, _host_blocks(model.config, n_slots)


def fitted_tuning(tuning: Tuning, config: ModelConfig, limit_bytes: int) -> Tuning:
    """limit_bytes: the shared memory that one program may have. Raises SettingsError."""
    try:
        return fitted(tuning, config, limit_bytes)
    except KernelError as error:
        raise SettingsError(f"this model's {error}. Serve it on a card with more, or with --device cpu.") from None


def check_deterministic(config: ModelConfig) -> None:
    """Raises SettingsError where a matrix of the model has rows that only cuBLAS could read."""
    for name in ("hidden", "q_rows", "ffn"):
        if not matmul_fits(width := getattr(config, name), DTYPE):
            raise SettingsError(
                f"--deterministic: the model's {name} is {width}; it must be a multiple of {16 // DTYPE.itemsize}. "
                "Leave the flag out."
            )


def _host_blocks(config: ModelConfig, n_slots: int) -> HostBlocks | None:
    costs = swap_costs(config, kv_bytes_per_token(config), Rates(CARD_FLOPS, CARD_COPY_BYTES_PER_S))
    return HostBlocks(n_slots, costs) if n_slots else None


def kv_bytes_per_token(config: ModelConfig) -> int:
    return replace(config.kv_shape, element_bytes=DTYPE.itemsize).bytes_per_token


def keep_to(limit_bytes: int, device: torch.device) -> None:
    """Beyond it this process' own allocator refuses, so that others on the card lose nothing. Raises SettingsError."""
    _, total = torch.cuda.mem_get_info(device)
    if limit_bytes > total:
        raise SettingsError(f"--gpu-memory-bytes is {limit_bytes}; the card has {total}. Lower it to at most that.")
    torch.cuda.set_per_process_memory_fraction(max(0, limit_bytes - LIBRARIES_BYTES) / total, device)


def card_memory(device: torch.device, limit_bytes: int | None = None) -> CardMemory:
    """After the allocator gave back what loading used; of the share where the card is not ours alone."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    if limit_bytes is None:
        return CardMemory(total, free)
    return share_of(limit_bytes, torch.cuda.memory_reserved(device), free)


def plan_card(settings: EngineSettings, config: ModelConfig, memory: CardMemory) -> KvPlan:
    """The cache's size in bytes where it is set, else what the card has left. Raises SettingsError."""
    activations = activation_bytes(config, settings.step_tokens, settings.max_num_seqs, DTYPE.itemsize)
    n_graphs = len(bucket_sizes(settings.max_num_seqs))
    budget = settings.kv_cache_bytes
    if settings.gpu_memory_bytes is not None:
        left = share_left(memory, activations, n_graphs)
        if budget is not None and budget > left:
            raise SettingsError(
                f"--kv-cache-bytes is {budget}; --gpu-memory-bytes {settings.gpu_memory_bytes} leaves {left} beside "
                "weights and the largest step. Lower the one or raise the other."
            )
        budget = left if budget is None else budget
    elif budget is None:
        budget = kv_bytes(memory, settings.gpu_memory_utilization, activations, n_graphs)
    bytes_per_token = kv_bytes_per_token(config)
    return plan_kv(replace(settings, kv_cache_bytes=budget), config.context, bytes_per_token, memory.free_bytes)


def kv_tensors(config: ModelConfig, plan: KvPlan, block_tokens: int, device: torch.device) -> KvTensors:
    return KvTensors.allocate(
        config.n_layers, plan.n_blocks, config.n_kv_heads, block_tokens, config.head_dim, DTYPE, device
    )


def runner_sizes(settings: EngineSettings, plan: KvPlan) -> RunnerSizes:
    n_columns = -(-plan.max_model_len // settings.block_tokens)
    return RunnerSizes(settings.max_num_seqs, settings.step_tokens, settings.block_tokens, n_columns)
