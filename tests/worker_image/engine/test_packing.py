"""Batches: first-fit decreasing, buckets, thresholds, and when a door opens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_image.engine.fake_engine import Fake
from tests.worker_image.engine.test_scheduling import an_add, lengths
from worker_image.engine.scheduler.batching import Inside, opens, threshold
from worker_image.engine.scheduler.packing import bucket_of, by_steps, first_fit_decreasing, of_one_bucket, that_fit
from worker_image.engine.scheduler.settings import Batching, Packing, Scheduling

SIZES = st.lists(st.integers(1, 120), max_size=40)


@given(sizes=SIZES, capacity=st.integers(1, 100))
def test_bins_hold_everything_once_and_none_is_too_full(sizes: list[int], capacity: int) -> None:
    bins = first_fit_decreasing(sizes, capacity)
    assert sorted(i for each in bins for i in each) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in each) <= capacity or len(each) == 1 for each in bins)
    if all(size <= capacity for size in sizes):
        fewest = -(-sum(sizes) // capacity)
        # Two bins that are not the last are together more than one full: no packing needs half of these.
        assert len(bins) <= 2 * fewest


def test_the_largest_is_placed_first() -> None:
    assert first_fit_decreasing([3, 6, 4, 7], 10) == [[3, 0], [1, 2]]
    assert by_steps([3, 6, 4, 7], 10) == [0, 3, 1, 2]


def test_smaller_ones_pass_one_that_has_no_room() -> None:
    assert that_fit([5, 9, 2, 3], 10) == [0, 2, 3]


@given(sizes=SIZES.filter(bool))
def test_a_bucket_is_of_like_lengths_and_the_firsts(sizes: list[int]) -> None:
    chosen = of_one_bucket(sizes)
    assert chosen[0] == 0
    assert max(sizes[i] for i in chosen) < 2 * min(sizes[i] for i in chosen)
    assert all(bucket_of(sizes[i]) != bucket_of(sizes[0]) for i in range(len(sizes)) if i not in chosen)


def inside(n_running: int = 0, *, n_rows: int = 8, free_blocks: int = 100) -> Inside:
    return Inside(n_running, n_rows, 64, 4, free_blocks, 100)


@pytest.mark.parametrize(("n_running", "expected"), [(0, 6), (4, 3), (7, 1), (8, 1)])
def test_the_adaptive_threshold_is_base_times_what_is_free(n_running: int, expected: int) -> None:
    scheduling = Scheduling(batching=Batching.ADAPTIVE, batch_base=6)
    assert threshold(scheduling, inside(n_running).fullness, 8) == expected


def test_the_adaptive_threshold_keeps_to_minimum_and_maximum() -> None:
    scheduling = Scheduling(batching=Batching.ADAPTIVE, batch_base=6, min_batch=2, max_batch=4)
    assert threshold(scheduling, 0.0, 4) == 4
    assert threshold(scheduling, 1.0, 4) == 2


def test_a_full_cache_counts_as_a_full_engine() -> None:
    assert inside(1, free_blocks=10).fullness == 0.9


@pytest.mark.parametrize(
    ("batching", "n_waiting", "waited_s", "n_running", "expected"),
    [
        (Batching.CONTINUOUS, 1, 0.0, 3, True),
        (Batching.CONTINUOUS, 1, 0.0, 4, False),
        (Batching.DYNAMIC, 2, 0.2, 0, True),
        (Batching.DYNAMIC, 2, 0.0, 0, False),
        (Batching.DYNAMIC, 1, 0.9, 0, False),
        (Batching.DYNAMIC, 1, 1.0, 0, True),
        (Batching.DYNAMIC, 9, 9.0, 1, False),
        (Batching.STATIC, 3, 0.2, 0, False),
        (Batching.STATIC, 4, 0.2, 0, True),
        (Batching.STATIC, 1, 1.0, 0, True),
        (Batching.ADAPTIVE, 7, 0.2, 0, True),
        (Batching.ADAPTIVE, 2, 0.2, 0, False),
        (Batching.ADAPTIVE, 2, 0.2, 3, True),
    ],
)
def test_when_a_batch_may_begin(
    batching: Batching, n_waiting: int, waited_s: float, n_running: int, expected: bool
) -> None:
    scheduling = Scheduling(
        batching=batching, min_batch=2, max_batch=4, min_wait_s=0.1, max_wait_s=1.0, batch_base=4
    )  # fmt: skip
    assert opens(scheduling, n_waiting, waited_s, inside(n_running)) is expected


def requests_of_each_step(scheduling: Scheduling, prompts: list[int], answers: list[int]) -> list[list[int]]:
    fake = Fake.build(depth=0, max_num_seqs=3, step_tokens=12, scheduling=scheduling)
    for i, (n_prompt, n_answer) in enumerate(zip(prompts, answers, strict=True)):
        fake.engine.add(an_add(i, n_prompt, n_answer, first=i))
    fake.run()
    return [[i for i, _ in lengths(batch)] for batch in fake.runner.batches]


def test_nobody_joins_a_batch_that_runs() -> None:
    steps = requests_of_each_step(Scheduling(batching=Batching.STATIC, max_batch=2), [3, 3, 3], [4, 1, 2])
    assert steps == [[0, 1], [0], [0], [0], [2], [2]]


def test_continuous_batching_fills_a_place_at_once() -> None:
    steps = requests_of_each_step(Scheduling(max_batch=2), [3, 3, 3], [4, 1, 2])
    assert steps == [[0, 1], [0, 2], [0, 2], [0]]


def test_a_step_is_packed_with_prompts_that_fill_it() -> None:
    in_order = requests_of_each_step(Scheduling(), [7, 8, 5], [1, 1, 1])
    assert in_order == [[0, 1], [1, 2]]
    packed = requests_of_each_step(Scheduling(packing=Packing.FIRST_FIT, max_wait_s=9.0), [7, 8, 5], [1, 1, 1])
    assert packed == [[0, 2], [1]]


def test_a_batch_of_like_lengths_is_taken_from_one_bucket() -> None:
    scheduling = Scheduling(batching=Batching.DYNAMIC, packing=Packing.BUCKETS)
    assert requests_of_each_step(scheduling, [3, 11, 2], [2, 1, 2]) == [[0, 2], [0, 2], [1]]


def test_one_that_is_alone_waits_no_longer_than_it_must() -> None:
    fake = Fake.build(depth=0, scheduling=Scheduling(batching=Batching.STATIC, max_wait_s=0.3))
    fake.engine.add(an_add(0, 3, 1))
    done = [fake.step()]
    while not done[-1].ids:
        done.append(fake.step())
    assert 0.3 <= done[-1].admitted[0].queued_s < 0.32
    assert len(done) < 40, "it sleeps between its looks"


def test_a_batch_that_is_cancelled_lets_the_next_one_in() -> None:
    fake = Fake.build(depth=0, max_num_seqs=2, scheduling=Scheduling(batching=Batching.DYNAMIC))
    for i in range(4):
        fake.engine.add(an_add(i, 12, 9, first=i))
    fake.step()
    for i in range(3):
        fake.engine.cancel(i)
    answers, _ = fake.run()
    assert len(answers[3]) == 9
