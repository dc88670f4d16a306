"""Scheduler and block pool under random arrivals, cancels and preemptions: the invariants that must always hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from worker_image.engine.block_pool import BlockPool
from worker_image.engine.messages import Finish, Sampling
from worker_image.engine.scheduler import Batch, Limits, Scheduler, Sequence

BLOCK_TOKENS = 4
MODEL_LEN = 40


def a_scheduler(n_blocks: int, *, max_num_seqs: int = 4, step_tokens: int = 16) -> Scheduler:
    return Scheduler(Limits(max_num_seqs, step_tokens, BLOCK_TOKENS, MODEL_LEN), BlockPool(n_blocks))


def a_sequence(request_id: int, n_prompt: int, max_tokens: int) -> Sequence:
    return Sequence(request_id, list(range(n_prompt)), Sampling(max_tokens, stop_ids=(7,)))


def step(scheduler: Scheduler, token: int = 1) -> tuple[Batch, list[tuple[Sequence, Finish | None]]]:
    batch = scheduler.schedule()
    return batch, scheduler.commit(batch, [token] * len(batch.sampling_chunks))


class SchedulerMachine(RuleBasedStateMachine):
    """Random life of an engine. After every rule, each invariant holds."""

    @initialize(n_blocks=st.integers(10, 30), max_num_seqs=st.integers(1, 6), step_tokens=st.integers(7, 24))
    def start(self, n_blocks: int, max_num_seqs: int, step_tokens: int) -> None:
        self.scheduler = a_scheduler(n_blocks, max_num_seqs=max_num_seqs, step_tokens=step_tokens)
        self.alive: dict[int, Sequence] = {}
        self.next_id = 0

    @rule(n_prompt=st.integers(1, MODEL_LEN - 1), max_tokens=st.integers(1, MODEL_LEN))
    def arrive(self, n_prompt: int, max_tokens: int) -> None:
        sequence = a_sequence(self.next_id, n_prompt, max_tokens)
        self.alive[self.next_id] = sequence
        self.next_id += 1
        self.scheduler.add(sequence)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.alive)))
        assert self.scheduler.cancel(request_id)
        assert not self.scheduler.cancel(request_id)
        assert not self.alive.pop(request_id).blocks

    @rule(token=st.integers(1, 8))
    def run(self, token: int) -> None:
        oldest = min(self.alive, default=None)
        before = self.progress(oldest)
        batch, results = step(self.scheduler, token)
        assert batch.n_tokens <= self.scheduler.limits.step_tokens
        assert bool(batch.chunks) == bool(self.alive), "work is never left lying"
        for sequence, finish in results:
            if finish is not None:
                assert not sequence.blocks
                del self.alive[sequence.request_id]
        if oldest in self.alive:
            assert self.progress(oldest) > before, "the oldest request moves in every step"

    def progress(self, request_id: int | None) -> tuple[int, int]:
        if request_id is None:
            return 0, 0
        return len(self.alive[request_id].tokens), self.alive[request_id].computed

    @invariant()
    def no_block_is_lost_or_doubly_owned(self) -> None:
        owned = [block for sequence in self.alive.values() for block in sequence.blocks]
        pool = self.scheduler.pool
        assert len(owned) == len(set(owned))
        assert all(pool.references(block) == 1 for block in owned)
        assert pool.n_free + len(owned) == pool.n_blocks

    @invariant()
    def everybody_is_in_exactly_one_place_and_in_order(self) -> None:
        running = [s.request_id for s in self.scheduler.running]
        waiting = [s.request_id for s in self.scheduler.waiting]
        assert sorted(running + waiting) == sorted(self.alive)
        assert running + waiting == sorted(running + waiting), "first come, first served"
        assert len(running) <= self.scheduler.limits.max_num_seqs

    @invariant()
    def what_is_computed_has_blocks(self) -> None:
        for sequence in self.alive.values():
            assert sequence.computed <= len(sequence.blocks) * BLOCK_TOKENS


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSchedulerMachine = SchedulerMachine.TestCase


@settings(deadline=None, max_examples=150)
@given(
    requests=st.lists(st.tuples(st.integers(1, MODEL_LEN - 1), st.integers(1, MODEL_LEN)), min_size=1, max_size=12),
    n_blocks=st.integers(10, 24),
)
def test_every_request_ends_with_as_many_tokens_as_it_asked_for(requests: list[tuple[int, int]], n_blocks: int) -> None:
    scheduler = a_scheduler(n_blocks)
    sequences = [a_sequence(i, n_prompt, most) for i, (n_prompt, most) in enumerate(requests)]
    for sequence in sequences:
        scheduler.add(sequence)
    for _ in range(12 * 2 * MODEL_LEN * 4):
        if not scheduler.has_work:
            break
        step(scheduler)
    assert not scheduler.has_work
    assert scheduler.pool.n_free == n_blocks
    for sequence, (n_prompt, most) in zip(sequences, requests, strict=True):
        assert len(sequence.tokens) == min(n_prompt + most, MODEL_LEN)


def test_decodes_go_on_while_a_long_prompt_is_prefilled_in_chunks() -> None:
    scheduler = a_scheduler(30, step_tokens=8)
    scheduler.add(a_sequence(0, 3, 30))
    step(scheduler)
    scheduler.add(a_sequence(1, 20, 5))
    lengths = [[(c.sequence.request_id, c.length) for c in step(scheduler)[0].chunks] for _ in range(3)]
    assert lengths == [[(0, 1), (1, 7)], [(0, 1), (1, 7)], [(0, 1), (1, 6)]]


def test_the_youngest_is_preempted_and_comes_back_with_its_tokens() -> None:
    scheduler = a_scheduler(10, step_tokens=40)
    old, young = a_sequence(0, 12, 28), a_sequence(1, 12, 28)
    scheduler.add(old)
    scheduler.add(young)
    while not scheduler.load().preemptions:
        step(scheduler)
    assert list(scheduler.waiting) == [young]
    n_kept = len(young.tokens)
    assert n_kept > young.n_prompt
    while scheduler.has_work:
        step(scheduler)
    assert len(old.tokens) == len(young.tokens) == 40


def test_a_stop_token_ends_a_request_at_once() -> None:
    scheduler = a_scheduler(10)
    scheduler.add(a_sequence(0, 3, 30))
    _, [(_, finish)] = step(scheduler, token=7)
    assert finish is Finish.STOP
    assert not scheduler.has_work


def test_a_shared_block_is_free_only_when_its_last_holder_lets_go() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(3)
    assert blocks is not None
    pool.share(blocks[:1])
    pool.release(blocks)
    assert pool.n_free == 3
    pool.release(blocks[:1])
    assert pool.n_free == 4


def test_too_large_an_allocation_takes_nothing() -> None:
    pool = BlockPool(4)
    assert pool.allocate(5) is None
    assert pool.n_free == 4


def test_releasing_a_free_block_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="released more often"):
        BlockPool(2).release([0])
