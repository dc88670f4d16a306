"""What one step computes and what comes back: the words that scheduler and runners share. Values, no behaviour.

Order matters everywhere: the tokens of a step are those of `decodes`, one each, then those of `prefills`; the sampled
ones are those of `sampling`, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from worker_image.engine.messages import Logprobs
from worker_image.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """`length` known tokens of `sequence` from index `start`. `samples`: a new one is chosen after the last."""

    sequence: Sequence
    start: int
    length: int
    samples: bool


@dataclass(frozen=True, slots=True)
class TableUpdate:
    """From this step on, `blocks` stand in row `row` of the block table, from column `first` on."""

    row: int
    first: int
    blocks: list[int]


@dataclass(frozen=True)
class Batch:
    """One step's work, and all that changed for a runner which keeps its tables on the card."""

    step: int
    """Counts launches from 1."""
    decodes: tuple[Sequence, ...]
    """One token each: the newest, which may still be in flight (the runner has it; `tokens` may not). Its index is
    `computed - 1`, as `computed` counts this step. The very same tuple as in the last batch while nothing changed, so
    `is` tells whether rows must be sent again. A row decodes only after a chunk of it that `samples`."""
    prefills: tuple[Chunk, ...] = ()
    saves: tuple[tuple[int, int], ...] = ()
    """Blocks (block, slot of host memory), copied before anything of this step is written."""
    restores: tuple[tuple[int, int], ...] = ()
    """(slot, block), copied after `saves`."""
    copies: tuple[tuple[int, int], ...] = ()
    """Blocks (from, to), copied in all layers before any token of this step is computed. No block is in two of them as
    `to`, and none is both a `from` and a `to`, so their order is free."""
    tables: tuple[TableUpdate, ...] = ()
    """Done before the step; what they do not name stays. A row that joins gets its whole table here."""
    joined: tuple[Sequence, ...] = ()
    """Sequences that have their row since this step: sampling parameters and seed of the row are theirs now."""

    @cached_property
    def n_tokens(self) -> int:
        return len(self.decodes) + sum(chunk.length for chunk in self.prefills)

    @cached_property
    def sampling(self) -> tuple[Sequence, ...]:
        """Who gets a token from this step."""
        ending = tuple(chunk.sequence for chunk in self.prefills if chunk.samples)
        return self.decodes + ending if ending else self.decodes


@dataclass(frozen=True, slots=True)
class Sampled:
    """A step's result: one token for each of `batch.sampling`, in its order.

    `logprobs`: by index into `batch.sampling`, for those whose request asks.
    """

    tokens: list[int]
    logprobs: dict[int, Logprobs] = field(default_factory=dict)
