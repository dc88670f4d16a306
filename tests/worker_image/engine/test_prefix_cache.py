"""Keys of prefixes, and who finds which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker_image.engine.prefix_cache import KeyChain, PrefixCache

TOKENS = st.lists(st.integers(0, 3), max_size=12)


def keys(tokens: list[int], *, secret: bytes = b"s", salt: bytes = b"") -> list[bytes]:
    found: list[bytes] = []
    KeyChain(secret, 4).extend(found, tokens, len(tokens), salt)
    return found


@given(TOKENS, TOKENS)
def test_two_sequences_share_as_many_keys_as_full_blocks_of_a_common_beginning(a: list[int], b: list[int]) -> None:
    n_common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    n_shared = sum(x == y for x, y in zip(keys(a), keys(b), strict=False))
    assert n_shared == n_common // 4


@given(TOKENS, st.integers(0, 12))
def test_a_chain_that_grows_gives_the_keys_of_one_made_at_once(tokens: list[int], cut: int) -> None:
    chain, found = KeyChain(b"s", 4), list[bytes]()
    chain.extend(found, tokens, min(cut, len(tokens)), b"")
    chain.extend(found, tokens, len(tokens), b"")
    assert found == keys(tokens)


def test_salt_and_secret_change_every_key() -> None:
    tokens = list(range(12))
    others = keys(tokens, salt=b"acme"), keys(tokens, secret=b"other")
    assert all(not set(keys(tokens)) & set(other) for other in others)


def test_the_longest_known_beginning_is_found() -> None:
    cache = PrefixCache()
    a, b, c = keys(list(range(12)))
    cache.put(a, 5)
    cache.put(c, 7)
    assert cache.find([a, b, c]) == [5]


def test_content_that_is_known_already_keeps_its_first_block() -> None:
    cache = PrefixCache()
    cache.put(b"a", 1)
    cache.put(b"a", 2)
    cache.put(b"b", 1)
    assert cache.find([b"a"]) == [1]
    assert not cache.knows(2)
    assert cache.find([b"b"]) == []
    cache.check()
