"""The host's memory for blocks of the KV cache, on any device: copies there and back, in the order of the steps.

Nothing waits: on a card the copies run on its stream, from and to pinned memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import torch

STAGED: Final = 16
"""Blocks that lie on the card twice at a time while they are copied."""
Pairs: TypeAlias = Sequence[tuple[int, int]]


class HostCache:
    def __init__(self, pools: Sequence[torch.Tensor], block_dim: int, n_slots: int) -> None:
        """pools: tensors of the cache, each with its blocks along `block_dim`. Takes all memory at once."""
        self._pools = pools
        self._dim = block_dim
        pinned = pools[0].is_cuda
        shapes = [(*pool.shape[:block_dim], *pool.shape[block_dim + 1 :]) for pool in pools]
        self._slots = [
            torch.empty((n_slots, *shape), dtype=pool.dtype, pin_memory=pinned)
            for pool, shape in zip(pools, shapes, strict=True)
        ]

    def save(self, pairs: Pairs) -> None:
        """(block, slot). No slot is in two of them. Mutates the slots."""
        for some in _by_stages(pairs):
            for pool, slots in zip(self._pools, self._slots, strict=True):
                blocks = _index([block for block, _ in some], pool)
                staged = pool.index_select(self._dim, blocks).movedim(self._dim, 0).contiguous()
                for copy, (_, slot) in zip(staged, some, strict=True):
                    slots[slot].copy_(copy, non_blocking=True)

    def restore(self, pairs: Pairs) -> None:
        """(slot, block). No block is in two of them. Mutates the cache."""
        for some in _by_stages(pairs):
            for pool, slots in zip(self._pools, self._slots, strict=True):
                staged = torch.empty((len(some), *slots.shape[1:]), dtype=pool.dtype, device=pool.device)
                for copy, (slot, _) in zip(staged, some, strict=True):
                    copy.copy_(slots[slot], non_blocking=True)
                blocks = _index([block for _, block in some], pool)
                pool.index_copy_(self._dim, blocks, staged.movedim(0, self._dim))


def _index(blocks: list[int], pool: torch.Tensor) -> torch.Tensor:
    """From pinned memory: from any other, the copy would wait for all steps in flight."""
    return torch.tensor(blocks, pin_memory=pool.is_cuda).to(pool.device, non_blocking=True)


def _by_stages(pairs: Pairs) -> Iterator[Pairs]:
    return (pairs[at : at + STAGED] for at in range(0, len(pairs), STAGED))
