"""Gives sequences their blocks: what of a prompt is in the cache already, what must be copied, what is new.

Between the scheduler, which decides who gets room, and the pool, which counts. It never preempts and holds no tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from worker_image.engine.block_pool import BlockPool
from worker_image.engine.prefix_cache import EvictionPolicy, KeyChain, PrefixCache
from worker_image.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Grant:
    """Room for a sequence. `copy`: block (from, to) before the first step; `from` has a reference more, which goes back
    once that step has run."""

    copy: tuple[int, int] | None
    restores: list[tuple[int, int]] = field(default_factory=list)
    """(slot of host memory, block) before the first step."""


@dataclass(frozen=True, slots=True)
class _Found:
    """`whole` blocks to share and one to copy, together good for `cached` tokens."""

    cached: int
    whole: list[int]
    copied: int | None


class KvBlocks:
    def __init__(self, n_blocks: int, block_tokens: int, secret: bytes, kept: EvictionPolicy) -> None:
        self.block_tokens = block_tokens
        self.pool = BlockPool(n_blocks, cache := PrefixCache(), kept)
        self._cache = cache
        self._chain = KeyChain(secret, block_tokens)
        self._fresh: set[int] = set()
        self.queried_tokens = 0
        self.hit_tokens = 0

    def blocks_for(self, n_tokens: int) -> int:
        return -(-n_tokens // self.block_tokens)

    def begin_step(self) -> None:
        """Blocks that were shared before now are filled by earlier steps, so that they may be copied from."""
        self._fresh.clear()

    def admit(self, sequence: Sequence, reserve: int) -> Grant | None:
        """Blocks for all its tokens and one more; None (and nothing taken) unless `reserve` free ones are left."""
        found = self._find(sequence)
        if sequence.n_saved > found.cached:
            return self._take_back(sequence, found, reserve)
        for choice in (found, _Found(len(found.whole) * self.block_tokens, found.whole, None)):
            # With the block to copy from held, an otherwise empty pool may be one block short.
            if (grant := self._take(sequence, choice, reserve)) is not None:
                self.queried_tokens += len(sequence.tokens)
                self.hit_tokens += choice.cached
                return grant
        return None

    def _take_back(self, sequence: Sequence, found: _Found, reserve: int) -> Grant | None:
        """What it had saved in host memory goes behind what the cache still has of its prefix."""
        if self._take(sequence, _Found(len(found.whole) * self.block_tokens, found.whole, None), reserve) is None:
            return None
        sequence.computed = sequence.n_cached = sequence.n_saved
        at = slice(len(found.whole), len(sequence.saved))
        return Grant(None, list(zip(sequence.saved[at], sequence.blocks[at], strict=True)))

    def _find(self, sequence: Sequence) -> _Found:
        """What the cache has; never the whole prompt, as the last token's logits are wanted."""
        if sequence.alone:
            return _Found(0, [], None)
        most = len(sequence.tokens) - 1
        parent = sequence.parent
        if parent is not None and parent.blocks and parent.prefilled_at:
            blocks, cached = parent.blocks, most
        else:
            self._chain.extend(sequence.keys, sequence.tokens, len(sequence.tokens), sequence.salt)
            blocks = self._cache.find(sequence.keys)
            cached = min(len(blocks) * self.block_tokens, most)
        n_whole, rest = divmod(cached, self.block_tokens)
        if rest == 0 or blocks[n_whole] in self._fresh:
            return _Found(n_whole * self.block_tokens, blocks[:n_whole], None)
        return _Found(cached, blocks[:n_whole], blocks[n_whole])

    def _take(self, sequence: Sequence, found: _Found, reserve: int) -> Grant | None:
        held = found.whole if found.copied is None else [*found.whole, found.copied]
        self.pool.share(held)
        n_new = self.blocks_for(len(sequence.tokens) + 1) - len(found.whole)
        new = self.pool.allocate(n_new) if n_new + reserve <= self.pool.n_free else None
        if new is None:
            self.pool.release(held)
            return None
        sequence.blocks = found.whole + new
        sequence.room = len(sequence.blocks) * self.block_tokens
        sequence.computed = sequence.n_cached = found.cached
        sequence.next_key_at = (len(found.whole) + 1) * self.block_tokens
        return Grant(None if found.copied is None else (found.copied, new[0]))

    def grow(self, sequence: Sequence) -> list[int] | None:
        """One block more, or None where none is free."""
        new = self.pool.allocate(1)
        if new is not None:
            sequence.blocks += new
            sequence.room += self.block_tokens
        return new

    def publish(self, sequence: Sequence, n_tokens: int, *, fresh: bool) -> None:
        """Lets others share the full blocks among its first `n_tokens`, all known, whose step has been launched.

        fresh: by the step that is being planned.
        """
        self._chain.extend(sequence.keys, sequence.tokens, n_tokens, sequence.salt)
        for i in range(sequence.next_key_at // self.block_tokens - 1, n_tokens // self.block_tokens):
            self._cache.put(sequence.keys[i], sequence.blocks[i])
            if fresh:
                self._fresh.add(sequence.blocks[i])
        sequence.next_key_at = (n_tokens // self.block_tokens + 1) * self.block_tokens

    def free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.room = sequence.computed = sequence.prefilled_at = 0
