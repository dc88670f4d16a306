"""Which tensors a model has and how large they are, by Hugging Face's names: what loading, checking and dummy
weights agree on. No tensor is touched here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from worker_image.models.config import ModelConfig

Shape: TypeAlias = tuple[int, ...]

EMBEDDING: Final = "model.embed_tokens.weight"
FINAL_NORM: Final = "model.norm.weight"
OUTPUT: Final = "lm_head.weight"
QKV: Final = ("q_proj", "k_proj", "v_proj")
QKV_WEIGHTS: Final = tuple(f"self_attn.{name}.weight" for name in QKV)
QKV_BIASES: Final = tuple(f"self_attn.{name}.bias" for name in QKV)
GATE_UP: Final = ("mlp.gate_proj.weight", "mlp.up_proj.weight")


def layer_prefix(layer: int) -> str:
    return f"model.layers.{layer}."


def expected_tensors(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor that must be there: name → shape."""
    shapes: dict[str, Shape] = {EMBEDDING: (config.vocab, config.hidden), FINAL_NORM: (config.hidden,)}
    if not config.tied:
        shapes[OUTPUT] = (config.vocab, config.hidden)
    for layer in range(config.n_layers):
        shapes |= {layer_prefix(layer) + name: shape for name, shape in _layer_tensors(config)}
    return shapes


def load_groups(config: ModelConfig) -> Iterator[tuple[str, ...]]:
    """Every tensor once, those that are fused into one together, in the order in which a model is assembled."""
    yield (EMBEDDING,)
    for layer in range(config.n_layers):
        for group in _layer_groups(config):
            yield tuple(layer_prefix(layer) + name for name in group)
    yield (FINAL_NORM,)
    if not config.tied:
        yield (OUTPUT,)


def _layer_groups(config: ModelConfig) -> Iterator[tuple[str, ...]]:
    yield ("input_layernorm.weight",)
    yield QKV_WEIGHTS
    if config.qkv_bias:
        yield QKV_BIASES
    if config.qk_norm:
        yield ("self_attn.q_norm.weight",)
        yield ("self_attn.k_norm.weight",)
    yield ("self_attn.o_proj.weight",)
    yield ("post_attention_layernorm.weight",)
    yield GATE_UP
    yield ("mlp.down_proj.weight",)


def _layer_tensors(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    rows = dict(zip(QKV, (config.q_rows, config.kv_rows, config.kv_rows), strict=True))
    yield "input_layernorm.weight", (config.hidden,)
    for name, count in rows.items():
        yield f"self_attn.{name}.weight", (count, config.hidden)
        if config.qkv_bias:
            yield f"self_attn.{name}.bias", (count,)
    if config.qk_norm:
        yield "self_attn.q_norm.weight", (config.head_dim,)
        yield "self_attn.k_norm.weight", (config.head_dim,)
    yield "self_attn.o_proj.weight", (config.hidden, config.q_rows)
    yield "post_attention_layernorm.weight", (config.hidden,)
    yield "mlp.gate_proj.weight", (config.ffn, config.hidden)
    yield "mlp.up_proj.weight", (config.ffn, config.hidden)
    yield "mlp.down_proj.weight", (config.hidden, config.ffn)
