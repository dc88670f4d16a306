"""Hugging Face models as GGUF contents: names, keys and rotary order as llama.cpp's converter writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from tests.worker_image.tiny_gguf import Contents
from worker_image.checkpoint.gguf_checkpoint import own_name
from worker_image.models.config import Llama3Scaling, RopeConfig
from worker_image.models.rope import frequencies


def contents_of(model: PreTrainedModel) -> Contents:
    config = model.config
    arch = config.model_type
    contents = Contents(_metadata(model))
    for name, value in model.state_dict().items():
        tensor = value.float().numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch in ("llama", "mistral") and name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = permuted(tensor, head_dim(model))
        contents.tensors[own_name(name)] = tensor
    rope = config.rope_parameters
    if rope["rope_type"] == "llama3":
        scaling = Llama3Scaling(
            rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
        )
        plain, scaled = (frequencies(RopeConfig(rope["rope_theta"], s), head_dim(model)) for s in (None, scaling))
        contents.tensors["rope_freqs.weight"] = (plain / scaled).numpy()
    return contents


def head_dim(model: PreTrainedModel) -> int:
    config = model.config
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def permuted(weight: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Halves (i, i + size/2) of every head become neighbours (2i, 2i + 1)."""
    rows, width = weight.shape
    return weight.reshape(rows // size, 2, size // 2, width).swapaxes(1, 2).reshape(rows, width)


def _metadata(model: PreTrainedModel) -> dict[str, Any]:
    config = model.config
    arch, rope, vocab = config.model_type, config.rope_parameters, config.vocab_size
    keys = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim(model),
        "attention.value_length": head_dim(model),
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": rope["rope_theta"],
    }
    if rope["rope_type"] in ("linear", "yarn"):
        keys |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        keys |= {"rope.scaling.original_context_length": rope["original_max_position_embeddings"]}
    if arch == "mistral":
        # llama.cpp's converter writes Mistral as llama.
        arch = "llama"
        if config.sliding_window is not None:
            keys["attention.sliding_window"] = config.sliding_window
    return {
        "general.architecture": arch,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(vocab)],
        "tokenizer.ggml.token_type": [1] * vocab,
        "tokenizer.ggml.merges": ["t0 t1"],
        "tokenizer.ggml.eos_token_id": 2,
        **{f"{arch}.{key}": value for key, value in keys.items()},
    }
