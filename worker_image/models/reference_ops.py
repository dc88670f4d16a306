"""`Ops` in torch: what the CPU runs, and what a kernel's result is compared with (any dtype, any device).

In float32 on a CPU the matrices are packed for oneDNN. Norms, rotation and softmax of narrower types are computed in
float32 and rounded once, as `transformers` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn.functional import embedding, silu

from worker_image.models.kv_cache import CPU, AttentionGroup, KvCache
from worker_image.models.linear import Linear, PlainLinear, pack_linear
from worker_image.models.ops import AttentionLayer, StepTensors


@dataclass(frozen=True)
class ReferenceStep(StepTensors):
    """A step with the cache it writes to and the groups its tokens attend in."""

    positions: torch.Tensor
    """(tokens,) int64."""
    slots: torch.Tensor
    """(tokens,) int64: where each token's key and value go, block · block_tokens + offset."""
    groups: tuple[AttentionGroup, ...]
    cache: KvCache
    rotations: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """What `rotation` has looked up already, by table."""

    def rotation(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of the step's positions, (tokens, 1, head_dim/2) each: the same for every layer."""
        known = self.rotations.get(id(table))
        if known is None:
            cos, sin = table[self.positions].unsqueeze(1).chunk(2, dim=-1)
            known = self.rotations[id(table)] = (cos.contiguous(), sin.contiguous())
        return known


class ReferenceOps:
    """`Ops[Linear, ReferenceStep]`."""

    def __init__(self, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> None:
        self.dtype = dtype
        self.device = device

    def prepare(self, weight: torch.Tensor) -> Linear:
        packable = self.dtype is torch.float32 and self.device.type == "cpu"
        return pack_linear(weight) if packable else PlainLinear(weight)

    def embed(self, token_ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return embedding(token_ids, weight)

    def linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        return weight(x)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        # Half the time of torch's own on CPU, which is several operators as well.
        wide = x.float()
        scale = (wide * wide).mean(-1, keepdim=True).add_(eps).rsqrt_()
        return (wide * scale).to(self.dtype).mul_(weight)

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        residual += x
        return self.rms_norm(residual, weight, eps), residual

    def attention(self, layer: AttentionLayer, qkv: torch.Tensor, step: ReferenceStep) -> torch.Tensor:
        if layer.bias is not None:
            qkv += layer.bias
        n_rotated = layer.n_q_heads + layer.n_kv_heads
        heads = qkv.view(-1, n_rotated + layer.n_kv_heads, layer.head_dim)
        rotated = rotate(self._normed(layer, heads[:, :n_rotated]), *step.rotation(layer.rope))
        q, k = rotated[:, : layer.n_q_heads], rotated[:, layer.n_q_heads :]
        step.cache.write(layer.index, step.slots, k.flatten(1), heads[:, n_rotated:].flatten(1))
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        for group in step.groups:
            out[group.rows] = group.attend(step.cache, layer.index, q[group.rows], layer.window)
        return out.flatten(1)

    def _normed(self, layer: AttentionLayer, heads: torch.Tensor) -> torch.Tensor:
        if layer.q_norm is None or layer.k_norm is None:
            return heads
        q, k = heads[:, : layer.n_q_heads], heads[:, layer.n_q_heads :]
        eps = layer.norm_eps
        return torch.cat((self.rms_norm(q, layer.q_norm, eps), self.rms_norm(k, layer.k_norm, eps)), dim=1)

    def swiglu(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate).mul_(up)


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """heads: (tokens, heads, head_dim), cos, sin: (tokens, 1, head_dim/2) float32 → rotated copy, contiguous."""
    first, second = heads.float().chunk(2, dim=-1)
    out = torch.empty(heads.shape, dtype=torch.float32, device=heads.device)
    a, b = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=a).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=b).addcmul_(first, sin)
    return out.to(heads.dtype)
