"""The one forward pass of every architecture, over `Ops`. It knows no device, no file format and no scheduler."""

from __future__ import annotations

from typing import Generic

import torch

from worker_image.models.config import ModelConfig
from worker_image.models.ops import DecoderWeights, Ops, StepT_contra, WeightT


class Decoder(Generic[WeightT, StepT_contra]):
    """A loaded model. `forward` can be captured in a CUDA graph when its `Ops` can."""

    def __init__(self, config: ModelConfig, ops: Ops[WeightT, StepT_contra], weights: DecoderWeights[WeightT]) -> None:
        self.config = config
        self.ops = ops
        self.weights = weights

    def forward(self, step: StepT_contra) -> torch.Tensor:
        """Logits (samples, vocab) of the ops' dtype. Mutates the step's cache: writes its keys and values."""
        return self.logits(self.hidden(step))

    def hidden(self, step: StepT_contra) -> torch.Tensor:
        """(samples, hidden): the final norm's output for the step's `sample_rows`."""
        ops, eps = self.ops, self.config.norm_eps
        x = residual = ops.embed(step.token_ids, self.weights.embedding)
        for i, layer in enumerate(self.weights.layers):
            if i == 0:
                x = ops.rms_norm(residual, layer.attention_norm, eps)
            else:
                x, residual = ops.add_rms_norm(x, residual, layer.attention_norm, eps)
            x = ops.attention(layer.attention, ops.linear(x, layer.qkv), step)
            x, residual = ops.add_rms_norm(ops.linear(x, layer.attention_out), residual, layer.ffn_norm, eps)
            x = ops.linear(ops.swiglu(ops.linear(x, layer.gate_up)), layer.down)
        if step.sample_rows is not None:
            x, residual = x.index_select(0, step.sample_rows), residual.index_select(0, step.sample_rows)
        return ops.add_rms_norm(x, residual, self.weights.norm, eps)[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: (samples, hidden) → (samples, vocab)."""
        return self.ops.linear(hidden, self.weights.output)
