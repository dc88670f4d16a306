"""Who sits where: rows and blocks of the sequences that run, and what a runner must be told of every change.

A row and blocks are taken at once and given back at once, but never while a launched step uses them: until then the
sequence is leaving. Decides nothing; the scheduler says who comes and who goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from worker_image.engine.batch import Batch, TableUpdate
from worker_image.engine.host_blocks import HostBlocks
from worker_image.engine.kv_blocks import Grant, KvBlocks
from worker_image.engine.sequence import Sequence


@dataclass(slots=True)
class Changes:
    """What the next batch tells the runner beside its tokens."""

    tables: list[TableUpdate] = field(default_factory=list)
    joined: list[Sequence] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    saves: list[tuple[int, int]] = field(default_factory=list)
    restores: dict[Sequence, list[tuple[int, int]]] = field(default_factory=dict)

    def forget(self, sequence: Sequence) -> None:
        """It left before any batch could say that it came."""
        self.joined = [each for each in self.joined if each is not sequence]
        self.restores.pop(sequence, None)
        self.tables = [update for update in self.tables if update.row != sequence.row]


class Seats:
    def __init__(self, n_rows: int, kv: KvBlocks, host: HostBlocks | None) -> None:
        """host: None saves nothing; who gives way is computed again."""
        self._n_rows = n_rows
        self._kv = kv
        self._host = host
        self._free_rows = list(range(n_rows - 1, -1, -1))
        self._leaving: list[Sequence] = []
        self._changes = Changes()
        self._pins: dict[int, list[int]] = {}
        """Blocks that a launched step copies from, by step."""
        self._host_pins: dict[int, list[int]] = {}
        """Slots that a launched step restores from, by step."""

    @property
    def n_free(self) -> int:
        return len(self._free_rows)

    @property
    def n_leaving(self) -> int:
        """Sequences whose blocks come back with a step in flight."""
        return len(self._leaving)

    def take(self, sequence: Sequence, grant: Grant) -> None:
        """A row for a sequence that was just granted blocks; there must be one."""
        row = sequence.row = self._free_rows.pop()
        self._changes.joined.append(sequence)
        self._changes.tables.append(TableUpdate(row, 0, list(sequence.blocks)))
        if grant.copy is not None:
            self._changes.copies.append(grant.copy)
        if grant.restores:
            self._changes.restores[sequence] = grant.restores

    def grown(self, sequence: Sequence, new: list[int]) -> None:
        """`new` blocks were put at the end of its blocks."""
        assert sequence.row is not None
        self._changes.tables.append(TableUpdate(sequence.row, len(sequence.blocks) - len(new), new))

    def leave(self, sequence: Sequence) -> None:
        """Its row and blocks go back, now or when the last step that uses them is settled; what it has may be saved."""
        sequence.decoding = False
        if sequence.n_steps:
            sequence.leaving = True
            self._leaving.append(sequence)
        else:
            self._free(sequence)

    def _free(self, sequence: Sequence) -> None:
        assert sequence.row is not None
        # One that no batch has told of yet has computed nothing, and what it saved before is still where it was.
        if self._host is not None and not sequence.ended and sequence not in self._changes.joined:
            self._changes.saves += self._host.save(sequence, self._kv.block_tokens)
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
        if self._host is not None:
            self._unsave(changes, step)
        return changes

    def _unsave(self, changes: Changes, step: int) -> None:
        """What they had in host memory is theirs on the device from this step on."""
        assert self._host is not None
        for sequence in changes.joined:
            if sequence.saved:
                self._host_pins.setdefault(step, []).extend(sequence.saved)
                n_shared = len(sequence.saved) - len(changes.restores.get(sequence, ()))
                self._host.restored_tokens += max(sequence.n_saved - n_shared * self._kv.block_tokens, 0)
                sequence.saved, sequence.n_saved = [], 0

    def drop_saved(self, sequence: Sequence) -> None:
        """Nobody will ask for it again, or it cannot be trusted."""
        if self._host is not None and sequence.saved:
            dropped = set(sequence.saved)
            self._changes.saves = [pair for pair in self._changes.saves if pair[1] not in dropped]
            self._host.release(sequence.saved)
            sequence.saved, sequence.n_saved = [], 0

    def forget_changes(self) -> None:
        """The runner has forgotten all rows."""
        self._changes = Changes()

    def settle(self, batch: Batch) -> None:
        """The step runs no more: what only it still used goes back."""
        self._kv.pool.release(self._pins.pop(batch.step, []))
        if self._host is not None:
            self._host.release(self._host_pins.pop(batch.step, []))
        if self._leaving:
            done = [sequence for sequence in self._leaving if sequence.n_steps == 0]
            self._leaving = [sequence for sequence in self._leaving if sequence.n_steps]
            for sequence in done:
                self._free(sequence)

    def check(self, running: Iterable[Sequence], waiting: Iterable[Sequence]) -> None:
        """Raises AssertionError where a block or a row is lost or has two owners."""
        seated = [*running, *self._leaving]
        self._kv.pool.check([*(s.blocks for s in seated), *self._pins.values()])
        if self._host is not None:
            saved = {id(each): each.saved for each in (*waiting, *self._changes.joined)}
            self._host.check([*saved.values(), *self._host_pins.values()])
        rows = sorted([*self._free_rows, *(s.row for s in seated if s.row is not None)])
        assert rows == list(range(self._n_rows)), f"rows {rows} are not each in one place"
