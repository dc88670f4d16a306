"""Owns the numbers of the KV cache's blocks: which are free, how many holders each has, and which are worth keeping.

A block without holders is free. If the prefix cache knows its content it keeps it until the room is needed, in the
order an `EvictionPolicy` says. Knows nothing of tensors or requests; the memory itself was taken at start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from worker_image.engine.prefix_cache import EvictionPolicy, PrefixCache


class BlockPool:
    """`n_blocks` blocks with reference counts. Empty blocks are handed out first, last-freed first; then kept ones."""

    def __init__(self, n_blocks: int, cache: PrefixCache, kept: EvictionPolicy) -> None:
        """kept: empty; it holds the free blocks whose content the cache knows."""
        self.n_blocks = n_blocks
        self._references = [0] * n_blocks
        self._empty = list(range(n_blocks - 1, -1, -1))
        self._kept = kept
        self._cache = cache

    @property
    def n_free(self) -> int:
        return len(self._empty) + len(self._kept)

    @property
    def usage(self) -> float:
        """Share of the blocks that are held, 0 to 1."""
        return 1.0 - self.n_free / self.n_blocks

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks with one reference each, or None (and nothing taken) where too few are free."""
        if count > self.n_free:
            return None
        return [self._take() for _ in range(count)]

    def _take(self) -> int:
        if self._empty:
            block = self._empty.pop()
        else:
            block = self._kept.victim()
            self._cache.forget(block)
        self._references[block] = 1
        return block

    def share(self, blocks: Iterable[int]) -> None:
        """Adds one reference to each; they must be held already, or kept by the cache."""
        for block in blocks:
            if self._references[block] == 0:
                assert self._cache.knows(block), f"block {block} is free and empty and cannot be shared"
                self._kept.remove(block)
            self._references[block] += 1

    def release(self, blocks: list[int]) -> None:
        """Takes one reference from each; those without a holder become free, the ends of prefixes first to go."""
        references = self._references
        for block in reversed(blocks):
            assert references[block] > 0, f"block {block} is released more often than it was taken"
            references[block] -= 1
            if references[block] == 0:
                if self._cache.knows(block):
                    self._kept.insert(block)
                else:
                    self._empty.append(block)

    def forget_contents(self) -> None:
        """Nothing in the cache can be trusted any more: what was kept is empty now, what is held stays held."""
        while len(self._kept):
            self._empty.append(self._kept.victim())
        self._cache.clear()

    def references(self, block: int) -> int:
        return self._references[block]

    def check(self, holders: Iterable[Iterable[int]]) -> None:
        """Raises AssertionError unless every block is either free or held exactly as often as `holders` hold it."""
        held = Counter(block for blocks in holders for block in blocks)
        wrong = [b for b in range(self.n_blocks) if held[b] != self._references[b]]
        assert not wrong, f"blocks {wrong} have {[self._references[b] for b in wrong]} references, not the holders'"
        free = Counter(self._empty) + Counter(self._kept)
        expected = Counter(b for b in range(self.n_blocks) if held[b] == 0)
        assert free == expected, f"free blocks are {sorted(free.elements())}; they must be {sorted(expected)}"
        stray = [b for b in self._empty if self._cache.knows(b)] + [b for b in self._kept if not self._cache.knows(b)]
        assert not stray, f"blocks {stray} are in the wrong list of free ones"
        self._cache.check()
