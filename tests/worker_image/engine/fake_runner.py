"""A device that keeps to the runner's contract to the letter and computes with integers instead of tensors.

The cache's slot of a token holds a hash of all tokens so far, made from the slot before; a new token is a hash of all
slots that the block table names. So a wrong block, position, row, copy or order gives a wrong token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from worker_image.engine.batch import Batch, Chunk, Sampled, TableUpdate
from worker_image.engine.sequence import Sequence

PRIME = (1 << 61) - 1
VOCABULARY = 12
EMPTY = 1


def slot_value(before: int, token: int) -> int:
    return (before * 1_000_003 + token + 17) % PRIME


def next_token(slots: Many[int], seed: int) -> int:
    mixed = seed * 7919 + len(slots)
    for value in slots:
        mixed = (mixed * 31 + value) % PRIME
    return mixed % VOCABULARY


def sequential(prompt: Many[int], limit: int, seed: int, stop_ids: Many[int]) -> list[int]:
    """What the engine must generate, computed one request at a time with no cache."""
    tokens = list(prompt)
    while len(tokens) < limit:
        slots: list[int] = []
        for token in tokens:
            slots.append(slot_value(slots[-1] if slots else EMPTY, token))
        tokens.append(next_token(slots, seed))
        if tokens[-1] in stop_ids:
            break
    return tokens[len(prompt) :]


@dataclass
class Row:
    """What the card keeps of one row."""

    seed: int
    table: list[int] = field(default_factory=list)
    newest: int | None = None
    length: int = 0
    """Tokens in the cache."""


@dataclass(frozen=True)
class Work:
    """A step as it was at its launch: nothing of the scheduler's is read later."""

    saves: tuple[tuple[int, int], ...]
    restores: tuple[tuple[int, int], ...]
    copies: tuple[tuple[int, int], ...]
    tables: tuple[TableUpdate, ...]
    joined: tuple[tuple[int, int], ...]
    decodes: tuple[int, ...]
    chunks: tuple[tuple[int, int, tuple[int, ...], bool], ...]
    """(row, start, tokens, samples)."""


@dataclass
class Flight:
    run: Callable[[Flight], None]
    work: Work
    error: Exception | None
    result: Sampled | None = None

    def wait(self) -> Sampled:
        self.run(self)
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


class FakeRunner:
    """Runs a step no earlier than its `wait`, so that whatever changes in between must not matter."""

    def __init__(self, depth: int, block_tokens: int, step_tokens: int) -> None:
        self.depth = depth
        self.batches: list[Batch] = []
        self.poison: set[int] = set()
        """Requests whose steps fail when they are waited for."""
        self.unlaunchable: set[int] = set()
        """Requests whose steps fail at launch."""
        self.fails_with: type[Exception] = RuntimeError
        self.recovered = 0
        self._block_tokens = block_tokens
        self._step_tokens = step_tokens
        self._rows: dict[int, Row] = {}
        self._slots: dict[int, int] = {}
        self._host: dict[int, list[int | None]] = {}
        self._pending: deque[Flight] = deque()
        self._broken: Exception | None = None

    def launch(self, batch: Batch) -> Flight:
        self._check(batch)
        self.batches.append(batch)
        ids = {s.request_id for s in batch.decodes} | {c.sequence.request_id for c in batch.prefills}
        if ids & self.unlaunchable:
            raise self.fails_with("out of memory at launch")
        error = self.fails_with("out of memory\nand a long trace") if ids & self.poison else None
        flight = Flight(self._run_until, _work(batch), error)
        self._pending.append(flight)
        assert len(self._pending) <= self.depth + 1
        return flight

    def prepare(self) -> bool:
        return False

    def recover(self) -> None:
        assert not self._pending, "a step was left in flight"
        self.recovered += 1
        self._broken = None
        self._rows.clear()
        self._slots.clear()
        self._host.clear()

    def _check(self, batch: Batch) -> None:
        assert 0 < batch.n_tokens <= self._step_tokens
        sources, targets = [a for a, _ in batch.copies], [b for _, b in batch.copies]
        assert len(set(targets)) == len(targets)
        assert not set(sources) & set(targets)
        for pairs in (batch.saves, batch.restores):
            assert len({target for _, target in pairs}) == len(pairs)
        for sequence in (*batch.decodes, *(c.sequence for c in batch.prefills)):
            assert not sequence.ended
            assert len(sequence.blocks) * self._block_tokens >= sequence.computed
        for sequence in batch.sampling:
            if sequence.needs_history:
                assert (sequence.n_in_flight, sequence.computed) == (1, len(sequence.tokens))

    def _run_until(self, last: Flight) -> None:
        while last in self._pending:
            flight = self._pending.popleft()
            # What follows a failed step starts from rubbish.
            self._broken = flight.error = flight.error or self._broken
            if flight.error is None:
                flight.result = Sampled(self._run(flight.work))

    def _run(self, work: Work) -> list[int]:
        size = self._block_tokens
        for block, slot in work.saves:
            self._host[slot] = [self._slots.get(block * size + i) for i in range(size)]
        for slot, block in work.restores:
            restored = enumerate(self._host[slot])
            self._slots |= {block * size + i: value for i, value in restored if value is not None}
        copied = [(b * self._block_tokens + i, self._slots.get(a * self._block_tokens + i))
                  for a, b in work.copies for i in range(self._block_tokens)]  # fmt: skip
        self._slots |= {slot: value for slot, value in copied if value is not None}
        for row, seed in work.joined:
            self._rows[row] = Row(seed)
        for update in work.tables:
            table = self._rows[update.row].table
            table[update.first :] = update.blocks
        sampled = [self._compute(self._rows[row], None) for row in work.decodes]
        for row, start, tokens, samples in work.chunks:
            self._rows[row].length = start
            for token in tokens[:-1]:
                self._write(self._rows[row], token)
            token = self._compute(self._rows[row], tokens[-1])
            if samples:
                sampled.append(token)
        return sampled

    def _slot(self, row: Row, position: int) -> int:
        return row.table[position // self._block_tokens] * self._block_tokens + position % self._block_tokens

    def _write(self, row: Row, token: int) -> None:
        before = self._slots[self._slot(row, row.length - 1)] if row.length else EMPTY
        self._slots[self._slot(row, row.length)] = slot_value(before, token)
        row.length += 1

    def _compute(self, row: Row, token: int | None) -> int:
        """The token after `token`, or after the row's newest."""
        if token is None:
            assert row.newest is not None, "a row decodes only after a chunk that samples"
            token = row.newest
        self._write(row, token)
        row.newest = next_token([self._slots[self._slot(row, p)] for p in range(row.length)], row.seed)
        return row.newest


def _work(batch: Batch) -> Work:
    def row(sequence: Sequence) -> int:
        assert sequence.row is not None
        return sequence.row

    def chunk(chunk: Chunk) -> tuple[int, int, tuple[int, ...], bool]:
        tokens = chunk.sequence.tokens[chunk.start : chunk.start + chunk.length]
        assert len(tokens) == chunk.length
        return row(chunk.sequence), chunk.start, tuple(tokens), chunk.samples

    return Work(
        batch.saves,
        batch.restores,
        batch.copies,
        tuple(TableUpdate(u.row, u.first, list(u.blocks)) for u in batch.tables),
        tuple((row(s), s.seed) for s in batch.joined),
        tuple(row(s) for s in batch.decodes),
        tuple(chunk(c) for c in batch.prefills),
    )
