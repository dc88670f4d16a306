"""Which block holds which prefix: full blocks under a key that stands for all tokens up to the block's end.

A key is a keyed hash of the tokens and of the key before, from a root that the request's salt sets. The secret is the
process's own, so keys cannot be guessed or collided from outside, and requests of different salts never meet.
Holds no reference to a block and decides nothing: `BlockPool` says what is free, an `EvictionPolicy` what goes first.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, Protocol

KEY_BYTES: Final = 16
SECRET_BYTES: Final = 32


class KeyChain:
    """Keys of a sequence's full blocks."""

    def __init__(self, secret: bytes, block_tokens: int) -> None:
        """secret: at most 64 random bytes."""
        self._seeded = blake2b(key=secret, digest_size=KEY_BYTES)
        self._block_tokens = block_tokens

    def extend(self, keys: list[bytes], tokens: Sequence[int], n_tokens: int, salt: bytes) -> None:
        """Appends to `keys` until every full block of the first `n_tokens` has one."""
        size = self._block_tokens
        key = keys[-1] if keys else self._digest(salt)
        for end in range((len(keys) + 1) * size, n_tokens + 1, size):
            key = self._digest(key + array("I", tokens[end - size : end]).tobytes())
            keys.append(key)

    def _digest(self, content: bytes) -> bytes:
        hashed = self._seeded.copy()
        hashed.update(content)
        return hashed.digest()


class PrefixCache:
    """Key ↔ block, one to one."""

    def __init__(self) -> None:
        self._block_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """Blocks of the longest known beginning."""
        found: list[int] = []
        for key in keys:
            block = self._block_of.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def put(self, key: bytes, block: int) -> None:
        """Remembers a held block, unless its content is known under another number or its number already."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def knows(self, block: int) -> bool:
        return block in self._key_of

    def forget(self, block: int) -> None:
        del self._block_of[self._key_of.pop(block)]

    def clear(self) -> None:
        self._block_of.clear()
        self._key_of.clear()

    def check(self) -> None:
        """Raises AssertionError where the two directions disagree."""
        assert {block: key for key, block in self._block_of.items()} == self._key_of, "keys and blocks disagree"


class EvictionPolicy(Protocol):
    """Orders the free blocks whose content is kept."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...

    def insert(self, block: int) -> None:
        """Its last holder let go."""

    def remove(self, block: int) -> None:
        """It is held again."""

    def victim(self) -> int:
        """Takes out the block whose content is worth least."""


class LeastRecentlyUsed:
    """The block that was let go longest ago goes first."""

    def __init__(self) -> None:
        # A plain dict keeps the order too, but finding its first key again and again walks over the deleted ones.
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[int]:
        return iter(self._blocks)

    def insert(self, block: int) -> None:
        self._blocks[block] = None

    def remove(self, block: int) -> None:
        del self._blocks[block]

    def victim(self) -> int:
        return self._blocks.popitem(last=False)[0]
