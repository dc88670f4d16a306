"""Which revision a session gets while traffic is split, and which requests are copied. Pure.

Weighted rendezvous: a key stays where it is when weights change, except for the sessions that the change itself moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log

from gateway.routing.terms import TrafficShare

_BYTES = 8
_MOST = float(1 << 64)


def revision_for(key: int, shares: Sequence[TrafficShare]) -> str | None:
    """The revision of a key; None where nobody has a weight."""
    best, best_score = None, 0.0
    for share in shares:
        if share.weight <= 0:
            continue
        score = share.weight / -log(_unit(key, share.revision))
        if best is None or score > best_score:
            best, best_score = share.revision, score
    return best


def mirrored_to(draw: float, chosen: str | None, shares: Sequence[TrafficShare]) -> list[str]:
    """Revisions that get a copy of a request which `chosen` answers; `draw`: a number in [0, 1)."""
    return [one.revision for one in shares if one.revision != chosen and draw * 100.0 < one.mirror]


def _unit(key: int, revision: str) -> float:
    """Even in (0, 1), the same everywhere for the same key and revision."""
    digest = blake2b(revision.encode(), digest_size=_BYTES, key=key.to_bytes(_BYTES)).digest()
    return (int.from_bytes(digest) + 0.5) / _MOST
