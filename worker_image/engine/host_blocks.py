"""Blocks in host memory, where one that gives way may leave its keys and values: numbers and costs only.

Saving them pays where reading them back takes less time than computing them again. The memory itself is the runner's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from worker_image.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class SwapCosts:
    """Seconds a token: computed again, or copied there and back; and what every swap costs beside."""

    recompute_s: float
    copy_s: float
    fixed_s: float

    def worth_it(self, n_tokens: int) -> bool:
        return self.fixed_s + n_tokens * self.copy_s < n_tokens * self.recompute_s


class HostBlocks:
    def __init__(self, n_slots: int, costs: SwapCosts) -> None:
        self._n_slots = n_slots
        self._costs = costs
        self._free = list(range(n_slots - 1, -1, -1))
        self.restored_tokens = 0

    def save(self, sequence: Sequence, block_tokens: int) -> list[tuple[int, int]]:
        """(block, slot) to copy before the blocks are written again; empty where it does not pay or has no room."""
        n_blocks = -(-sequence.computed // block_tokens)
        if n_blocks > len(self._free) or not self._costs.worth_it(sequence.computed):
            return []
        sequence.saved = [self._free.pop() for _ in range(n_blocks)]
        sequence.n_saved = sequence.computed
        return list(zip(sequence.blocks[:n_blocks], sequence.saved, strict=True))

    def release(self, slots: Iterable[int]) -> None:
        self._free += slots

    def check(self, holders: Iterable[Iterable[int]]) -> None:
        """Raises AssertionError unless every slot is free or held once."""
        slots = sorted([*self._free, *(slot for held in holders for slot in held)])
        assert slots == list(range(self._n_slots)), f"slots {slots} are not each in one place"
