"""Small random models of every architecture, as `transformers` makes and saves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

VOCAB: Final = 200
SMALL: Final[Mapping[str, Any]] = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "bos_token_id": 1,
    "eos_token_id": None, "pad_token_id": None, "tie_word_embeddings": False, "initializer_range": 0.2,
}  # fmt: skip


def llama(rope: Mapping[str, Any] | None = None, **changes: Any) -> PreTrainedConfig:
    rope_parameters = {"rope_theta": 10000.0, "rope_type": "default"} | dict(rope or {})
    return LlamaConfig(**{**SMALL, "rope_parameters": rope_parameters, **changes})


CONFIGS: Final[Mapping[str, PreTrainedConfig]] = {
    "llama": llama(),
    "llama with tied output and as many KV heads as heads": llama(tie_word_embeddings=True, num_key_value_heads=6),
    "llama with one KV head of its own size": llama(num_key_value_heads=1, head_dim=16),
    "llama, linear": llama({"rope_type": "linear", "factor": 4.0}),
    "llama, dynamic": llama({"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=16),
    "llama, llama3": llama(
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 32, "rope_theta": 500000.0}
    ),
    "llama, yarn": llama({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    "llama, yarn with everything set": llama(
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0,
         "beta_slow": 2.0, "attention_factor": 0.9, "truncate": False}
    ),
    "mistral": MistralConfig(**{**SMALL, "sliding_window": None}),
    "mistral with a sliding window": MistralConfig(**{**SMALL, "sliding_window": 7}),
    "qwen2": Qwen2Config(**SMALL),
    "qwen2 with a sliding window in its last layer": Qwen2Config(
        **{**SMALL, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
    ),
    "qwen3": Qwen3Config(**{**SMALL, "head_dim": 24}),
    "qwen3 with tied output": Qwen3Config(**{**SMALL, "head_dim": 8, "tie_word_embeddings": True}),
}  # fmt: skip


def random_model(config: PreTrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """Norms and biases are drawn as well: at their initial ones and zeros a mistake with them would not show."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return model


def save(model: PreTrainedModel, path: Path, **how: Any) -> Path:
    model.save_pretrained(path, **how)
    return path
