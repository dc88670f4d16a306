"""Who gives way so that others come in: the worst first, and nobody in vain. Pure arithmetic over rows and blocks."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Final

from worker_image.engine.scheduler.policy import Policy
from worker_image.engine.sequence import Sequence

MOST_DISPLACED: Final = 1
"""How often one gives way to others that come: so little is computed twice, and two cannot push a third around."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free, or soon will be."""

    rows: int
    blocks: int


def who_gives_way(
    policy: Policy, candidates: Many[Sequence], running: Many[Sequence], room: Room, need: Callable[[Sequence], int]
) -> list[Sequence]:
    """Of `running`, those whose places the candidates are to have, best candidate first, while that is enough for it.

    need: blocks of a candidate. Blocks that a victim shares count as its own, so that room may come out smaller: then
    the next step sees.
    """
    by_rank: list[Sequence] | None = None
    victims: list[Sequence] = []
    rows, blocks = room.rows, room.blocks
    for candidate in candidates:
        rows, blocks = rows - 1, blocks - need(candidate)
        if rows >= 0 and blocks >= 0:
            continue
        if by_rank is None:
            by_rank = sorted(running, key=policy.rank)
        chosen: list[Sequence] = []
        for each in reversed(by_rank):
            if rows >= 0 and blocks >= 0:
                break
            if each.n_displaced < MOST_DISPLACED and policy.displaces(candidate, each):
                chosen.append(each)
                rows, blocks = rows + 1, blocks + len(each.blocks) + 1
        if rows < 0 or blocks < 0:
            return victims
        by_rank = [each for each in by_rank if each not in chosen]
        victims += chosen
    return victims
