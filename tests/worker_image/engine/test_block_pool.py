"""Which blocks are free, held or kept, and that the check finds what is wrong."""

from __future__ import annotations

import pytest

from worker_image.engine.block_pool import BlockPool
from worker_image.engine.prefix_cache import LeastRecentlyUsed, PrefixCache


def a_pool(n_blocks: int = 4) -> tuple[BlockPool, PrefixCache]:
    cache = PrefixCache()
    return BlockPool(n_blocks, cache, LeastRecentlyUsed()), cache


def taken(pool: BlockPool, count: int) -> list[int]:
    blocks = pool.allocate(count)
    assert blocks is not None
    return blocks


def test_a_shared_block_is_free_only_when_its_last_holder_lets_go() -> None:
    pool, _ = a_pool()
    blocks = taken(pool, 3)
    pool.share(blocks[:1])
    pool.release(blocks)
    assert pool.n_free == 3
    pool.release(blocks[:1])
    assert pool.n_free == 4


def test_too_large_an_allocation_takes_nothing() -> None:
    pool, _ = a_pool()
    assert pool.allocate(5) is None
    assert pool.n_free == 4


def test_releasing_a_free_block_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="released more often"):
        a_pool()[0].release([0])


def test_sharing_an_empty_block_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="block 2 is free and empty"):
        a_pool()[0].share([2])


def test_known_blocks_are_kept_until_there_is_no_empty_one() -> None:
    pool, cache = a_pool()
    blocks = taken(pool, 2)
    cache.put(b"a", blocks[0])
    pool.release(blocks)
    assert pool.n_free == 4
    first = taken(pool, 3)
    assert blocks[0] not in first
    assert cache.find([b"a"]) == [blocks[0]]
    assert taken(pool, 1) == [blocks[0]]
    assert cache.find([b"a"]) == []


def test_the_end_of_a_prefix_goes_before_its_beginning_and_the_older_before_the_newer() -> None:
    pool, cache = a_pool()
    old, new = taken(pool, 2), taken(pool, 2)
    for key, block in zip((b"a", b"ab", b"c", b"cd"), old + new, strict=True):
        cache.put(key, block)
    pool.release(old)
    pool.release(new)
    pool.share(old)
    pool.release(old)
    assert [taken(pool, 1)[0] for _ in range(4)] == [new[1], new[0], old[1], old[0]]


def test_the_check_finds_a_lost_and_a_doubly_owned_block() -> None:
    pool, _ = a_pool()
    blocks = taken(pool, 2)
    pool.check([blocks])
    with pytest.raises(AssertionError, match="references, not the holders'"):
        pool.check([blocks[:1]])
    with pytest.raises(AssertionError, match="references, not the holders'"):
        pool.check([blocks, blocks[:1]])


def test_forgotten_contents_leave_held_blocks_held() -> None:
    pool, cache = a_pool()
    held, kept = taken(pool, 1), taken(pool, 1)
    cache.put(b"held", held[0])
    cache.put(b"kept", kept[0])
    pool.release(kept)
    pool.forget_contents()
    pool.check([held])
    assert cache.find([b"held"]) == cache.find([b"kept"]) == []
    pool.release(held)
    assert pool.n_free == 4
