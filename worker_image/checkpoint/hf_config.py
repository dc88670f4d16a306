"""Reads a Hugging Face `config.json` into a `ModelConfig`. What the forward pass lacks is refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from worker_image.checkpoint.json_fields import Fields, read_json
from worker_image.errors import CheckpointError
from worker_image.models.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    RopeConfig,
    RopeScaling,
    YarnScaling,
)

ARCHITECTURES: Final[Mapping[str, str]] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""The class that `architectures` names → `model_type`."""
DEFAULT_THETA: Final = 10000.0
MISTRAL_WINDOW: Final = 4096
"""What Mistral's configuration class takes where the key is absent; null means none."""


def read_hf_config(path: Path) -> ModelConfig:
    """Raises CheckpointError naming the key that is absent, wrong, or asks for what the forward pass lacks."""
    return hf_config(read_json(path))


def hf_config(fields: Fields) -> ModelConfig:
    """Raises CheckpointError, as `read_hf_config`."""
    architecture = _architecture(fields)
    _refuse_unsupported(fields, architecture)
    n_q_heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    trained_context = fields.integer("max_position_embeddings")
    config = ModelConfig(
        architecture=architecture,
        n_layers=fields.integer("num_hidden_layers"),
        hidden=hidden,
        ffn=fields.integer("intermediate_size"),
        n_q_heads=n_q_heads,
        n_kv_heads=fields.integer("num_key_value_heads", n_q_heads if architecture == "llama" else None),
        head_dim=_head_dim(fields, hidden, n_q_heads),
        vocab=fields.integer("vocab_size"),
        context=trained_context,
        rope=RopeConfig(DEFAULT_THETA),
        norm_eps=fields.number("rms_norm_eps"),
        tied=fields.flag("tie_word_embeddings", False),
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
    )
    _check(fields, config)
    rope, context = _rope(fields, trained_context)
    # The scaling itself first: a context that it made absurd would be refused with the wrong sentence.
    _check(fields, replace(config, rope=rope))
    config = replace(config, rope=rope, context=context, windows=_windows(fields, architecture, config.n_layers))
    _check(fields, config)
    if all(window is None or window >= context for window in config.windows):
        return replace(config, windows=())
    return config


def _check(fields: Fields, config: ModelConfig) -> None:
    if (problem := config.problem()) is not None:
        raise CheckpointError(f"{fields.name}: {problem}.")


def _architecture(fields: Fields) -> str:
    named = fields.texts("architectures") if "architectures" in fields else []
    found = ARCHITECTURES.get(named[0]) if named else fields.text("model_type")
    if found not in ARCHITECTURES.values():
        name = named[0] if named else found
        raise CheckpointError(
            f"{fields.name}: architecture '{name}' is not supported; this worker has {', '.join(ARCHITECTURES)}."
        )
    return str(found)


def _refuse_unsupported(fields: Fields, architecture: str) -> None:
    if "quantization_config" in fields:
        method = fields.fields("quantization_config").text("quant_method", "unnamed")
        raise CheckpointError(
            f"{fields.name}: the weights are quantised ({method}); this worker reads unquantised safetensors and GGUF."
        )
    if (activation := fields.text("hidden_act", "silu")) != "silu":
        raise CheckpointError(f"{fields.name}: hidden_act is '{activation}'; this worker has silu.")
    # Qwen2's own biases are not behind a key; these keys would add biases that no forward pass here has.
    for key in ("attention_bias", "mlp_bias"):
        if architecture != "qwen2" and fields.flag(key, False):
            raise CheckpointError(f"{fields.name}: {key} is true; this worker has no such biases for {architecture}.")
    if fields.number("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(f"{fields.name}: partial_rotary_factor is set; this worker rotates whole heads.")


def _head_dim(fields: Fields, hidden: int, n_q_heads: int) -> int:
    if "head_dim" in fields:
        return fields.integer("head_dim")
    if n_q_heads <= 0 or hidden % n_q_heads:
        raise CheckpointError(
            f"{fields.name}: hidden_size {hidden} is no multiple of num_attention_heads {n_q_heads}, "
            "and there is no head_dim."
        )
    return hidden // n_q_heads


def _windows(fields: Fields, architecture: str, n_layers: int) -> tuple[int | None, ...]:
    window = _window(fields, architecture)
    if "layer_types" in fields:
        return _listed_windows(fields, window, n_layers)
    if window is None:
        return ()
    first = fields.integer("max_window_layers", n_layers) if architecture.startswith("qwen") else 0
    return tuple(window if layer >= first else None for layer in range(n_layers))


def _window(fields: Fields, architecture: str) -> int | None:
    if architecture == "mistral":
        absent = "sliding_window" not in fields.names
        return MISTRAL_WINDOW if absent else _given_window(fields)
    if architecture.startswith("qwen") and fields.flag("use_sliding_window", False):
        return fields.integer("sliding_window")
    return None


def _given_window(fields: Fields) -> int | None:
    return fields.integer("sliding_window") if "sliding_window" in fields else None


def _listed_windows(fields: Fields, window: int | None, n_layers: int) -> tuple[int | None, ...]:
    kinds = fields.texts("layer_types")
    if len(kinds) != n_layers:
        raise CheckpointError(f"{fields.name}: layer_types has {len(kinds)} entries for {n_layers} layers.")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise CheckpointError(f"{fields.name}: layer_types has '{kind}'; this worker has full and sliding.")
        if kind == "sliding_attention" and window is None:
            raise CheckpointError(f"{fields.name}: layer_types has sliding_attention, but no sliding_window is set.")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _rope(fields: Fields, trained_context: int) -> tuple[RopeConfig, int]:
    """The embedding, and the context that its scaling makes of the trained one."""
    params = _rope_fields(fields)
    theta = params.number("rope_theta", fields.number("rope_theta", DEFAULT_THETA))
    kind = params.text("rope_type", params.text("type", "default"))
    if params.number("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(f"{params.name}: partial_rotary_factor is set; this worker rotates whole heads.")
    if kind == "default":
        return RopeConfig(theta), trained_context
    read = _SCALINGS.get(kind)
    if read is None:
        allowed = ", ".join(("default", *_SCALINGS))
        raise CheckpointError(f"{params.name}: rope type '{kind}' is not supported; this worker has {allowed}.")
    scaling, context = read(params, params.number("factor"), trained_context)
    return RopeConfig(theta, scaling), context


def _rope_fields(fields: Fields) -> Fields:
    """`rope_parameters`, or `rope_scaling` as older files call it."""
    older = fields.fields("rope_scaling")
    if "rope_parameters" not in fields:
        return older
    params = fields.fields("rope_parameters")
    for key in older.names:
        # Older files say `type` for `rope_type`.
        newer = "rope_type" if key == "type" and "type" not in params else key
        if older.get(key) != params.get(newer):
            raise CheckpointError(
                f"{fields.name}: rope_scaling says {key} {str(older.get(key))[:40]!r}, rope_parameters says "
                f"{str(params.get(newer))[:40]!r}; leave one of the two objects out."
            )
    return params


def _linear(params: Fields, factor: float, trained_context: int) -> tuple[RopeScaling, int]:
    return LinearScaling(factor), _scaled(trained_context, factor)


def _dynamic(params: Fields, factor: float, trained_context: int) -> tuple[RopeScaling, int]:
    return DynamicScaling(factor, trained_context), _scaled(trained_context, factor)


def _llama3(params: Fields, factor: float, trained_context: int) -> tuple[RopeScaling, int]:
    low, high = params.number("low_freq_factor"), params.number("high_freq_factor")
    return Llama3Scaling(factor, low, high, _original_context(params, trained_context)), trained_context


def _yarn(params: Fields, factor: float, trained_context: int) -> tuple[RopeScaling, int]:
    original = _original_context(params, trained_context)
    scaling = YarnScaling(
        factor,
        original,
        beta_fast=params.number("beta_fast", 32.0),
        beta_slow=params.number("beta_slow", 1.0),
        attention_factor=params.number("attention_factor") if "attention_factor" in params else None,
        mscale=params.number("mscale") if "mscale" in params else None,
        mscale_all_dim=params.number("mscale_all_dim") if "mscale_all_dim" in params else None,
        truncate=params.flag("truncate", True),
    )
    return scaling, max(trained_context, _scaled(original, factor))


def _scaled(context: int, factor: float) -> int:
    """Absurd factors give an absurd context, which is refused with a sentence, rather than an overflow."""
    return int(min(context * factor, 1 << 62))


def _original_context(params: Fields, trained_context: int) -> int:
    return params.integer("original_max_position_embeddings", trained_context)


_SCALINGS: Final[Mapping[str, Callable[[Fields, float, int], tuple[RopeScaling, int]]]] = {
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}
