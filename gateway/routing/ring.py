"""Consistent hashing with bounded loads: the same key goes to the same endpoint, unless that has too much to do.

Every gateway finds the same endpoint without asking another. When an endpoint comes or goes, only its own keys move.
Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import ceil

POINTS = 40
"""Of one endpoint on the ring: the parts of the ring then differ by a sixth or so."""
KEY_BYTES = 8


@lru_cache(maxsize=4096)
def _points(name: str) -> tuple[int, ...]:
    digests = (blake2b(b"%b#%d" % (name.encode(), number), digest_size=KEY_BYTES) for number in range(POINTS))
    return tuple(int.from_bytes(one.digest()) for one in digests)


class Ring:
    """Immutable; of names, whose indices it gives."""

    def __init__(self, names: Sequence[str]) -> None:
        placed = sorted((point, index) for index, name in enumerate(names) for point in _points(name))
        self._points = [point for point, _ in placed]
        self._owners = [index for _, index in placed]
        self._count = len(names)

    def home(self, key: int) -> int:
        """The index that a key belongs to. There must be a name."""
        return self._owners[bisect_left(self._points, key) % len(self._owners)]

    def walk(self, key: int) -> Iterator[int]:
        """Every index once, the home first, then those that would follow if it were gone."""
        start, owners = bisect_left(self._points, key), self._owners
        seen: set[int] = set()
        for step in range(len(owners)):
            owner = owners[(start + step) % len(owners)]
            if owner not in seen:
                seen.add(owner)
                yield owner
                if len(seen) == self._count:
                    return


def limit(total_in_flight: int, count: int, load_bound: float, slots: int) -> int:
    """Requests that an endpoint may hold and still get those that belong to it: `load_bound` × the mean.

    One that is less than half full makes nobody wait, whatever the mean is.
    """
    return max(ceil(load_bound * (total_in_flight + 1) / count), slots // 2, 1)
