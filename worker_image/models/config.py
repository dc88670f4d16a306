"""What a forward pass must know about a model, in one vocabulary whatever the file format called it.

Plain values: no tensor, no file, no torch, so that the server process can read it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True)
class LinearScaling:
    """Positions are divided by `factor` (arXiv:2306.15595)."""

    factor: float


@dataclass(frozen=True)
class DynamicScaling:
    """Past `trained_context` tokens the base grows with the position ("dynamic NTK")."""

    factor: float
    trained_context: int


@dataclass(frozen=True)
class Llama3Scaling:
    """Low frequencies are divided by `factor`, high ones kept, those between blended (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    trained_context: int


@dataclass(frozen=True)
class YarnScaling:
    """Interpolation by parts with an attention temperature (arXiv:2309.00071)."""

    factor: float
    trained_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    """What cosines and sines are multiplied with; None: the paper's 0.1 · ln(factor) + 1, or what mscale gives."""
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    """Whether the borders of the blend are rounded to whole dimensions."""


@dataclass(frozen=True)
class FrequencyFactors:
    """Each pair's frequency is divided by its own factor: how GGUF files carry Llama 3's scaling."""

    factors: tuple[float, ...]


LARGEST: Final = {
    "n_layers": 1 << 12,
    "hidden": 1 << 20,
    "ffn": 1 << 22,
    "n_q_heads": 1 << 14,
    "n_kv_heads": 1 << 14,
    "head_dim": 1 << 9,
    "vocab": 1 << 24,
    "context": 1 << 21,
}
"""Far beyond any model: a damaged number must not become an allocation."""

SCALING_RANGES: Final[dict[str, tuple[float, float]]] = {
    "factor": (1.0, 1e6),
    "trained_context": (1, 1 << 24),
    "low_freq_factor": (1e-3, 1e6),
    "high_freq_factor": (1e-3, 1e6),
    "beta_fast": (1e-3, 1e6),
    "beta_slow": (1e-3, 1e6),
    "attention_factor": (1e-3, 1e3),
    "mscale": (0.0, 1e3),
    "mscale_all_dim": (0.0, 1e3),
}

RopeScaling: TypeAlias = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | FrequencyFactors


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding of pairs `i` and `i + head_dim/2` (arXiv:2104.09864)."""

    theta: float
    scaling: RopeScaling | None = None


@dataclass(frozen=True)
class KvShape:
    """What the KV cache holds for a token."""

    n_layers: int
    n_kv_heads: int
    head_dim: int
    element_bytes: int = 4

    @property
    def row_elements(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.n_layers * self.row_elements * self.element_bytes


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of the Llama family: RMSNorm, rotary grouped-query attention, SwiGLU."""

    architecture: str
    """The checkpoint's `model_type` in Hugging Face's words: llama, mistral, qwen2, qwen3."""
    n_layers: int
    hidden: int
    ffn: int
    n_q_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int
    context: int
    """The most tokens a request may have, rope scaling included."""
    rope: RopeConfig
    norm_eps: float
    tied: bool = False
    """The output matrix is the embedding."""
    qkv_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each head of queries and keys, before the rotation."""
    windows: tuple[int | None, ...] = ()
    """Layer → how many tokens back it sees, its own included; empty: every layer sees all."""

    def window(self, layer: int) -> int | None:
        return self.windows[layer] if self.windows else None

    @property
    def q_rows(self) -> int:
        return self.n_q_heads * self.head_dim

    @property
    def kv_rows(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def kv_shape(self) -> KvShape:
        """In float32; `dataclasses.replace` its `element_bytes` for another type."""
        return KvShape(self.n_layers, self.n_kv_heads, self.head_dim)

    def problem(self) -> str | None:
        """Why no forward pass can have these numbers, as a sentence's end; None where it can."""
        for name, most in LARGEST.items():
            value = getattr(self, name)
            if value <= 0:
                return f"{name} is {value}; it must be positive"
            if value > most:
                return f"{name} is {value}; at most {most} can be served"
        if self.n_q_heads % self.n_kv_heads or self.head_dim % 2:
            return (
                f"{self.n_q_heads} query heads, {self.n_kv_heads} KV heads of {self.head_dim} elements; "
                "query heads must be a multiple of KV heads and the head size even"
            )
        if not self.norm_eps > 0 or not self.rope.theta > 1:
            return f"norm_eps is {self.norm_eps} and rope theta {self.rope.theta}; they must be above 0 and 1"
        if (window := min((w for w in self.windows if w is not None), default=1)) <= 0:
            return f"the sliding window is {window}; it must be positive"
        return None if self.rope.scaling is None else _scaling_problem(self.rope.scaling, self.head_dim)


def _scaling_problem(scaling: RopeScaling, head_dim: int) -> str | None:
    """Numbers for which the formulas have no value are refused, and those no model could mean."""
    for name, (least, most) in SCALING_RANGES.items():
        value = getattr(scaling, name, None)
        if value is not None and not least <= value <= most:
            return f"rope scaling's {name} is {value:g}; it must be from {least:g} to {most:g}"
    if isinstance(scaling, Llama3Scaling) and scaling.low_freq_factor >= scaling.high_freq_factor:
        return (
            f"rope scaling's low_freq_factor is {scaling.low_freq_factor:g}; "
            f"it must be below high_freq_factor, {scaling.high_freq_factor:g}"
        )
    if isinstance(scaling, DynamicScaling) and head_dim < 4:
        return f"head_dim is {head_dim}; dynamic rope scaling needs at least 4"
    return None
