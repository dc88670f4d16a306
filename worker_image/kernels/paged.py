"""One layer's paged keys and values, as every attention kernel takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker_image.kernels.checks import FLOATS, KernelError, require_tensor


@dataclass(frozen=True)
class PagedCache:
    """keys, values: (blocks, kv_heads, page, head_dim); views of a larger tensor are fine, blocks may be strided."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def page(self) -> int:
        """Tokens a block."""
        return int(self.keys.shape[2])

    def check(self, n_kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
        """Raises KernelError where a kernel would read something else than meant."""
        shape = (None, n_kv_heads, self.page, head_dim)
        require_tensor("keys", self.keys, shape, FLOATS, contiguous=False)
        require_tensor("values", self.values, tuple(self.keys.shape), (self.keys.dtype,), contiguous=False)
        if self.keys.dtype != dtype:
            raise KernelError(f"the cache holds {self.keys.dtype}, queries are {dtype}")
        strides = self.keys.stride()
        dense = strides[1:] == (self.page * head_dim, head_dim, 1)
        if not dense or strides != self.values.stride():
            raise KernelError(
                f"keys have strides {strides}, values {self.values.stride()}; a block must be dense and blocks of both "
                "equally far apart"
            )


def gather_reference(cache: PagedCache, table: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """table: (blocks,) → keys and values (length, kv_heads, head_dim) of one sequence, in order."""
    blocks = table[: -(-length // cache.page)].long()

    def rows(side: torch.Tensor) -> torch.Tensor:
        return side[blocks].transpose(1, 2).flatten(0, 1)[:length]

    return rows(cache.keys), rows(cache.values)
