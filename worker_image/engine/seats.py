"""Who sits where: rows and blocks of the sequences that run, and what a runner must be told of every change.

A row and blocks are taken at once and given back at once, but never while a launched step uses them: until then the
sequence is leaving. Decides nothing; the scheduler says who comes and who goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from worker_image.engine.batch import Batch, TableUpdate
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.sequence import Sequence


@dataclass(slots=True)
class Changes:
    """What the next batch tells the runner beside its tokens."""

    tables: list[TableUpdate] = field(default_factory=list)
    joined: list[Sequence] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)

    def forget(self, sequence: Sequence) -> None:
        """It left before any batch could say that it came."""
        self.joined = [each for each in self.joined if each is not sequence]
        self.tables = [update for update in self.tables if update.row != sequence.row]


class Seats:
    def __init__(self, n_rows: int, kv: KvBlocks) -> None:
        self._n_rows = n_rows
        self._kv = kv
        self._free_rows = list(range(n_rows - 1, -1, -1))
        self._leaving: list[Sequence] = []
        self._changes = Changes()
        self._pins: dict[int, list[int]] = {}
        """Blocks that a launched step copies from, by step."""

    @property
    def n_free(self) -> int:
        return len(self._free_rows)

    @property
    def n_leaving(self) -> int:
        """Sequences whose blocks come back with a step in flight."""
        return len(self._leaving)

    def take(self, sequence: Sequence, copy: tuple[int, int] | None) -> None:
        """A row for a sequence that was just granted blocks; there must be one."""
        row = sequence.row = self._free_rows.pop()
        self._changes.joined.append(sequence)
        self._changes.tables.append(TableUpdate(row, 0, list(sequence.blocks)))
        if copy is not None:
            self._changes.copies.append(copy)

    def grown(self, sequence: Sequence, new: list[int]) -> None:
        """`new` blocks were put at the end of its blocks."""
        assert sequence.row is not None
        self._changes.tables.append(TableUpdate(sequence.row, len(sequence.blocks) - len(new), new))

    def leave(self, sequence: Sequence) -> None:
        """Its row and blocks go back, now or when the last step that uses them is settled."""
        sequence.decoding = False
        if sequence.n_steps:
            sequence.leaving = True
            self._leaving.append(sequence)
        else:
            self._free(sequence)

    def _free(self, sequence: Sequence) -> None:
        assert sequence.row is not None
        if self._changes.joined:
            self._changes.forget(sequence)
        self._kv.free(sequence)
        self._free_rows.append(sequence.row)
        sequence.row = None
        sequence.leaving = False

    def changes(self, step: int) -> Changes:
        """All since the last call, for the batch of that step. What it copies from is held until it is settled."""
        changes, self._changes = self._changes, Changes()
        if changes.copies:
            self._pins[step] = [source for source, _ in changes.copies]
        return changes

    def forget_changes(self) -> None:
        """The runner has forgotten all rows."""
        self._changes = Changes()

    def settle(self, batch: Batch) -> None:
        """The step runs no more: what only it still used goes back."""
        self._kv.pool.release(self._pins.pop(batch.step, []))
        if self._leaving:
            done = [sequence for sequence in self._leaving if sequence.n_steps == 0]
            self._leaving = [sequence for sequence in self._leaving if sequence.n_steps]
            for sequence in done:
                self._free(sequence)

    def check(self, running: Iterable[Sequence]) -> None:
        """Raises AssertionError where a block or a row is lost or has two owners."""
        seated = [*running, *self._leaving]
        self._kv.pool.check([*(s.blocks for s in seated), *self._pins.values()])
        rows = sorted([*self._free_rows, *(s.row for s in seated if s.row is not None)])
        assert rows == list(range(self._n_rows)), f"rows {rows} are not each in one place"
