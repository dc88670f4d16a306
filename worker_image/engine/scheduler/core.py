"""Keeps the books of every step: one token budget, decodes first, then prefill chunks, in the policy's order.

A request's life: waiting → running (a row and its prompt's blocks are taken at admission) → ended, or back to waiting
when one that the policy ranks better needs its blocks or its row (preemption: it keeps its tokens, its sampler's and
its grammar's state, and computes its cache again unless that was worth saving in host memory). The best of those who
run is never preempted for blocks, and it always fits in the pool, so every request ends.
Steps are planned while earlier ones are in flight; rows and blocks go back only when no launched step uses them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from worker_image.engine.batch import Batch, Chunk, Sampled
from worker_image.engine.host_blocks import HostBlocks
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.messages import Finish, Logprobs
from worker_image.engine.scheduler.batching import Door, Inside
from worker_image.engine.scheduler.policies import make_policy
from worker_image.engine.scheduler.room import Room, who_gives_way
from worker_image.engine.scheduler.settings import DEFAULT, Scheduling
from worker_image.engine.seats import Seats
from worker_image.engine.sequence import Sequence
from worker_image.engine.standing import CLASSES

COME_AT_ONCE: Final = 8
"""For so many of those who wait, others give way in one step."""
LOOKS_AGAIN: Final = 8
"""Steps after which a first in line for whom nobody gave way is looked at again."""


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
    """By index into `tokens`."""
    ended: list[tuple[Sequence, Finish, str | None]] = field(default_factory=list)


class Scheduler:
    """Holds every request of the engine and the blocks they share."""

    def __init__(
        self, limits: Limits, kv: KvBlocks, scheduling: Scheduling = DEFAULT, host: HostBlocks | None = None
    ) -> None:
        """host: room in host memory for what those who give way have computed; None computes it again."""
        assert kv.blocks_for(limits.max_model_len) <= kv.pool.n_blocks, "one request must always fit"
        self.limits = limits
        self.kv = kv
        self.waiting = make_policy(scheduling)
        self.running: list[Sequence] = []
        """In the order of their admission, or the policy's: whoever gives way first is last."""
        self.n_preemptions = [0] * len(CLASSES)
        """By class."""
        self.n_launched = 0
        self._door = Door(scheduling)
        self._no_way_for: tuple[Sequence | None, int, int] = (None, 0, 0)
        """The first in line for whom nobody gave way, and when that was."""
        self._n_changes = 0
        """Admissions, ends and preemptions."""
        self._alive: dict[int, Sequence] = {}
        self._host = host
        self._seats = Seats(limits.max_num_seqs, kv, host)
        self._decodes: tuple[Sequence, ...] = ()

    @property
    def has_work(self) -> bool:
        return bool(self._alive)

    @property
    def restored_tokens(self) -> int:
        """Read back from host memory instead of computed again."""
        return 0 if self._host is None else self._host.restored_tokens

    @property
    def kv_waste(self) -> float:
        """Share of the held slots that no token has or is about to have, 0 to 1."""
        held = (self.kv.pool.n_blocks - self.kv.pool.n_free) * self.limits.block_tokens
        wasted = sum(s.room - len(s.tokens) - s.n_in_flight for s in self.running)
        return max(wasted, 0) / held if held else 0.0

    def opens_in_s(self, now: float) -> float:
        """How long a batch is waited for; 0 where something can be done."""
        return 0.0 if self.running else self._door.opens_in_s(self.waiting, self._inside, now)

    def add(self, sequence: Sequence) -> None:
        assert 0 < len(sequence.tokens) < sequence.limit <= self.limits.max_model_len, (
            "the server refuses such a prompt"
        )
        self._alive[sequence.request_id] = sequence
        self.waiting.add(sequence)

    def cancel(self, request_id: int) -> bool:
        """Forgets the request wherever it is; False where it is not here (any more)."""
        sequence = self._alive.get(request_id)
        if sequence is not None:
            self._end(sequence)
        return sequence is not None

    def schedule(self, now: float) -> Batch | None:
        """The next step, to be launched at once; None where nothing can be computed before a commit or a later time."""
        self.kv.begin_step()
        if self.waiting and self.waiting.reorders:
            self._make_way(now)
        turns = self._turns()
        decodes, prefilling = self._plan_decodes(turns)
        admits = not (turns and turns[0].alone)
        chunks = self._plan_prefills(deque(prefilling), self.limits.step_tokens - len(decodes), now, admits=admits)
        if not decodes and not chunks:
            return None
        return self._batch(tuple(decodes), tuple(chunks))

    def _batch(self, decodes: tuple[Sequence, ...], chunks: tuple[Chunk, ...]) -> Batch:
        if decodes != self._decodes:
            self._decodes = decodes
        if decodes and self.waiting.meters:
            self.waiting.decoded(self._decodes)
        self.n_launched += 1
        changes = self._seats.changes(self.n_launched)
        return Batch(
            self.n_launched, self._decodes, chunks,
            tuple(changes.saves), tuple(chain.from_iterable(changes.restores.values())), tuple(changes.copies),
            tuple(changes.tables), tuple(changes.joined),
        )  # fmt: skip

    def _make_way(self, now: float) -> None:
        """Who runs gives its place to one that waits, where the policy says so and nothing is free."""
        seats, head = self._seats, self.waiting.head(now)
        looked_at = (head, self._n_changes, self.n_launched // LOOKS_AGAIN)
        # Room is on its way, or there was none a moment ago.
        if seats.n_leaving or looked_at == self._no_way_for or not self._door.lets_join:
            return
        if head is None or any(s.alone for s in self.running):
            return
        room = Room(seats.n_free, self.kv.pool.n_free - len(self.running))
        candidates = self.waiting.first(COME_AT_ONCE)
        victims = who_gives_way(self.waiting, candidates, self.running, room, self._need)
        for victim in victims:
            victim.n_displaced += 1
            self._preempt(victim)
        if not victims:
            self._no_way_for = looked_at

    def _need(self, sequence: Sequence) -> int:
        """Blocks of one that is admitted, and the one that must stay free for it."""
        return self.kv.blocks_for(len(sequence.tokens) + 1) + 1

    def _turns(self) -> list[Sequence]:
        """Who takes part: one under suspicion by itself, else everybody that runs."""
        if self.waiting.reorders and self.kv.pool.n_free < len(self.running):
            # Somebody may have to give way in this step: the worst, who must therefore come last.
            self.running.sort(key=self.waiting.rank)
        return next(([s] for s in self.running if s.alone), list(self.running))

    def _plan_decodes(self, turns: list[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        """The sequences that decode now, and those whose prompt is not through. The loop that must cost little."""
        decodes: list[Sequence] = []
        prefilling: list[Sequence] = []
        for sequence in turns:
            if not sequence.decoding:
                # One that lost its blocks to a better one earlier in this loop is neither.
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
        """Takes the block its next token needs, from the last if need be; False when it must sit out."""
        while (new := self.kv.grow(sequence)) is None:
            # Room is on its way: the next step will have it.
            if self._seats.n_leaving:
                return False
            last = self.running[-1]
            self._preempt(last)
            if last is sequence:
                return False
        self._seats.grown(sequence, new)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.waiting.take_back(sequence)
        self._seats.leave(sequence)
        self.n_preemptions[sequence.standing.priority] += 1
        self._n_changes += 1

    def _plan_prefills(self, prefilling: deque[Sequence], budget: int, now: float, *, admits: bool) -> list[Chunk]:
        """Prompts that are under way and, if it `admits`, new ones, in the policy's order, while the budget lasts."""
        waiting, chunks = self.waiting, list[Chunk]()
        if waiting.reorders and len(prefilling) > 1:
            prefilling = deque(sorted(prefilling, key=waiting.rank))
        if waiting and not self._door.always_open:
            self._door.begin_step()
        while budget:
            candidate = self._candidate(now) if admits and waiting else None
            if prefilling and not (candidate and self._overtakes(candidate, prefilling[0])):
                sequence = prefilling.popleft()
            elif candidate is None:
                break
            elif not self._admit(candidate):
                admits = False
                continue
            else:
                sequence = candidate
                if sequence.alone:
                    break
            chunks.append(self._chunk(sequence, budget))
            budget -= chunks[-1].length
        return chunks

    def _candidate(self, now: float) -> Sequence | None:
        if self._door.always_open:
            return self.waiting.head(now)
        return self._door.next(self.waiting, self._inside, now)

    @property
    def _inside(self) -> Inside:
        limits, pool = self.limits, self.kv.pool
        return Inside(
            len(self.running), limits.max_num_seqs, limits.step_tokens, limits.block_tokens, pool.n_free, pool.n_blocks
        )

    def _overtakes(self, waiting: Sequence, prefilling: Sequence) -> bool:
        return self.waiting.reorders and self.waiting.rank(waiting) < self.waiting.rank(prefilling)

    def _admit(self, sequence: Sequence) -> bool:
        """A row and the blocks for all its tokens, and one more; False where they are not to be had now."""
        if not self._seats.n_free or sequence.leaving or self._awaits_parent(sequence):
            return False
        # Without a block left for each running request, the newcomer would be preempted at once.
        grant = self.kv.admit(sequence, len(self.running))
        if grant is None:
            return False
        self.waiting.remove(sequence)
        if not sequence.charged:
            sequence.charged = True
            self.waiting.admitted(sequence)
        self.running.append(sequence)
        self._seats.take(sequence, grant)
        self._n_changes += 1
        sequence.parent = None
        return True

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
        logprobs = sampled.logprobs
        for i, (sequence, token) in enumerate(zip(batch.sampling, sampled.tokens, strict=True)):
            sequence.n_steps -= 1
            sequence.n_in_flight -= 1
            if sequence.ended:
                continue
            tokens = sequence.tokens
            tokens.append(token)
            if i in logprobs:
                outcome.logprobs.append((len(outcome.tokens), logprobs[i]))
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
            message = sequence.matcher.failure
        if message is not None:
            finish = Finish.REFUSED
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
            self.waiting.take_back(sequence)
            self._seats.leave(sequence)
        self.running.clear()
        for sequence in self._alive.values():
            self._seats.drop_saved(sequence)
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
        self._seats.drop_saved(sequence)
        self.waiting.forget(sequence)
        self._n_changes += 1

    def check(self) -> None:
        """Raises AssertionError where a block or a row is lost or has two owners."""
        self._seats.check(self.running, self.waiting)
        assert {*self.running, *self.waiting} == set(self._alive.values()), "a request is in no list, or in two"
