"""The Llama family from GGUF: RMSNorm, rotary embedding, grouped-query attention, SwiGLU; tied or own output matrix.

GGUF stores the query and key rows so that rotary pairs are neighbours; they are used as they are, with the rotation
as one complex product. (Hugging Face files pair element i with i + head_dim/2: a loader for those must permute.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding, silu

from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.quant import TensorReader
from worker_image.errors import CheckpointError
from worker_image.models.kv_cache import AttentionGroup, KvCache, KvShape
from worker_image.models.linear import Linear, pack_linear

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class LlamaConfig:
    n_layers: int
    hidden: int
    ffn: int
    n_q_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int
    context: int
    rope_theta: float
    rope_scale: float
    norm_eps: float

    @classmethod
    def from_gguf(cls, file: GgufFile) -> LlamaConfig:
        """Raises CheckpointError naming the key that is absent or asks for what this forward pass lacks."""
        n_q_heads = file.integer("llama.attention.head_count")
        hidden = file.integer("llama.embedding_length")
        config = cls(
            n_layers=file.integer("llama.block_count"),
            hidden=hidden,
            ffn=file.integer("llama.feed_forward_length"),
            n_q_heads=n_q_heads,
            n_kv_heads=file.integer("llama.attention.head_count_kv", n_q_heads),
            head_dim=file.integer("llama.attention.key_length", hidden // max(n_q_heads, 1)),
            vocab=len(file.texts("tokenizer.ggml.tokens")),
            context=file.integer("llama.context_length"),
            rope_theta=file.number("llama.rope.freq_base", 10000.0),
            rope_scale=_rope_scale(file),
            norm_eps=file.number("llama.attention.layer_norm_rms_epsilon"),
        )
        config._check(file)
        return config

    def _check(self, file: GgufFile) -> None:
        for name in ("n_layers", "hidden", "ffn", "n_q_heads", "n_kv_heads", "head_dim", "context"):
            if getattr(self, name) <= 0:
                raise CheckpointError(f"{file.path}: {name} is {getattr(self, name)}; it must be positive.")
        if self.n_q_heads % self.n_kv_heads or self.head_dim % 2:
            raise CheckpointError(
                f"{file.path}: {self.n_q_heads} query heads, {self.n_kv_heads} KV heads of {self.head_dim} elements; "
                "query heads must be a multiple of KV heads and the head size even."
            )
        rope_dims = file.integer("llama.rope.dimension_count", self.head_dim)
        if rope_dims != self.head_dim or file.integer("llama.attention.value_length", self.head_dim) != self.head_dim:
            raise CheckpointError(f"{file.path}: partial rotary or unequal key and value sizes are not supported.")

    @property
    def kv_shape(self) -> KvShape:
        return KvShape(self.n_layers, self.n_kv_heads, self.head_dim)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that must be there."""
        q, kv = self.n_q_heads * self.head_dim, self.n_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab, self.hidden),
            "output_norm.weight": (self.hidden,),
        }
        for i in range(self.n_layers):
            shapes |= {
                f"blk.{i}.attn_norm.weight": (self.hidden,),
                f"blk.{i}.attn_q.weight": (q, self.hidden),
                f"blk.{i}.attn_k.weight": (kv, self.hidden),
                f"blk.{i}.attn_v.weight": (kv, self.hidden),
                f"blk.{i}.attn_output.weight": (self.hidden, q),
                f"blk.{i}.ffn_norm.weight": (self.hidden,),
                f"blk.{i}.ffn_gate.weight": (self.ffn, self.hidden),
                f"blk.{i}.ffn_up.weight": (self.ffn, self.hidden),
                f"blk.{i}.ffn_down.weight": (self.hidden, self.ffn),
            }
        return shapes

    def optional_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"output.weight": (self.vocab, self.hidden), "rope_freqs.weight": (self.head_dim // 2,)}


def _rope_scale(file: GgufFile) -> float:
    kind = file.text("llama.rope.scaling.type", "none")
    if kind == "none":
        return 1.0
    if kind == "linear":
        return file.number("llama.rope.scaling.factor")
    raise CheckpointError(f"{file.path}: rope scaling '{kind}' is not supported; this worker has none and linear.")


def check_tensors(file: GgufFile, config: LlamaConfig) -> None:
    """Raises CheckpointError for a tensor that is missing, of another shape, or that nothing would read."""
    required, optional = config.tensor_shapes(), config.optional_shapes()
    for name, shape in required.items():
        if name not in file.tensors:
            raise CheckpointError(f"{file.path}: tensor '{name}' is missing; it must be {list(shape)}.")
    for name, info in file.tensors.items():
        wanted = required.get(name) or optional.get(name)
        if wanted is None:
            raise CheckpointError(f"{file.path}: tensor '{name}' is none that architecture 'llama' has.")
        if info.shape != wanted:
            raise CheckpointError(f"{file.path}: tensor '{name}' is {list(info.shape)}; it must be {list(wanted)}.")


@dataclass(frozen=True)
class Layer:
    attention_norm: torch.Tensor
    qkv: Linear
    attention_out: Linear
    ffn_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class StepTensors:
    """One step's tokens, flattened: positions and slots are (tokens,) int64; `sample_rows` picks those to sample."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    groups: Sequence[AttentionGroup]
    sample_rows: torch.Tensor


class LlamaModel:
    """Weights in float32 and the forward pass over a paged cache."""

    def __init__(self, reader: TensorReader, config: LlamaConfig, on_progress: OnProgress) -> None:
        """Takes every tensor out of `reader`, whose file `check_tensors` has passed."""
        self.config = config
        self._embedding = _tensor(reader, "token_embd.weight")
        frequencies = _tensor(reader, "rope_freqs.weight") if "rope_freqs.weight" in reader else None
        self._rotation = _rotation(config, frequencies)
        self._norm = _tensor(reader, "output_norm.weight")
        self._output = pack_linear(_tensor(reader, "output.weight") if "output.weight" in reader else self._embedding)
        self._layers: list[Layer] = []
        for i in range(config.n_layers):
            self._layers.append(_layer(reader, f"blk.{i}"))
            on_progress(i + 1, config.n_layers)

    def forward(self, step: StepTensors, cache: KvCache) -> torch.Tensor:
        """Logits (sampling tokens, vocab) float32. Mutates the cache: writes the step's keys and values."""
        config = self.config
        x = embedding(step.token_ids, self._embedding)
        rotation = self._rotation[step.positions].unsqueeze(1)
        for i, layer in enumerate(self._layers):
            x += self._attention(i, layer, rms_norm(x, layer.attention_norm, config.norm_eps), rotation, step, cache)
            gate, up = layer.gate_up(rms_norm(x, layer.ffn_norm, config.norm_eps)).chunk(2, dim=-1)
            x += layer.down(silu(gate).mul_(up))
        return self._output(rms_norm(x[step.sample_rows], self._norm, config.norm_eps))

    def _attention(
        self, i: int, layer: Layer, x: torch.Tensor, rotation: torch.Tensor, step: StepTensors, cache: KvCache
    ) -> torch.Tensor:
        config = self.config
        n_rotated = config.n_q_heads + config.n_kv_heads
        heads = layer.qkv(x).view(-1, n_rotated + config.n_kv_heads, config.head_dim)
        rotated = _rotate(heads[:, :n_rotated], rotation)
        q, k = rotated[:, : config.n_q_heads], rotated[:, config.n_q_heads :]
        cache.write(i, step.slots, k.flatten(1), heads[:, n_rotated:].flatten(1))
        out = torch.empty(q.shape)
        for group in step.groups:
            group.attend(cache, i, q[group.rows], out[group.rows])
        return layer.attention_out(out.flatten(1))


def _tensor(reader: TensorReader, name: str) -> torch.Tensor:
    return torch.from_numpy(reader.take(name))


def _layer(reader: TensorReader, prefix: str) -> Layer:
    def stacked(*names: str) -> Linear:
        parts = [_tensor(reader, f"{prefix}.{name}.weight") for name in names]
        return pack_linear(parts[0] if len(parts) == 1 else torch.cat(parts))

    return Layer(
        attention_norm=_tensor(reader, f"{prefix}.attn_norm.weight"),
        qkv=stacked("attn_q", "attn_k", "attn_v"),
        attention_out=stacked("attn_output"),
        ffn_norm=_tensor(reader, f"{prefix}.ffn_norm.weight"),
        gate_up=stacked("ffn_gate", "ffn_up"),
        down=stacked("ffn_down"),
    )


def _rotation(config: LlamaConfig, factors: torch.Tensor | None) -> torch.Tensor:
    """(context, head_dim / 2) complex64: the rotation of every pair at every position (arXiv:2104.09864, 3.4.2)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents) / config.rope_scale
    if factors is not None:
        frequencies = frequencies / factors
    angles = torch.outer(torch.arange(config.context).float(), frequencies)
    return torch.polar(torch.ones_like(angles), angles)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x: (tokens, hidden) float32. Half the time of torch's own on CPU, which is several operators as well."""
    scale = (x * x).mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x * scale).mul_(weight)


def _rotate(heads: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """heads: (tokens, heads, head_dim), rotation: (tokens, 1, head_dim / 2) complex → rotated copy, contiguous."""
    n_tokens, n_heads, head_dim = heads.shape
    pairs = torch.view_as_complex(heads.view(n_tokens, n_heads, head_dim // 2, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2)
