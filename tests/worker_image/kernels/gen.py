"""Builders of paged caches and batches, seeded; blocks are scattered and everything outside a sequence is NaN."""

from __future__ import annotations

import torch

from worker_image.kernels.paged import PagedCache

PAGE = 16


def tables_for(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, int]:
    """(sequences, blocks) int32 of scattered block numbers, and how many blocks there are in all."""
    needs = [-(-length // PAGE) for length in lengths]
    order = torch.randperm(sum(needs) + 3, generator=torch.Generator().manual_seed(seed)).tolist()
    tables = torch.full((len(lengths), max([1, *needs]) + 1), 10**6, dtype=torch.int32)
    for row, need in enumerate(needs):
        tables[row, :need] = torch.tensor([order.pop() for _ in range(need)], dtype=torch.int32)
    return tables, sum(needs) + 3


def cache_for(
    lengths: list[int], n_kv_heads: int, head_dim: int, dtype: torch.dtype, seed: int = 0
) -> tuple[PagedCache, torch.Tensor]:
    """A cache of these sequences whose unwritten slots are NaN, as uninitialised memory may be, and block tables."""
    tables, n_blocks = tables_for(lengths, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    shape = (2, n_blocks, n_kv_heads, PAGE, head_dim)
    both = torch.full(shape, float("nan"), dtype=dtype)
    for row, length in enumerate(lengths):
        for position in range(length):
            block = int(tables[row, position // PAGE])
            values = torch.randn((2, n_kv_heads, head_dim), generator=generator)
            both[:, block, :, position % PAGE] = values.to(dtype)
    return PagedCache(both[0], both[1]), tables


def randn(*size: int, dtype: torch.dtype = torch.float32, seed: int = 7) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)
