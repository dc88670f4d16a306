"""The seam between the one forward pass and the devices it runs on.

`decoder.Decoder` calls nothing but `Ops`. `reference_ops` is torch and the definition of every result; a device's
own implementation is checked against it. Nothing here computes.

A CUDA graph can hold a whole step: an implementation must not read a tensor back to the host, and takes everything
that changes from step to step out of `StepTensors`, whose tensors may be static buffers that are refilled in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch


@dataclass(frozen=True)
class StepTensors:
    """One step's tokens, flattened, on the device. A device's runner adds what its attention needs, its cache too.

    The first `tokens` rows count; padding up to a graph's bucket is the runner's affair (it points at a slot that
    nobody reads).
    """

    token_ids: torch.Tensor
    """(tokens,) int64 or int32."""
    sample_rows: torch.Tensor | None
    """(samples,) int64: the rows whose logits are wanted; None: every row, in order, as in a step of decodes."""


@dataclass(frozen=True)
class AttentionLayer:
    """All that `Ops.attention` must know of a layer; the same object every step."""

    index: int
    n_q_heads: int
    n_kv_heads: int
    head_dim: int
    rope: torch.Tensor
    """(positions, head_dim) float32 on the device, one for all layers: cosines of the head_dim/2 pairs, then sines."""
    norm_eps: float
    bias: torch.Tensor | None = None
    """((q_heads + 2 · kv_heads) · head_dim,), added to the projection before anything else."""
    q_norm: torch.Tensor | None = None
    """(head_dim,), with `k_norm`: RMSNorm over each head of queries and keys, after the bias, before the rotation."""
    k_norm: torch.Tensor | None = None
    window: int | None = None
    """A token sees itself and the `window - 1` before it; None: all before it."""

    @property
    def scale(self) -> float:
        """What scores are multiplied with before the softmax."""
        return float(self.head_dim**-0.5)


WeightT = TypeVar("WeightT")
StepT_contra = TypeVar("StepT_contra", bound=StepTensors, contravariant=True)


@dataclass(frozen=True)
class LayerWeights(Generic[WeightT]):
    """One layer. Matrices are handles of `Ops.prepare`; y = x · Wᵀ."""

    attention_norm: torch.Tensor
    qkv: WeightT
    """Rows of q, then k, then v."""
    attention: AttentionLayer
    attention_out: WeightT
    ffn_norm: torch.Tensor
    gate_up: WeightT
    """Rows of gate, then up."""
    down: WeightT


@dataclass(frozen=True)
class DecoderWeights(Generic[WeightT]):
    embedding: torch.Tensor
    """(vocab, hidden), on the device."""
    layers: tuple[LayerWeights[WeightT], ...]
    norm: torch.Tensor
    output: WeightT


class Ops(Protocol[WeightT, StepT_contra]):
    """Activations are (tokens, width) of `dtype` on `device`, contiguous. Sums are at least float32 inside.

    Results may be new tensors or views of buffers that the next call to the same function overwrites.
    """

    @property
    def device(self) -> torch.device:
        """Where weights are loaded to."""

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""

    def prepare(self, weight: torch.Tensor) -> WeightT:
        """Once per matrix at load. weight: (out, in) of `dtype` on `device`, contiguous; the handle may keep it."""

    def embed(self, token_ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """token_ids: (tokens,), weight: (vocab, hidden) → (tokens, hidden)."""

    def linear(self, x: torch.Tensor, weight: WeightT) -> torch.Tensor:
        """x: (tokens, in) → (tokens, out), no bias."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """x / sqrt(mean(x²) + eps) · weight, row by row; x is not mutated."""

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(rms_norm(x + residual), x + residual). May mutate both arguments."""

    def attention(self, layer: AttentionLayer, qkv: torch.Tensor, step: StepT_contra) -> torch.Tensor:
        """qkv: (tokens, (q_heads + 2 · kv_heads) · head_dim), may be mutated → (tokens, q_heads · head_dim).

        Bias, QK norm, rotation by the tokens' positions; writes keys and values to the step's slots of the paged
        cache; attends to what the step's block tables list, causally and within the window.
        """

    def swiglu(self, gate_up: torch.Tensor) -> torch.Tensor:
        """gate_up: (tokens, 2 · ffn) → silu(gate) · up, (tokens, ffn). May mutate its argument."""
