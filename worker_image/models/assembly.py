"""Builds the `Decoder` of a checkpoint: takes its tensors, fuses those that are multiplied together, prepares them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import torch

from worker_image.checkpoint.base import Checkpoint
from worker_image.models.config import ModelConfig
from worker_image.models.decoder import Decoder
from worker_image.models.ops import AttentionLayer, DecoderWeights, LayerWeights, Ops, StepT_contra, WeightT
from worker_image.models.rope import rope_table
from worker_image.models.tensors import EMBEDDING, FINAL_NORM, GATE_UP, OUTPUT, QKV_BIASES, QKV_WEIGHTS, layer_prefix
from worker_image.models.weights import Weights, weights_of

LOADING_THREADS: Final = 4
"""From the page cache to an H200 in bfloat16: 41 GB/s with 4 threads, 29 with 8, 21 with 16."""

OnProgress: TypeAlias = Callable[[int, int], None]


def load_model(
    checkpoint: Checkpoint,
    ops: Ops[WeightT, StepT_contra],
    on_progress: OnProgress,
    max_positions: int | None = None,
    n_threads: int = LOADING_THREADS,
) -> Decoder[WeightT, StepT_contra]:
    """Every weight on the ops' device, in the ops' type. Raises CheckpointError.

    `max_positions`: the most tokens a request will have, where that is less than the model's context;
    `n_threads`: that read the files while weights go to a card.
    """
    weights = weights_of(checkpoint, ops.dtype, ops.device, n_threads)
    try:
        return assemble(checkpoint.config, ops, weights, on_progress, max_positions)
    finally:
        weights.close()


def assemble(
    config: ModelConfig,
    ops: Ops[WeightT, StepT_contra],
    weights: Weights,
    on_progress: OnProgress,
    max_positions: int | None = None,
) -> Decoder[WeightT, StepT_contra]:
    """`on_progress` hears (layers done, layers)."""
    embedding = weights.take(EMBEDDING)
    n_positions = min(config.context, max_positions or config.context)
    rope = rope_table(config.rope, config.head_dim, n_positions).to(ops.device)
    layers: list[LayerWeights[WeightT]] = []
    for index in range(config.n_layers):
        layers.append(_layer(config, ops, weights, rope, index))
        on_progress(index + 1, config.n_layers)
    norm = weights.take(FINAL_NORM)
    output = ops.prepare(embedding if config.tied else weights.take(OUTPUT))
    return Decoder(config, ops, DecoderWeights(embedding, tuple(layers), norm, output))


def _layer(
    config: ModelConfig, ops: Ops[WeightT, StepT_contra], weights: Weights, rope: torch.Tensor, index: int
) -> LayerWeights[WeightT]:
    def take(*names: str) -> torch.Tensor:
        return weights.take(*(layer_prefix(index) + name for name in names))

    return LayerWeights(
        attention_norm=take("input_layernorm.weight"),
        qkv=ops.prepare(take(*QKV_WEIGHTS)),
        attention=_attention(config, take, rope, index),
        attention_out=ops.prepare(take("self_attn.o_proj.weight")),
        ffn_norm=take("post_attention_layernorm.weight"),
        gate_up=ops.prepare(take(*GATE_UP)),
        down=ops.prepare(take("mlp.down_proj.weight")),
    )


def _attention(
    config: ModelConfig, take: Callable[..., torch.Tensor], rope: torch.Tensor, index: int
) -> AttentionLayer:
    return AttentionLayer(
        index=index,
        n_q_heads=config.n_q_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        rope=rope,
        norm_eps=config.norm_eps,
        bias=take(*QKV_BIASES) if config.qkv_bias else None,
        q_norm=take("self_attn.q_norm.weight") if config.qk_norm else None,
        k_norm=take("self_attn.k_norm.weight") if config.qk_norm else None,
        window=config.window(index),
    )
