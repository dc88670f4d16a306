"""What the engine launches when, on a device that shows every batch."""

from __future__ import annotations

import sys

import pytest

from tests.worker_image.engine.fake_engine import BLOCK_TOKENS, MODEL_LEN, Fake, expected
from worker_image.engine.batch import Batch, Sampled
from worker_image.engine.messages import Add, Sampling
from worker_image.engine.scheduler.core import Outcome


def an_add(request_id: int, n_prompt: int, max_tokens: int, *, n: int = 1, salt: str = "", first: int = 0) -> Add:
    """A prompt that shares nothing with one of another `first`."""
    prompt = [100 + first, *range(1, n_prompt)]
    return Add(request_id, prompt, Sampling(max_tokens, seed=request_id, n=n), cache_salt=salt)


def lengths(batch: Batch) -> list[tuple[int, int]]:
    """(request, tokens)"""
    decodes = [(s.request_id, 1) for s in batch.decodes]
    return decodes + [(c.sequence.request_id, c.length) for c in batch.prefills]


def test_decodes_go_on_while_a_long_prompt_is_prefilled_in_chunks() -> None:
    fake = Fake.build(step_tokens=8, depth=0)
    fake.engine.add(an_add(0, 3, 30))
    fake.step()
    fake.engine.add(an_add(1, 20, 5, first=1))
    for _ in range(3):
        fake.step()
    assert [lengths(b) for b in fake.runner.batches[1:]] == [[(0, 1), (1, 7)], [(0, 1), (1, 7)], [(0, 1), (1, 6)]]


def test_a_step_is_launched_before_the_last_one_is_committed() -> None:
    fake = Fake.build(depth=1)
    fake.engine.add(an_add(0, 3, 5))
    assert fake.step().ids == []
    assert fake.step().ids == [0]
    assert len(fake.runner.batches) == 2


@pytest.mark.parametrize("depth", [0, 1])
def test_no_step_is_launched_past_the_last_token(depth: int) -> None:
    fake = Fake.build(depth=depth)
    fake.engine.add(an_add(0, 3, 5))
    fake.run()
    assert [lengths(b) for b in fake.runner.batches] == [[(0, 3)], *[[(0, 1)]] * 4]


def test_a_request_with_penalties_takes_every_second_step_of_an_overlapping_runner() -> None:
    fake = Fake.build(depth=1)
    fake.engine.add(an_add(0, 3, 9))
    fake.engine.add(Add(1, [5, 6], Sampling(3, seed=0, presence_penalty=1.0)))
    fake.run()
    turns = [1 in dict(lengths(b)) for b in fake.runner.batches]
    assert turns[:5] == [True, False, True, False, True]


def test_the_decodes_of_a_steady_state_are_the_same_object() -> None:
    fake = Fake.build(depth=1)
    for i in range(3):
        fake.engine.add(an_add(i, 3, 20, first=i))
    for _ in range(9):
        fake.step()
    assert len({id(b.decodes) for b in fake.runner.batches[1:]}) == 1


def test_a_table_is_sent_whole_when_a_row_joins_and_then_only_its_new_blocks() -> None:
    fake = Fake.build(depth=0)
    fake.engine.add(an_add(0, 6, 8))
    fake.run()
    updates = [[(u.first, len(u.blocks)) for u in b.tables] for b in fake.runner.batches]
    assert updates == [[(0, 2)], [], [], [(2, 1)], [], [], [], [(3, 1)]]
    assert [len(b.joined) for b in fake.runner.batches] == [1, *[0] * 7]


def test_the_youngest_is_preempted_and_finds_its_blocks_again() -> None:
    fake = Fake.build(n_blocks=11, step_tokens=40)
    requests = [an_add(0, 12, 28), an_add(1, 12, 28, first=1)]
    for request in requests:
        fake.engine.add(request)
    answers, _ = fake.run()
    assert answers == expected(requests[0]) | expected(requests[1])
    assert fake.engine.load.preemptions > 0
    assert fake.engine.load.kv_usage == 0


def test_a_prompt_that_is_known_is_computed_from_its_last_token_on() -> None:
    fake = Fake.build(depth=0)
    for request_id in range(2):
        fake.engine.add(an_add(request_id, 2 * BLOCK_TOKENS, 1))
        fake.run()
    chunk = fake.runner.batches[-1].prefills[0]
    # The last block is copied: its last slot is written again, and its first owner may still read it.
    assert (chunk.start, chunk.length, len(fake.runner.batches[-1].copies)) == (2 * BLOCK_TOKENS - 1, 1, 1)
    assert fake.engine.load.prefix_hit_tokens == 2 * BLOCK_TOKENS - 1
    assert fake.engine.load.prefix_queried_tokens == 4 * BLOCK_TOKENS


def test_what_two_prompts_share_is_computed_once_even_within_a_step() -> None:
    fake = Fake.build(step_tokens=64)
    fake.engine.add(an_add(0, 10, 4))
    fake.engine.add(Add(1, [*an_add(0, 10, 4).prompt[:9], 77, 78], Sampling(4, seed=1)))
    done = fake.step()
    assert lengths(fake.runner.batches[0]) == [(0, 10), (1, 11 - 2 * BLOCK_TOKENS)]
    assert [(a.request_id, a.cached_tokens) for a in done.admitted] == [(0, 0), (1, 2 * BLOCK_TOKENS)]


@pytest.mark.parametrize("depth", [0, 1])
def test_a_block_that_this_very_step_fills_is_shared_but_not_copied(depth: int) -> None:
    fake = Fake.build(step_tokens=64, depth=depth)
    for request_id in range(2):
        fake.engine.add(Add(request_id, list(range(8)), Sampling(4, seed=request_id)))
    answers, _ = fake.run()
    assert fake.runner.batches[0].copies == ()
    assert lengths(fake.runner.batches[0]) == [(0, 8), (1, 4)]
    assert answers == {i: expected(Add(i, list(range(8)), Sampling(4, seed=i)))[i] for i in range(2)}


def test_requests_of_different_salts_share_nothing() -> None:
    fake = Fake.build()
    for request_id, salt in enumerate(("", "acme", "umbrella")):
        fake.engine.add(an_add(request_id, 16, 2, salt=salt))
        fake.run()
    assert fake.engine.load.prefix_hit_tokens == 0
    fake.engine.add(an_add(3, 16, 2, salt="acme"))
    fake.run()
    assert fake.engine.load.prefix_hit_tokens > 0, "its own it finds"


def test_choices_share_their_prompts_blocks_and_copy_the_last_one() -> None:
    fake = Fake.build(n_blocks=40, step_tokens=64, depth=1)
    request = an_add(0, 10, 3, n=3)
    fake.engine.add(request)
    for _ in range(2):
        fake.step()
    first, *others = fake.scheduler.running
    assert all(s.blocks[:2] == first.blocks[:2] and s.blocks[2] != first.blocks[2] for s in others)
    assert [c.length for c in fake.runner.batches[1].prefills] == [1, 1]
    assert [source for source, _ in fake.runner.batches[1].copies] == [first.blocks[2]] * 2
    answers, _ = fake.run()
    assert answers == expected(request)


def test_the_cache_is_kept_when_its_holder_is_cancelled_in_flight() -> None:
    fake = Fake.build(depth=1)
    fake.engine.add(an_add(0, 8, 5))
    fake.step()
    fake.engine.cancel(0)
    assert fake.scheduler.kv.pool.usage > 0, "the step in flight still writes there"
    assert fake.step().ids == []
    assert fake.scheduler.kv.pool.usage == 0
    fake.engine.add(an_add(1, 8, 5))
    assert fake.step().admitted[0].cached_tokens == 7


def test_a_request_goes_on_elsewhere_where_it_was() -> None:
    whole = an_add(0, 6, 12)
    answer = expected(whole)[0]
    fake = Fake.build()
    fake.engine.add(Add(0, whole.prompt + answer[:5], whole.sampling, n_generated=5))
    answers, _ = fake.run()
    assert answers[0] == answer[5:]


def test_a_request_that_was_finished_elsewhere_is_told_so() -> None:
    fake = Fake.build()
    fake.engine.add(Add(0, list(range(8)), Sampling(3), n_generated=3))
    _, ends = fake.run()
    assert ends[0].message == "the request has 8 tokens already; it may have 8."


def test_less_than_four_percent_of_the_cache_is_wasted() -> None:
    fake = Fake.build(n_blocks=400, max_num_seqs=8, step_tokens=2000, block_tokens=16, model_len=1000)
    for i in range(8):
        fake.engine.add(an_add(i, 100 + 63 * i, 40, first=i))
    wastes = []
    while fake.engine.has_work:
        wastes.append(fake.step().load.kv_waste)
        held = sum(s.room for s in fake.scheduler.running)
        used = sum(len(s.tokens) + s.n_in_flight for s in fake.scheduler.running)
        if held and fake.scheduler.kv.pool.n_free + held // 16 == 400:
            assert wastes[-1] == pytest.approx(1 - used / held)
    assert max(wastes) < 0.04


def test_the_longest_request_fits_an_engine_of_its_size_again_and_again() -> None:
    fake = Fake.build(n_blocks=MODEL_LEN // BLOCK_TOKENS)
    for request_id in range(3):
        fake.engine.add(an_add(request_id, MODEL_LEN - 4, 4))
        answers, _ = fake.run()
        assert len(answers[request_id]) == 4


def test_a_step_of_many_decodes_costs_a_few_calls_for_each() -> None:
    """What Python does for a step is bounded: 256 sequences are to take a fraction of a millisecond."""
    n_seqs = 64
    fake = Fake.build(n_blocks=2000, max_num_seqs=n_seqs, step_tokens=2000, block_tokens=16, model_len=1000)
    for i in range(n_seqs):
        fake.engine.add(an_add(i, 17, 900, first=i))
    for _ in range(3):
        fake.step()
    batch, calls = fake.runner.batches[-1], 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    planned = fake.scheduler.schedule(0.0)
    fake.scheduler.commit(batch, Sampled([1] * n_seqs), Outcome())
    sys.setprofile(None)
    assert planned is not None
    assert len(planned.decodes) == n_seqs
    assert calls < 10 * n_seqs
