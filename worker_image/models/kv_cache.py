"""The paged KV cache's tensors and attention over them: the torch reference that kernels are checked against.

A sequence's tokens lie in blocks anywhere in the pool; its block table lists them in order. Keys are stored after
the rotary embedding. Which block belongs to whom is `engine.block_pool`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from worker_image.models.config import KvShape

CPU = torch.device("cpu")


class KvCache:
    """`keys`, `values`: (layers, blocks, block_tokens, kv_heads · head_dim), contiguous."""

    def __init__(
        self,
        shape: KvShape,
        n_blocks: int,
        block_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ) -> None:
        self.shape = shape
        self.n_blocks = n_blocks
        self.block_tokens = block_tokens
        size = (shape.n_layers, n_blocks, block_tokens, shape.row_elements)
        self.keys, self.values = _zeros(size, dtype, device), _zeros(size, dtype, device)
        # One pair for all layers and steps: it stays in the CPU's cache.
        self._gathered = [pool.new_empty(0, block_tokens * shape.row_elements) for pool in (self.keys, self.values)]

    def write(self, layer: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """k, v: (tokens, kv_heads · head_dim) go where `slots` (block · block_tokens + offset) says. Mutates us."""
        rows = self.shape.row_elements
        self.keys[layer].view(-1, rows).index_copy_(0, slots, k)
        self.values[layer].view(-1, rows).index_copy_(0, slots, v)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Block to block (from, to), in all layers. No block is both a `from` and a `to`. Mutates us."""
        sources, targets = torch.tensor(pairs, device=self.keys.device).unbind(1)
        for pool in (self.keys, self.values):
            pool.index_copy_(1, targets, pool.index_select(1, sources))

    def gather(self, layer: int, blocks: torch.Tensor) -> list[torch.Tensor]:
        """blocks: (n,) int64 → copies of their keys and values, (n, block_tokens · row) each, until the next call."""
        if blocks.numel() > len(self._gathered[0]):
            self._gathered = [buffer.new_empty(blocks.numel(), buffer.shape[1]) for buffer in self._gathered]
        pools = (pool[layer].view(self.n_blocks, -1) for pool in (self.keys, self.values))
        return [
            torch.index_select(pool, 0, blocks, out=buffer[: blocks.numel()])
            for pool, buffer in zip(pools, self._gathered, strict=True)
        ]


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros, because a masked score must not be NaN."""
    if device.type == "cpu" and dtype is torch.float32:
        # numpy's zeros are untouched pages, which cost no memory until a block is used.
        return torch.from_numpy(np.zeros(size, np.float32))
    return torch.zeros(size, dtype=dtype, device=device)


class AttentionGroup(Protocol):
    """Some of the step's tokens, attended together."""

    @property
    def rows(self) -> slice | torch.Tensor:
        """Which of the step's tokens; a tensor holds their indices, int64."""

    def attend(self, cache: KvCache, layer: int, q: torch.Tensor, window: int | None) -> torch.Tensor:
        """q: (tokens of the group, q_heads, head_dim) → same shape.

        A token sees itself and the `window - 1` tokens before it, or all before it.
        """


class DecodeGroup:
    """Sequences with one new token each: their blocks are gathered into one padded batch.

    The query heads that share a KV head are handled as that many queries of it, so nothing is repeated.
    """

    def __init__(self, rows: slice | torch.Tensor, block_tables: torch.Tensor, lengths: torch.Tensor) -> None:
        """block_tables: (sequences, most blocks) int64, padded with any block; lengths: (sequences,), tokens to see."""
        self.rows = rows
        self._lengths = lengths[:, None]
        self._index = block_tables.reshape(-1)
        self._masks: dict[int | None, torch.Tensor] = {}

    def attend(self, cache: KvCache, layer: int, q: torch.Tensor, window: int | None) -> torch.Tensor:
        n_seqs, n_q_heads, head_dim = q.shape
        n_kv_heads = cache.shape.n_kv_heads
        k, v = (
            gathered.view(n_seqs, -1, n_kv_heads, head_dim).transpose(1, 2)
            for gathered in cache.gather(layer, self._index)
        )
        grouped = q.view(n_seqs, n_kv_heads, n_q_heads // n_kv_heads, head_dim)
        mask = self._mask(k.shape[2], q, window)
        return scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(q.shape)

    def _mask(self, n_tokens: int, q: torch.Tensor, window: int | None) -> torch.Tensor:
        """(sequences, 1, 1, tokens) to add to the scores; made once for all layers of that window."""
        if window not in self._masks:
            position = torch.arange(n_tokens, device=q.device)[None, :]
            seen = position < self._lengths
            if window is not None:
                seen &= position >= self._lengths - window
            self._masks[window] = _additive(seen[:, None, None, :], q.dtype)
        return self._masks[window]


class PrefillGroup:
    """One sequence's chunk of several tokens, attending to everything before it and causally to itself."""

    def __init__(self, rows: slice, block_table: torch.Tensor, start: int, length: int) -> None:
        """block_table: (blocks,) int64, covering start + length tokens."""
        self.rows = rows
        self._index = block_table
        self._start = start
        self._n_tokens = start + length
        self._masks: dict[int | None, torch.Tensor] = {}

    def attend(self, cache: KvCache, layer: int, q: torch.Tensor, window: int | None) -> torch.Tensor:
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
        plain = self._start == 0 and (window is None or window >= self._n_tokens)
        mask = None if plain else self._mask(q, window)
        result = scaled_dot_product_attention(grouped, k, v, attn_mask=mask, is_causal=plain)
        return result.permute(2, 0, 1, 3).reshape(q.shape)

    def _mask(self, q: torch.Tensor, window: int | None) -> torch.Tensor:
        """(queries, tokens) to add to the scores; made once for all layers of that window."""
        if window not in self._masks:
            own = torch.arange(self._start, self._n_tokens, device=q.device)[:, None]
            position = torch.arange(self._n_tokens, device=q.device)[None, :]
            seen = position <= own
            if window is not None:
                seen &= position > own - window
            self._masks[window] = _additive(seen, q.dtype)
        return self._masks[window]


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `seen`, minus infinity elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
