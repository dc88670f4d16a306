"""A GGUF file as a `Checkpoint`: its own key and tensor names become Hugging Face's, its rotary layout ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log, prod
from pathlib import Path
from typing import Final

import numpy as np

from worker_image.checkpoint.base import Prefetcher, Shape, StoredTensor, check_shapes, unpermuted
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.quant import Floats, decode_tensor
from worker_image.errors import CheckpointError
from worker_image.models.config import (
    FrequencyFactors,
    LinearScaling,
    ModelConfig,
    RopeConfig,
    RopeScaling,
    YarnScaling,
)
from worker_image.models.tensors import EMBEDDING, FINAL_NORM, OUTPUT, expected_tensors

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")
"""The file's `general.architecture`; Mistral's files call themselves llama."""
PERMUTED: Final = frozenset({"llama"})
"""Their converter moves the rows of q and k so that rotary pairs are neighbours."""
ROPE_FREQS: Final = "rope_freqs.weight"
DECODED_BYTES: Final = 4
"""Of an element, once it is float32."""

_GLOBAL_NAMES: Final = {EMBEDDING: "token_embd.weight", FINAL_NORM: "output_norm.weight", OUTPUT: "output.weight"}
_LAYER_NAMES: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class GgufCheckpoint:
    """One file."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError."""
        self.file = GgufFile(path)
        self.config: ModelConfig = gguf_config(self.file)
        self._own_names = {name: own_name(name) for name in expected_tensors(self.config)}
        self._check()
        self._prefetcher: Prefetcher | None = None

    @property
    def path(self) -> Path:
        return self.file.path

    def prefetch(self, n_threads: int) -> None:
        if self._prefetcher is None:
            sizes = {name: DECODED_BYTES * prod(shape) for name, shape in expected_tensors(self.config).items()}
            self._prefetcher = Prefetcher(self._decode, sizes, n_threads)

    def read(self, name: str) -> StoredTensor:
        return self._decode(name) if self._prefetcher is None else self._prefetcher.take(name)

    def close(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _decode(self, name: str) -> StoredTensor:
        values = decode_tensor(self.file, self._own_names[name])
        if self.config.architecture in PERMUTED and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = unpermuted(values, self.config.head_dim)
        return StoredTensor(values)

    def _check(self) -> None:
        expected: Mapping[str, Shape] = {
            self._own_names[name]: shape for name, shape in expected_tensors(self.config).items()
        }
        found = {name: info.shape for name, info in self.file.tensors.items() if name != ROPE_FREQS}
        check_shapes(lambda _: str(self.path), expected, found, self.config.architecture)


def own_name(name: str) -> str:
    """A Hugging Face tensor name → GGUF's."""
    if name in _GLOBAL_NAMES:
        return _GLOBAL_NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    stem, _, suffix = rest.rpartition(".")
    return f"blk.{layer}.{_LAYER_NAMES[stem]}.{suffix}"


def gguf_config(file: GgufFile) -> ModelConfig:
    """Raises CheckpointError naming the key that is absent or asks for what the forward pass lacks."""
    arch = file.text("general.architecture")
    if arch not in ARCHITECTURES:
        allowed = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{file.path}: architecture '{arch}' is not supported; this worker has {allowed}.")
    n_q_heads = file.integer(f"{arch}.attention.head_count")
    hidden = file.integer(f"{arch}.embedding_length")
    head_dim = file.integer(f"{arch}.attention.key_length", hidden // max(n_q_heads, 1))
    config = ModelConfig(
        architecture=arch,
        n_layers=file.integer(f"{arch}.block_count"),
        hidden=hidden,
        ffn=file.integer(f"{arch}.feed_forward_length"),
        n_q_heads=n_q_heads,
        n_kv_heads=file.integer(f"{arch}.attention.head_count_kv", n_q_heads),
        head_dim=head_dim,
        vocab=len(file.texts("tokenizer.ggml.tokens")),
        context=file.integer(f"{arch}.context_length"),
        rope=RopeConfig(file.number(f"{arch}.rope.freq_base", 10000.0), _scaling(file, arch, head_dim)),
        norm_eps=file.number(f"{arch}.attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in file.tensors,
        qkv_bias=arch == "qwen2",
        qk_norm=arch == "qwen3",
    )
    _check_config(file, arch, config)
    return _with_window(file, arch, config)


def _with_window(file: GgufFile, arch: str, config: ModelConfig) -> ModelConfig:
    """Mistral's files say how far back a token sees; 0 is how converters write that it sees all."""
    window = file.integer(f"{arch}.attention.sliding_window", 0)
    if window < 0:
        raise CheckpointError(
            f"{file.path}: metadata key '{arch}.attention.sliding_window' is {window}; 0 is the least."
        )
    return replace(config, windows=(window,) * config.n_layers) if 0 < window < config.context else config


def _check_config(file: GgufFile, arch: str, config: ModelConfig) -> None:
    if (problem := config.problem()) is not None:
        raise CheckpointError(f"{file.path}: {problem}.")
    if config.n_layers > len(file.tensors):
        # Refused before a list as long as the number is made.
        raise CheckpointError(f"{file.path}: {config.n_layers} layers but only {len(file.tensors)} tensors.")
    rope_dims = file.integer(f"{arch}.rope.dimension_count", config.head_dim)
    values = file.integer(f"{arch}.attention.value_length", config.head_dim)
    if (rope_dims, values) != (config.head_dim, config.head_dim):
        raise CheckpointError(f"{file.path}: partial rotary or unequal key and value sizes are not supported.")


def _scaling(file: GgufFile, arch: str, head_dim: int) -> RopeScaling | None:
    if ROPE_FREQS in file.tensors:
        return _frequency_factors(file, head_dim)
    prefix = f"{arch}.rope.scaling"
    kind = file.text(f"{prefix}.type", "none")
    if kind == "none":
        return None
    factor = file.number(f"{prefix}.factor")
    if kind == "linear":
        return LinearScaling(factor)
    if kind == "yarn":
        return YarnScaling(
            factor,
            file.integer(f"{prefix}.original_context_length"),
            beta_fast=file.number(f"{prefix}.yarn_beta_fast", 32.0),
            beta_slow=file.number(f"{prefix}.yarn_beta_slow", 1.0),
            attention_factor=file.number(f"{prefix}.attn_factor", 1.0) * (0.1 * log(max(factor, 1.0)) + 1.0),
        )
    raise CheckpointError(
        f"{file.path}: rope scaling '{kind}' is not supported; this worker has none, linear and yarn."
    )


def _frequency_factors(file: GgufFile, head_dim: int) -> FrequencyFactors:
    info = file.tensors[ROPE_FREQS]
    if info.shape != (head_dim // 2,):
        raise CheckpointError(
            f"{file.path}: tensor '{ROPE_FREQS}' is {list(info.shape)}; it must be [{head_dim // 2}]."
        )
    factors: Floats = decode_tensor(file, ROPE_FREQS)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise CheckpointError(f"{file.path}: tensor '{ROPE_FREQS}' has factors that are not positive numbers.")
    return FrequencyFactors(tuple(factors.tolist()))
