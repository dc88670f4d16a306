"""Running work gives way to better work, comes back, and nobody can tell from its answer."""

from __future__ import annotations

import pytest

from tests.worker_image.engine.fake_engine import Fake, expected
from worker_image.engine.messages import Add, Sampling
from worker_image.engine.scheduler.settings import Batching, PolicyName, Scheduling
from worker_image.engine.standing import Standing

CLASSY = [PolicyName.PRIORITY, PolicyName.FAIR, PolicyName.EDF]


def an_add(request_id: int, priority: int, *, n_prompt: int = 6, max_tokens: int = 20) -> Add:
    prompt = [100 + request_id, *range(1, n_prompt)]
    return Add(request_id, prompt, Sampling(max_tokens, seed=request_id), standing=Standing(priority))


def steps_until(fake: Fake, request_id: int) -> int:
    """Until its first token."""
    for n_steps in range(1, 100):
        if request_id in fake.step().ids:
            return n_steps
    raise AssertionError("no token came")


@pytest.mark.parametrize("policy", CLASSY)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_better_class_gets_a_row_at_once_and_who_gave_it_goes_on_as_if_nothing_was(
    policy: PolicyName, depth: int
) -> None:
    fake = Fake.build(max_num_seqs=2, depth=depth, scheduling=Scheduling(policy))
    low = [an_add(i, 3) for i in range(2)]
    for request in low:
        fake.engine.add(request)
    for _ in range(5):
        fake.step()
    high = an_add(2, 0, max_tokens=3)
    fake.engine.add(high)
    assert steps_until(fake, 2) <= 1 + 2 * depth
    answers, _ = fake.run()
    assert answers == expected(low[0]) | expected(low[1]) | expected(high)
    assert fake.engine.load.preemptions_by_class == [0, 0, 0, 1]


@pytest.mark.parametrize("policy", CLASSY)
def test_a_better_class_gets_the_blocks_it_needs_from_as_few_as_have_them(policy: PolicyName) -> None:
    fake = Fake.build(n_blocks=12, max_num_seqs=6, step_tokens=40, scheduling=Scheduling(policy))
    low = [an_add(i, 3) for i in range(3)]
    for request in low:
        fake.engine.add(request)
    for _ in range(4):
        fake.step()
    fake.engine.add(an_add(3, 0, n_prompt=8, max_tokens=2))
    steps_until(fake, 3)
    assert fake.engine.load.preemptions_by_class == [0, 0, 0, 1]
    assert fake.run()[0][0] == expected(low[0])[0]


def test_nobody_gives_way_in_vain() -> None:
    """The whole of what the lowest class has is not enough: it stays."""
    fake = Fake.build(n_blocks=10, max_num_seqs=4, step_tokens=60, scheduling=Scheduling(PolicyName.PRIORITY))
    fake.engine.add(an_add(0, 0, n_prompt=20))
    fake.engine.add(an_add(1, 3, n_prompt=5))
    for _ in range(3):
        fake.step()
    fake.engine.add(an_add(2, 1, n_prompt=30, max_tokens=2))
    fake.step()
    assert fake.engine.load.preemptions == 0


def test_when_the_cache_is_full_the_lowest_class_loses_its_blocks_first() -> None:
    fake = Fake.build(n_blocks=12, step_tokens=40, scheduling=Scheduling(PolicyName.PRIORITY))
    requests = [an_add(0, 3, max_tokens=30), an_add(1, 1, max_tokens=30)]
    for request in requests:
        fake.engine.add(request)
    answers, _ = fake.run()
    assert fake.engine.load.preemptions_by_class[3] > 0
    assert fake.engine.load.preemptions_by_class[1] == 0
    assert answers == expected(requests[0]) | expected(requests[1])


@pytest.mark.parametrize("policy", CLASSY)
def test_a_short_prompt_of_a_better_class_passes_a_long_one_that_is_under_way(policy: PolicyName) -> None:
    fake = Fake.build(step_tokens=8, depth=0, scheduling=Scheduling(policy))
    fake.engine.add(an_add(0, 3, n_prompt=32, max_tokens=2))
    fake.step()
    fake.engine.add(an_add(1, 0, n_prompt=6, max_tokens=2))
    assert steps_until(fake, 1) == 1
    answers, _ = fake.run()
    assert len(answers[0]) == 2


@pytest.mark.parametrize("batching", [Batching.STATIC, Batching.DYNAMIC])
def test_a_batch_that_nobody_joins_is_not_broken_up(batching: Batching) -> None:
    fake = Fake.build(max_num_seqs=2, scheduling=Scheduling(PolicyName.PRIORITY, batching))
    for i in range(2):
        fake.engine.add(an_add(i, 3))
    for _ in range(5):
        fake.step()
    fake.engine.add(an_add(2, 0))
    fake.run()
    assert fake.engine.load.preemptions == 0


def test_one_gives_way_to_newcomers_once() -> None:
    fake = Fake.build(max_num_seqs=1, depth=0, scheduling=Scheduling(PolicyName.PRIORITY))
    low = an_add(0, 3)
    fake.engine.add(low)
    for _ in range(3):
        fake.step()
    fake.engine.add(an_add(1, 0, max_tokens=2))
    while 1 not in fake.ends:
        fake.step()
    fake.step()
    fake.engine.add(an_add(2, 0, max_tokens=2))
    answers, ends = fake.run()
    assert fake.engine.load.preemptions == 1
    assert list(ends) == [1, 0, 2]
    assert answers[0] == expected(low)[0]


def test_several_come_at_once_when_several_give_way() -> None:
    fake = Fake.build(max_num_seqs=4, n_blocks=60, depth=0, scheduling=Scheduling(PolicyName.PRIORITY))
    for i in range(4):
        fake.engine.add(an_add(i, 3))
    for _ in range(6):
        fake.step()
    for i in range(4, 7):
        fake.engine.add(an_add(i, 0, max_tokens=3, n_prompt=4))
    assert {4, 5, 6} <= set(fake.step().ids)
    assert fake.engine.load.preemptions_by_class == [0, 0, 0, 3]
