"""Decides what the next step computes: one token budget, decodes first, then prefill chunks, oldest first.

A request's life: waiting → running (its prompt's blocks are taken at admission) → finished, or back to waiting when
an older request needs its blocks (preemption by recompute: it keeps its tokens and loses its cache). The oldest
running request is never preempted, and it always fits in the pool, so every request ends.
Pure bookkeeping: no tensor, no clock, no I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from worker_image.engine.block_pool import BlockPool
from worker_image.engine.messages import EngineLoad, Finish, Sampling


@dataclass(frozen=True)
class Limits:
    """`step_tokens`: the most tokens one step computes. `block_tokens`: tokens per KV block."""

    max_num_seqs: int
    step_tokens: int
    block_tokens: int
    max_model_len: int

    def __post_init__(self) -> None:
        assert self.step_tokens > self.max_num_seqs, "prefill needs room in the step beside every decode"


@dataclass(eq=False)
class Sequence:
    """One request inside the engine. `computed` of its `tokens` are in the KV cache."""

    request_id: int
    tokens: list[int]
    sampling: Sampling
    n_prompt: int = field(init=False)
    computed: int = 0
    blocks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_prompt = len(self.tokens)

    @property
    def n_pending(self) -> int:
        """Tokens whose keys and values are not in the cache yet."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        return self.n_pending == 1 and self.computed > 0


@dataclass(frozen=True)
class Chunk:
    """`length` tokens of `sequence` from position `start`. `samples`: the last one's logits choose the next token."""

    sequence: Sequence
    start: int
    length: int
    samples: bool

    @classmethod
    def next_of(cls, sequence: Sequence, budget: int) -> Chunk:
        length = min(sequence.n_pending, budget)
        return cls(sequence, sequence.computed, length, samples=length == sequence.n_pending)


@dataclass(frozen=True)
class Batch:
    """One step's work: chunks of one token first, then the longer ones."""

    chunks: tuple[Chunk, ...]

    @property
    def n_tokens(self) -> int:
        return sum(chunk.length for chunk in self.chunks)

    @property
    def sampling_chunks(self) -> list[Chunk]:
        return [chunk for chunk in self.chunks if chunk.samples]


class Scheduler:
    """Holds every request of the engine and the block pool they share."""

    def __init__(self, limits: Limits, pool: BlockPool) -> None:
        assert self._blocks(limits.block_tokens, limits.max_model_len) <= pool.n_blocks, "one request must always fit"
        self.limits = limits
        self.pool = pool
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        """Oldest first."""
        self._steps = 0
        self._preemptions = 0

    @staticmethod
    def _blocks(block_tokens: int, n_tokens: int) -> int:
        return -(-n_tokens // block_tokens)

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def load(self) -> EngineLoad:
        return EngineLoad(self._steps, len(self.running), len(self.waiting), self.pool.usage, self._preemptions)

    def add(self, sequence: Sequence) -> None:
        assert 0 < len(sequence.tokens) < self.limits.max_model_len, "the server refuses such a prompt"
        self.waiting.append(sequence)

    def cancel(self, request_id: int) -> bool:
        """Forgets the request wherever it is; False where it is not here (any more)."""
        for sequence in self.running:
            if sequence.request_id == request_id:
                self._release(sequence)
                self.running.remove(sequence)
                return True
        for sequence in self.waiting:
            if sequence.request_id == request_id:
                self.waiting.remove(sequence)
                return True
        return False

    def schedule(self) -> Batch:
        """The next step. Empty only when there is no work."""
        decodes = self._schedule_decodes()
        self._admit()
        prefills = self._schedule_prefills(self.limits.step_tokens - len(decodes))
        return Batch(tuple(sorted((*decodes, *prefills), key=lambda chunk: chunk.length > 1)))

    def _schedule_decodes(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for sequence in list(self.running):
            # One that lost its blocks to an older one earlier in this loop is not decoding any more.
            if sequence.decoding and self._grow(sequence):
                chunks.append(Chunk.next_of(sequence, 1))
        return chunks

    def _grow(self, sequence: Sequence) -> bool:
        """Takes the block its next token needs, from the youngest if need be; False when it is the youngest itself."""
        missing = self._blocks(self.limits.block_tokens, len(sequence.tokens)) - len(sequence.blocks)
        while missing > self.pool.n_free:
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        sequence.blocks += self.pool.allocate(missing) or []
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._release(sequence)
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)
        self._preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0

    def _admit(self) -> None:
        """First come, first served, while a slot and the blocks for all its tokens (and one more) are free."""
        while self.waiting and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            needed = self._blocks(self.limits.block_tokens, len(sequence.tokens) + 1)
            # Without a block left for each running request, the newcomer would be preempted at once.
            if self.running and needed + len(self.running) > self.pool.n_free:
                return
            blocks = self.pool.allocate(needed)
            assert blocks is not None, "an empty engine has room for any request"
            sequence.blocks = blocks
            self.running.append(self.waiting.popleft())

    def _schedule_prefills(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for sequence in self.running:
            if budget == 0:
                break
            if not sequence.decoding:
                chunks.append(Chunk.next_of(sequence, budget))
                budget -= chunks[-1].length
        return chunks

    def commit(self, batch: Batch, sampled: list[int]) -> list[tuple[Sequence, Finish | None]]:
        """Books the step's result; `sampled` has one token for each of `batch.sampling_chunks`.

        Returns the sequences that got a token, with why they ended, if they did; those are freed.
        """
        self._steps += 1
        tokens = iter(sampled)
        results: list[tuple[Sequence, Finish | None]] = []
        for chunk in batch.chunks:
            sequence = chunk.sequence
            sequence.computed += chunk.length
            if chunk.samples:
                sequence.tokens.append(next(tokens))
                results.append((sequence, self._finish(sequence)))
        for sequence, finish in results:
            if finish is not None:
                self._release(sequence)
                self.running.remove(sequence)
        return results

    def _finish(self, sequence: Sequence) -> Finish | None:
        if sequence.tokens[-1] in sequence.sampling.stop_ids:
            return Finish.STOP
        n_generated = len(sequence.tokens) - sequence.n_prompt
        if n_generated >= sequence.sampling.max_tokens or len(sequence.tokens) >= self.limits.max_model_len:
            return Finish.LENGTH
        return None
