"""Owns the numbers of the KV cache's blocks: which are free, and how many holders each has.

Knows nothing of tensors or requests. A block is free exactly when its reference count is zero.
"""

from __future__ import annotations


class BlockPool:
    """`n_blocks` blocks with reference counts. Free blocks are handed out last-freed first: those are warm in cache."""

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self._references = [0] * n_blocks
        self._free = list(range(n_blocks - 1, -1, -1))

    @property
    def n_free(self) -> int:
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of the blocks that are held, 0 to 1."""
        return 1.0 - self.n_free / self.n_blocks

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks with one reference each, or None (and nothing taken) where too few are free."""
        if count > self.n_free:
            return None
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def share(self, blocks: list[int]) -> None:
        """Adds one reference to each; they must be held already."""
        for block in blocks:
            assert self._references[block] > 0, f"block {block} is free and cannot be shared"
            self._references[block] += 1

    def release(self, blocks: list[int]) -> None:
        """Takes one reference from each; those without a holder become free."""
        for block in reversed(blocks):
            assert self._references[block] > 0, f"block {block} is released more often than it was taken"
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

    def references(self, block: int) -> int:
        return self._references[block]
