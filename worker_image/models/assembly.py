"""Builds the `Decoder` of a checkpoint: takes its tensors, fuses those that are multiplied together, prepares them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from worker_image.checkpoint.base import Checkpoint
from worker_image.models.config import ModelConfig
from worker_image.models.decoder import Decoder
from worker_image.models.ops import AttentionLayer, DecoderWeights, LayerWeights, Ops, StepT_contra, WeightT
from worker_image.models.rope import rope_table
from worker_image.models.tensors import EMBEDDING, FINAL_NORM, OUTPUT, QKV, layer_prefix
from worker_image.models.weights import Weights, weights_of

OnProgress: TypeAlias = Callable[[int, int], None]


def load_model(
    checkpoint: Checkpoint,
    ops: Ops[WeightT, StepT_contra],
    on_progress: OnProgress,
    max_positions: int | None = None,
) -> Decoder[WeightT, StepT_contra]:
    """Every weight on the ops' device, in the ops' type. Raises CheckpointError.

    `max_positions`: the most tokens a request will have, where that is less than the model's context.
    """
    weights = weights_of(checkpoint, ops.dtype, ops.device)
    return assemble(checkpoint.config, ops, weights, on_progress, max_positions)


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
    prefix = layer_prefix(index)

    def matrix(*names: str) -> WeightT:
        return ops.prepare(weights.take(*(f"{prefix}{name}.weight" for name in names)))

    return LayerWeights(
        attention_norm=weights.take(f"{prefix}input_layernorm.weight"),
        qkv=matrix(*(f"self_attn.{name}" for name in QKV)),
        attention=_attention(config, weights, rope, index),
        attention_out=matrix("self_attn.o_proj"),
        ffn_norm=weights.take(f"{prefix}post_attention_layernorm.weight"),
        gate_up=matrix("mlp.gate_proj", "mlp.up_proj"),
        down=matrix("mlp.down_proj"),
    )


def _attention(config: ModelConfig, weights: Weights, rope: torch.Tensor, index: int) -> AttentionLayer:
    prefix = f"{layer_prefix(index)}self_attn."
    return AttentionLayer(
        index=index,
        n_q_heads=config.n_q_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        rope=rope,
        norm_eps=config.norm_eps,
        bias=weights.take(*(f"{prefix}{name}.bias" for name in QKV)) if config.qkv_bias else None,
        q_norm=weights.take(f"{prefix}q_norm.weight") if config.qk_norm else None,
        k_norm=weights.take(f"{prefix}k_norm.weight") if config.qk_norm else None,
        window=config.window(index),
    )
