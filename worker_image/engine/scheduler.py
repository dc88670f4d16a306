"""Decides what the next step computes: one token budget, decodes first, then prefill chunks, oldest first.

A request's life: waiting → running (a row and its prompt's blocks are taken at admission) → ended, or back to waiting
when an older request needs its blocks (preemption by recompute: it keeps its tokens and loses its cache). The oldest
running request is never preempted, and it always fits in the pool, so every request ends.
Steps are planned while earlier ones are in flight; rows and blocks go back only when no launched step uses them.
Pure bookkeeping: no tensor, no clock, no I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from worker_image.engine.batch import Batch, Chunk, Sampled
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.messages import Finish, Logprobs
from worker_image.engine.seats import Seats
from worker_image.engine.sequence import Sequence


@dataclass(frozen=True)
class Limits:
    """`step_tokens`: the most tokens one step computes. `block_tokens`: tokens per KV block."""

    max_num_seqs: int
    step_tokens: int
    block_tokens: int
    max_model_len: int

    def __post_init__(self) -> None:
        assert self.step_tokens > self.max_num_seqs, "prefill needs room in the step beside every decode"


@dataclass(slots=True)
class Outcome:
    """What commits brought: new tokens by request, and who ended and why."""

    ids: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[tuple[int, Logprobs]] = field(default_factory=list)
    """By request id, of its last token here."""
    ended: list[tuple[Sequence, Finish, str | None]] = field(default_factory=list)


class Scheduler:
    """Holds every request of the engine and the blocks they share."""

    def __init__(self, limits: Limits, kv: KvBlocks) -> None:
        assert kv.blocks_for(limits.max_model_len) <= kv.pool.n_blocks, "one request must always fit"
        self.limits = limits
        self.kv = kv
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        """Oldest first."""
        self.n_preemptions = 0
        self.n_launched = 0
        self._alive: dict[int, Sequence] = {}
        self._seats = Seats(limits.max_num_seqs, kv)
        self._decodes: tuple[Sequence, ...] = ()

    @property
    def has_work(self) -> bool:
        return bool(self._alive)

    @property
    def kv_waste(self) -> float:
        """Share of the held slots that no token has or is about to have, 0 to 1."""
        held = (self.kv.pool.n_blocks - self.kv.pool.n_free) * self.limits.block_tokens
        wasted = sum(s.room - len(s.tokens) - s.n_in_flight for s in self.running)
        return max(wasted, 0) / held if held else 0.0

    def add(self, sequence: Sequence) -> None:
        assert 0 < len(sequence.tokens) < sequence.limit <= self.limits.max_model_len, (
            "the server refuses such a prompt"
        )
        self._alive[sequence.request_id] = sequence
        self.waiting.append(sequence)

    def cancel(self, request_id: int) -> bool:
        """Forgets the request wherever it is; False where it is not here (any more)."""
        sequence = self._alive.get(request_id)
        if sequence is not None:
            self._end(sequence)
        return sequence is not None

    def schedule(self) -> Batch | None:
        """The next step, to be launched at once; None where nothing can be computed before a commit."""
        self.kv.begin_step()
        decodes, prefilling = self._plan_decodes(self._turns())
        budget = self.limits.step_tokens - len(decodes)
        chunks: list[Chunk] = []
        for sequence in prefilling:
            if budget:
                chunks.append(self._chunk(sequence, budget))
                budget -= chunks[-1].length
        self._admit(chunks, budget)
        if not decodes and not chunks:
            return None
        return self._batch(tuple(decodes), tuple(chunks))

    def _batch(self, decodes: tuple[Sequence, ...], chunks: tuple[Chunk, ...]) -> Batch:
        if decodes != self._decodes:
            self._decodes = decodes
        self.n_launched += 1
        changes = self._seats.changes(self.n_launched)
        return Batch(
            self.n_launched, self._decodes, chunks,
            tuple(changes.copies), tuple(changes.tables), tuple(changes.joined),
        )  # fmt: skip

    def _turns(self) -> list[Sequence]:
        """Who takes part: one under suspicion by itself, else everybody that runs."""
        return next(([s] for s in self.running if s.alone), list(self.running))

    def _plan_decodes(self, turns: list[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        """The sequences that decode now, and those whose prompt is not through. The loop that must cost little."""
        decodes: list[Sequence] = []
        prefilling: list[Sequence] = []
        for sequence in turns:
            if not sequence.decoding:
                # One that lost its blocks to an older one earlier in this loop is neither.
                if sequence.row is not None and not sequence.leaving:
                    prefilling.append(sequence)
                continue
            computed = sequence.computed + 1
            # The token in flight is its last, or must be known first.
            if computed >= sequence.limit or (sequence.n_in_flight and sequence.needs_history):
                continue
            if computed > sequence.room and not self._grow(sequence):
                continue
            sequence.computed = computed
            sequence.n_in_flight += 1
            sequence.n_steps += 1
            decodes.append(sequence)
        return decodes, prefilling

    def _grow(self, sequence: Sequence) -> bool:
        """Takes the block its next token needs, from the youngest if need be; False when it must sit out."""
        while (new := self.kv.grow(sequence)) is None:
            # Room is on its way: the next step will have it.
            if self._seats.n_leaving:
                return False
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        self._seats.grown(sequence, new)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)
        self._seats.leave(sequence)
        self.n_preemptions += 1

    def _admit(self, chunks: list[Chunk], budget: int) -> None:
        """First come, first served, while the budget, a row and the blocks for all its tokens (and one more) last."""
        while budget and self.waiting and self._seats.n_free:
            sequence = self.waiting[0]
            if sequence.leaving or self._awaits_parent(sequence) or (self.running and self.running[-1].alone):
                return
            # Without a block left for each running request, the newcomer would be preempted at once.
            grant = self.kv.admit(sequence, len(self.running))
            if grant is None:
                return
            self.running.append(self.waiting.popleft())
            self._seats.take(sequence, grant.copy)
            sequence.parent = None
            if sequence.alone:
                return
            chunks.append(self._chunk(sequence, budget))
            budget -= chunks[-1].length

    def _awaits_parent(self, sequence: Sequence) -> bool:
        """Its first choice's prompt is being computed, by this step perhaps, and its blocks will be shared."""
        parent = sequence.parent
        if parent is None or parent.row is None or parent.leaving:
            return False
        return not 0 < parent.prefilled_at <= self.n_launched

    def _chunk(self, sequence: Sequence, budget: int) -> Chunk:
        start, length = sequence.computed, min(sequence.n_pending, budget)
        sequence.computed += length
        sequence.n_steps += 1
        samples = sequence.n_pending == 0
        if samples:
            sequence.n_in_flight += 1
            sequence.decoding = True
            sequence.prefilled_at = self.n_launched + 1
        self.kv.publish(sequence, sequence.computed, fresh=True)
        return Chunk(sequence, start, length, samples)

    def commit(self, batch: Batch, sampled: Sampled, outcome: Outcome) -> None:
        """Books a step's result into `outcome`. Steps are committed in the order of their launch."""
        for i, logprobs in sampled.logprobs.items():
            if not batch.sampling[i].ended:
                outcome.logprobs.append((batch.sampling[i].request_id, logprobs))
        for sequence, token in zip(batch.sampling, sampled.tokens, strict=True):
            sequence.n_steps -= 1
            sequence.n_in_flight -= 1
            if sequence.ended:
                continue
            tokens = sequence.tokens
            tokens.append(token)
            outcome.ids.append(sequence.request_id)
            outcome.tokens.append(token)
            n_tokens = len(tokens)
            # The newest one's keys are a later step's work.
            if n_tokens > sequence.next_key_at and not sequence.leaving:
                self.kv.publish(sequence, n_tokens - 1, fresh=False)
            if n_tokens >= sequence.limit or token in sequence.stop_ids or sequence.watched:
                self._conclude(sequence, token, outcome)
        self._settle(batch)

    def _conclude(self, sequence: Sequence, token: int, outcome: Outcome) -> None:
        """What a new token may mean: the proof that its sequence can be computed, a grammar's next state, an end."""
        sequence.alone = False
        finish, message = None, None
        if sequence.matcher is not None:
            sequence.matcher.advance(token)
            message = sequence.matcher.error
        if message is not None:
            finish = Finish.ERROR
        elif token in sequence.stop_ids:
            finish = Finish.STOP
        elif len(sequence.tokens) >= sequence.limit:
            finish = Finish.LENGTH
        if finish is not None:
            self._end(sequence)
            outcome.ended.append((sequence, finish, message))

    def fail(self, failed: Batch, dropped: list[Batch], reason: str, outcome: Outcome) -> None:
        """A step failed: nothing that was in flight counts, and the cache's content is lost.

        Everybody computes again from their tokens; those of the failed step each in a step of their own. A sequence
        that fails there is ended. dropped: the batches launched after it. The runner must `recover`.
        """
        suspects = dict.fromkeys([*failed.decodes, *(chunk.sequence for chunk in failed.prefills)])
        for batch in (failed, *dropped):
            for sequence in batch.sampling:
                sequence.n_steps -= 1
                sequence.n_in_flight -= 1
            self._settle(batch)
        self._start_over()
        for sequence in suspects:
            if sequence.alone and not sequence.ended:
                self._end(sequence)
                outcome.ended.append((sequence, Finish.ERROR, reason))
            sequence.alone = True

    def _start_over(self) -> None:
        for sequence in reversed(self.running):
            self.waiting.appendleft(sequence)
            self._seats.leave(sequence)
        self.running.clear()
        self.kv.pool.forget_contents()
        self._seats.forget_changes()
        self._decodes = ()

    def _settle(self, batch: Batch) -> None:
        for chunk in batch.prefills:
            if not chunk.samples:
                chunk.sequence.n_steps -= 1
        self._seats.settle(batch)

    def _end(self, sequence: Sequence) -> None:
        sequence.ended = True
        del self._alive[sequence.request_id]
        if sequence.row is None or sequence.leaving:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
            self._seats.leave(sequence)

    def check(self) -> None:
        """Raises AssertionError where a block or a row is lost or has two owners."""
        self._seats.check(self.running)
        assert {*self.running, *self.waiting} == set(self._alive.values()), "a request is in no list, or in two"
