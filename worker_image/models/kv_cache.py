"""The paged KV cache's tensors and attention over them: the torch reference that kernels are checked against.

A sequence's tokens lie in blocks anywhere in the pool; its block table lists them in order. Keys are stored after
the rotary embedding. Which block belongs to whom is `engine.block_pool`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class KvShape:
    n_layers: int
    n_kv_heads: int
    head_dim: int

    @property
    def row_elements(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers, float32."""
        return 2 * self.n_layers * self.row_elements * 4


class KvCache:
    """`keys`, `values`: (layers, blocks, block_tokens, kv_heads · head_dim) float32, contiguous."""

    def __init__(self, shape: KvShape, n_blocks: int, block_tokens: int) -> None:
        self.shape = shape
        self.n_blocks = n_blocks
        self.block_tokens = block_tokens
        size = (shape.n_layers, n_blocks, block_tokens, shape.row_elements)
        # numpy's zeros are untouched pages, which cost no memory until a block is used. Zeros, because a masked
        # score must not be NaN.
        self.keys = torch.from_numpy(np.zeros(size, np.float32))
        self.values = torch.from_numpy(np.zeros(size, np.float32))

    def write(self, layer: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """k, v: (tokens, kv_heads · head_dim) go where `slots` (block · block_tokens + offset) says. Mutates us."""
        rows = self.shape.row_elements
        self.keys[layer].view(-1, rows).index_copy_(0, slots, k)
        self.values[layer].view(-1, rows).index_copy_(0, slots, v)


class AttentionGroup(Protocol):
    """Some of the step's tokens, attended together."""

    rows: slice
    """Which of the step's tokens."""

    def attend(self, cache: KvCache, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        """q: (tokens of the group, q_heads, head_dim) → written to `out`, same shape."""


class DecodeGroup:
    """Sequences with one new token each: their blocks are gathered into one padded batch.

    The query heads that share a KV head are handled as that many queries of it, so nothing is repeated.
    """

    def __init__(self, rows: slice, block_tables: torch.Tensor, lengths: torch.Tensor, cache: KvCache) -> None:
        """block_tables: (sequences, most blocks) int64, padded with any block; lengths: (sequences,), tokens to see."""
        self.rows = rows
        n_seqs, n_table = block_tables.shape
        n_tokens = n_table * cache.block_tokens
        self._index = block_tables.reshape(-1)
        kept = torch.arange(n_tokens)[None, :] < lengths[:, None]
        self._mask = torch.zeros(n_seqs, 1, 1, n_tokens).masked_fill_(~kept[:, None, None, :], float("-inf"))
        shape = (n_seqs * n_table, cache.block_tokens * cache.shape.row_elements)
        # One buffer for all layers: it stays in the CPU's cache.
        self._k, self._v = torch.empty(shape), torch.empty(shape)

    def attend(self, cache: KvCache, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        n_seqs, n_q_heads, head_dim = q.shape
        n_kv_heads = cache.shape.n_kv_heads
        k, v = (
            torch.index_select(pool[layer].view(cache.n_blocks, -1), 0, self._index, out=buffer)
            .view(n_seqs, -1, n_kv_heads, head_dim)
            .transpose(1, 2)
            for pool, buffer in ((cache.keys, self._k), (cache.values, self._v))
        )
        grouped = q.view(n_seqs, n_kv_heads, n_q_heads // n_kv_heads, head_dim)
        out.copy_(scaled_dot_product_attention(grouped, k, v, attn_mask=self._mask).reshape(q.shape))


class PrefillGroup:
    """One sequence's chunk of several tokens, attending to everything before it and causally to itself."""

    def __init__(self, rows: slice, block_table: torch.Tensor, start: int, length: int) -> None:
        """block_table: (blocks,) int64, covering start + length tokens."""
        self.rows = rows
        self._index = block_table
        self._n_tokens = start + length
        self._whole = start == 0
        visible = torch.ones(length, self._n_tokens, dtype=torch.bool).tril_(start)
        self._mask = None if self._whole else torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))

    def attend(self, cache: KvCache, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        n_queries, n_q_heads, head_dim = q.shape
        n_kv_heads = cache.shape.n_kv_heads
        repeats = n_q_heads // n_kv_heads
        # KV heads become the batch, the query heads of each its heads; keys are expanded by stride, not copied.
        k, v = (
            pool[layer][self._index]
            .view(-1, n_kv_heads, 1, head_dim)[: self._n_tokens]
            .permute(1, 2, 0, 3)
            .expand(n_kv_heads, repeats, self._n_tokens, head_dim)
            for pool in (cache.keys, cache.values)
        )
        grouped = q.view(n_queries, n_kv_heads, repeats, head_dim).permute(1, 2, 0, 3)
        result = scaled_dot_product_attention(grouped, k, v, attn_mask=self._mask, is_causal=self._whole)
        out.copy_(result.permute(2, 0, 1, 3).reshape(q.shape))
