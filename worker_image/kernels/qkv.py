"""Between the QKV projection and attention, in one kernel: bias, QK norm, rotation, and the write to the paged cache.

A program takes a few heads of one token. Queries go to their own buffer, keys and values straight to their slot;
tokens whose slot is negative are padding and write nothing to the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import FLOATS, power_of_two, require, require_tensor
from worker_image.kernels.early import launch_options, wait_for_predecessor
from worker_image.kernels.paged import PagedCache


@dataclass(frozen=True)
class QkvShape:
    n_q_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        require(self.head_dim % 2 == 0, f"head_dim is {self.head_dim}; rotation needs it even")

    @property
    def n_heads(self) -> int:
        return self.n_q_heads + 2 * self.n_kv_heads

    @property
    def heads_a_program(self) -> int:
        """So many that none mixes queries, keys and values."""
        common = math.gcd(self.n_q_heads, self.n_kv_heads)
        return min(8, common & -common)


@dataclass(frozen=True)
class QkvExtras:
    """What some architectures add before the rotation."""

    bias: torch.Tensor | None = None
    """((q_heads + 2 · kv_heads) · head_dim,)."""
    q_norm: torch.Tensor | None = None
    """(head_dim,), together with k_norm."""
    k_norm: torch.Tensor | None = None


def qkv_to_cache(
    shape: QkvShape,
    extras: QkvExtras,
    qkv: torch.Tensor,
    rope: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    cache: PagedCache,
    q: torch.Tensor,
    *,
    early: bool = False,
) -> None:
    """qkv: (tokens, n_heads · head_dim); rope: (positions, head_dim) float32, cosines then sines; positions, slots:
    (tokens,) int64, slot = block · page + offset, negative for padding. Writes q: (tokens, q_heads, head_dim) and
    the cache. Rotated pairs are i and i + head_dim/2 (arXiv:2104.09864). Raises KernelError.
    """
    tokens = qkv.shape[0]
    require_tensor("qkv", qkv, (None, shape.n_heads * shape.head_dim), FLOATS)
    require_tensor("rope", rope, (None, shape.head_dim), (torch.float32,))
    require_tensor("positions", positions, (tokens,), (torch.int64,))
    require_tensor("slots", slots, (tokens,), (torch.int64,))
    require_tensor("q", q, (tokens, shape.n_q_heads, shape.head_dim), (qkv.dtype,))
    cache.check(shape.n_kv_heads, shape.head_dim, qkv.dtype)
    _check_extras(shape, extras, qkv.dtype)
    if tokens == 0:
        return
    _qkv_kernel[(tokens, shape.n_heads // shape.heads_a_program)](
        qkv,
        # What is absent is never read; any pointer will do.
        qkv if extras.bias is None else extras.bias,
        qkv if extras.q_norm is None else extras.q_norm,
        qkv if extras.k_norm is None else extras.k_norm,
        rope,
        positions,
        slots,
        cache.keys,
        cache.values,
        q,
        cache.keys.stride(0),
        shape.norm_eps,
        N_Q_HEADS=shape.n_q_heads,
        N_KV_HEADS=shape.n_kv_heads,
        HEAD_DIM=shape.head_dim,
        HALF_PAD=power_of_two(shape.head_dim // 2),
        PAGE=cache.page,
        HEADS=shape.heads_a_program,
        BIAS=extras.bias is not None,
        NORM=extras.q_norm is not None,
        EARLY=early,
        num_warps=2,
        **launch_options(early),
    )


def qkv_reference(
    shape: QkvShape, extras: QkvExtras, qkv: torch.Tensor, rope: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys, values: (tokens, heads, head_dim) float64."""
    wide = qkv.double() if extras.bias is None else qkv.double() + extras.bias.double()
    heads = wide.view(-1, shape.n_heads, shape.head_dim)
    q, k, v = heads.tensor_split((shape.n_q_heads, shape.n_q_heads + shape.n_kv_heads), dim=1)
    if extras.q_norm is not None and extras.k_norm is not None:
        q, k = (
            x * (x.square().mean(-1, keepdim=True) + shape.norm_eps).rsqrt() * gain.double()
            for x, gain in ((q, extras.q_norm), (k, extras.k_norm))
        )
    cos, sin = rope[positions].double().unsqueeze(1).chunk(2, dim=-1)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    return rotated(q), rotated(k), v


def _check_extras(shape: QkvShape, extras: QkvExtras, dtype: torch.dtype) -> None:
    if extras.bias is not None:
        require_tensor("bias", extras.bias, (shape.n_heads * shape.head_dim,), (dtype,))
    require((extras.q_norm is None) == (extras.k_norm is None), "q_norm and k_norm come together or not at all")
    for name, gain in (("q_norm", extras.q_norm), ("k_norm", extras.k_norm)):
        if gain is not None:
            require_tensor(name, gain, (shape.head_dim,), (dtype,))


@triton.jit
def _qkv_kernel(
    qkv: tl.tensor,
    bias: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    rope: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    q: tl.tensor,
    block_stride: tl.tensor,
    eps: tl.tensor,
    N_Q_HEADS: tl.constexpr,
    N_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF_PAD: tl.constexpr,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    HALF: tl.constexpr = HEAD_DIM // 2
    token = tl.program_id(0).to(tl.int64)
    first_head = tl.program_id(1) * HEADS
    slot = tl.load(slots + token)
    position = tl.load(positions + token)
    offs_h = tl.arange(0, HEADS)
    offs_d = tl.arange(0, HALF_PAD)
    inside = (offs_h[:, None] >= 0) & (offs_d[None, :] < HALF)
    writes = inside & (slot + 0 * offs_h[:, None] >= 0)
    columns = (first_head + offs_h)[:, None] * HEAD_DIM + offs_d[None, :]
    wait_for_predecessor(EARLY)
    source = qkv + token * ((N_Q_HEADS + 2 * N_KV_HEADS) * HEAD_DIM) + columns
    raw_a = tl.load(source, mask=inside, other=0.0)
    raw_b = tl.load(source + HALF, mask=inside, other=0.0)
    if BIAS:
        bias_a = tl.load(bias + columns, mask=inside, other=0.0)
        bias_b = tl.load(bias + columns + HALF, mask=inside, other=0.0)
        raw_a = (raw_a.to(tl.float32) + bias_a.to(tl.float32)).to(raw_a.dtype)
        raw_b = (raw_b.to(tl.float32) + bias_b.to(tl.float32)).to(raw_a.dtype)
    is_q = first_head < N_Q_HEADS
    is_v = first_head >= N_Q_HEADS + N_KV_HEADS
    in_block = (slot // PAGE) * block_stride + (slot % PAGE) * HEAD_DIM
    if is_v:
        v_target = v_cache + in_block + (first_head - N_Q_HEADS - N_KV_HEADS + offs_h)[:, None] * (PAGE * HEAD_DIM)
        tl.store(v_target + offs_d[None, :], raw_a, mask=writes)
        tl.store(v_target + HALF + offs_d[None, :], raw_b, mask=writes)
    else:
        a = raw_a.to(tl.float32)
        b = raw_b.to(tl.float32)
        if NORM:
            if is_q:
                gains_a = tl.load(q_norm + offs_d, mask=offs_d < HALF, other=0.0)
                gains_b = tl.load(q_norm + HALF + offs_d, mask=offs_d < HALF, other=0.0)
            else:
                gains_a = tl.load(k_norm + offs_d, mask=offs_d < HALF, other=0.0)
                gains_b = tl.load(k_norm + HALF + offs_d, mask=offs_d < HALF, other=0.0)
            squares = tl.sum(a * a + b * b, 1)
            scale = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
            # Rounded to the activations' type twice, where the reference is.
            a = (a * scale).to(raw_a.dtype).to(tl.float32) * gains_a.to(tl.float32)[None, :]
            b = (b * scale).to(raw_a.dtype).to(tl.float32) * gains_b.to(tl.float32)[None, :]
            a = a.to(raw_a.dtype).to(tl.float32)
            b = b.to(raw_a.dtype).to(tl.float32)
        angles = rope + position * HEAD_DIM + offs_d
        cos = tl.load(angles, mask=offs_d < HALF, other=0.0)[None, :]
        sin = tl.load(angles + HALF, mask=offs_d < HALF, other=0.0)[None, :]
        out_a = (a * cos - b * sin).to(raw_a.dtype)
        out_b = (b * cos + a * sin).to(raw_a.dtype)
        if is_q:
            q_target = q + token * (N_Q_HEADS * HEAD_DIM) + columns
            tl.store(q_target, out_a, mask=inside)
            tl.store(q_target + HALF, out_b, mask=inside)
        else:
            k_target = k_cache + in_block + (first_head - N_Q_HEADS + offs_h)[:, None] * (PAGE * HEAD_DIM)
            tl.store(k_target + offs_d[None, :], out_a, mask=writes)
            tl.store(k_target + HALF + offs_d[None, :], out_b, mask=writes)
